"""Models that need no weights: an encoder and the model's default options are all there is to load."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from momentkit.core.contract import FeatureContract
from momentkit.core.errors import FeatureError, FeatureMismatchError
from momentkit.core.types import GroundingModel
from momentkit.core.weights import WeightsCard
from momentkit.features.encoders import Encoders, contract_of, encoder_by_name
from momentkit.features.sentences import PooledText
from momentkit.models.registry import build_model, is_trainable, list_models
from momentkit.predict.decode import PostProcess

DEFAULT_ENCODER = "clip"
# Nested runs of different levels are one moment where they overlap by half.
POST = PostProcess(nms="greedy", nms_threshold=0.5, keep=10)


@dataclass(frozen=True, kw_only=True, eq=False)
class Untrained:
    """What `GrounderWeights` is for a model without weights.

    Attributes:
        name: of the model.
        card: says that nothing was trained.
        contract: the encoder's frames, and its pooled sentences in the same space.
        parts: the two encoders.
        model: in evaluation mode.
    """

    name: str
    card: WeightsCard
    contract: FeatureContract
    parts: Encoders
    model: nn.Module

    @property
    def post(self) -> PostProcess:
        """How its runs are read."""
        return POST

    def encoders(self, named: Sequence[str | Path], device: torch.device) -> Encoders:
        """The encoders it was made with."""
        return self.parts

    def build_model(self, device: torch.device) -> GroundingModel:
        """The model."""
        return cast(GroundingModel, self.model.to(device))


def needs_no_weights(name: str | Path) -> bool:
    """Whether a name is that of a model without weights."""
    return name in list_models() and not is_trainable(str(name))


def for_stored(name: str, contract: FeatureContract) -> nn.Module:
    """A model without weights, for stored features: frames and sentences of one dual encoder.

    Args:
        name: registry name.
        contract: what the features are.

    Raises:
        FeatureMismatchError: frames and sentences are of different encoders, or time channels are appended.
    """
    encoders = {stream.encoder for stream in (*contract.video, contract.text)}
    if len(encoders) > 1 or contract.tef or contract.audio is not None:
        seen = " and ".join(sorted(encoders)) + (" with time channels" if contract.tef else "")
        raise FeatureMismatchError(
            f"{name} compares frames with sentences, which must be features of one dual encoder, without "
            f"time channels (tef = false); these are of {seen}"
        )
    widths = {"video_dim": contract.video_dim, "text_dim": contract.text.dim}
    return build_model(name, widths, name).eval()


def untrained(name: str | Path, named: Sequence[str | Path], device: torch.device) -> Untrained | None:
    """A model without weights, with the encoders it compares; None where the name is no such model.

    Args:
        name: registry name.
        named: a dual encoder by name or directory; none = CLIP.
        device: where it runs.

    Raises:
        FeatureError: several encoders.
        FeatureMismatchError: the encoder's frames and sentences share no space.
    """
    if not needs_no_weights(name):
        return None
    if len(named) > 1:
        raise FeatureError(
            f"{name} compares frames and sentences of one dual encoder; {len(named)} are given"
        )
    frames, words = encoder_by_name(*named or (DEFAULT_ENCODER,), device=str(device))
    text = PooledText(frames, words)
    contract = contract_of((frames,), text, tef=False)
    widths = {"video_dim": contract.video_dim, "text_dim": contract.text.dim}
    model = build_model(str(name), widths, str(name)).eval()
    card = WeightsCard(
        model=str(name),
        options=asdict(cast(GroundingModel, model).config),
        features=contract,
        trained_on="nothing: sentence and frames are compared",
    )
    return Untrained(name=str(name), card=card, contract=contract, parts=((frames,), text), model=model)
