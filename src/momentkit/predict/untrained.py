"""Models that need no weights: an encoder and the model's default options are all there is to load."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from momentkit.core.contract import FeatureContract
from momentkit.core.types import GroundingModel
from momentkit.core.weights import WeightsCard
from momentkit.features.encoders import Encoders, contract_of, encoder_by_name
from momentkit.features.sentences import PooledText
from momentkit.models.registry import build_model, is_trainable, list_models
from momentkit.predict.decode import PostProcess

DEFAULT_ENCODER = "clip"


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
        """Nested runs of different levels are one moment where they overlap by half."""
        return PostProcess(nms="greedy", nms_threshold=0.5, keep=10)

    def encoders(self, encoder: str | Path | None, device: torch.device) -> Encoders:
        """The encoders it was made with."""
        return self.parts

    def build_model(self, device: torch.device) -> GroundingModel:
        """The model."""
        return cast(GroundingModel, self.model.to(device))


def untrained(name: str | Path, encoder: str | Path | None, device: torch.device) -> Untrained | None:
    """A model without weights, with the encoders it compares; None where the name is no such model.

    Args:
        name: registry name.
        encoder: a dual encoder by name or directory; None = CLIP.
        device: where it runs.

    Raises:
        FeatureMismatchError: the encoder's frames and sentences share no space.
    """
    if name not in list_models() or is_trainable(str(name)):
        return None
    frames, words = encoder_by_name(encoder or DEFAULT_ENCODER, device=str(device))
    text = PooledText(frames, words)
    contract = contract_of(frames, text, tef=False)
    widths = {"video_dim": contract.video_dim, "text_dim": contract.text.dim}
    model = build_model(str(name), widths, str(name)).eval()
    card = WeightsCard(
        model=str(name),
        options=asdict(cast(GroundingModel, model).config),
        features=contract,
        trained_on="nothing: sentence and frames are compared",
    )
    return Untrained(name=str(name), card=card, contract=contract, parts=(frames, text), model=model)
