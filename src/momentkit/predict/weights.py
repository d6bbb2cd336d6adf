"""Weights of a grounding model: where a name leads, and what must be true before they are used."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from momentkit.core.config import build
from momentkit.core.contract import FeatureContract
from momentkit.core.errors import FeatureError, FeatureMismatchError, MissingExtraError, WeightsError
from momentkit.core.types import GroundingModel
from momentkit.core.weights import WeightsCard, read_weights
from momentkit.features.encoders import CLIP_PREFIXES, TINY_PREFIX, Encoders, contract_of, create_encoders
from momentkit.features.network_file import fill
from momentkit.models.registry import build_model, list_models
from momentkit.predict.decode import PostProcess

RUN_WEIGHTS = "best.safetensors"  # what a training run leaves in its directory
HUB_WEIGHTS = "model.safetensors"  # the file of a hub repository
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, kw_only=True, eq=False)
class GrounderWeights:
    """Weights of a registered model that say which features they need.

    Attributes:
        name: bundled name or hub id; the model's name where the weights came from a path.
        where: what messages name.
    """

    name: str
    where: str
    card: WeightsCard
    contract: FeatureContract
    tensors: dict[str, Tensor]

    @property
    def post(self) -> PostProcess:
        """The decoding that belongs to the weights."""
        return build(PostProcess, self.card.predict, f"{self.where} [predict]")

    def encoders(self, named: Sequence[str | Path], device: torch.device) -> Encoders:
        """The encoders the weights need; any other is refused by name.

        Args:
            named: "tiny", "clip", or where an encoder lies on disk; none: as the weights say.
            device: where they run.
        """
        sources = [Path(one) for one in named if not self._is_needed(str(one))]
        frames, text = create_encoders(self.contract, sources=sources, device=str(device))
        self.contract.require(contract_of(frames, text, tef=self.contract.tef))
        return frames, text

    def _is_needed(self, name: str) -> bool:
        """Whether it is the name of an encoder that the weights need, and not a path."""
        families = {"tiny": (TINY_PREFIX,), "clip": CLIP_PREFIXES}
        if name not in families:
            if not Path(name).exists():
                raise FeatureError(
                    f"no encoder {name!r}; there are tiny, clip, directories of checkpoints, and the files "
                    "of slowfast and glove"
                )
            return False
        needed = [stream.encoder for stream in (*self.contract.video, self.contract.text)]
        if not any(encoder.startswith(families[name]) for encoder in needed):
            raise FeatureMismatchError(
                f"{self.where} needs features of {needed[0]!r}, which encoder {name!r} does not give; "
                f"leave the encoder out, or use weights that were trained with it"
            )
        return True

    def build_model(self, device: torch.device) -> GroundingModel:
        """The model with these weights, in evaluation mode.

        Raises:
            WeightsError: the tensors are not those of the model the card names.
        """
        with torch.random.fork_rng(devices=[]):  # drawing weights that are overwritten must leave no trace
            model = build_model(self.card.model, self.card.options, self.where)
        fill(model, self.tensors, self.where)
        return cast(GroundingModel, _frozen(model).to(device))


def _frozen(model: nn.Module) -> nn.Module:
    return model.eval().requires_grad_(False)


def bundled_weights() -> dict[str, Path]:
    """Name -> file of every weights file that comes with the package, encoders included, sorted by name."""
    folder = Path(str(files("momentkit") / "assets"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def read_grounder_weights(name_or_path: str | Path) -> GrounderWeights:
    """Find and read weights.

    Args:
        name_or_path: bundled name, .safetensors file, run directory, or hub id "user/name".

    Raises:
        WeightsError: nothing there, damaged, no grounding model, or without a feature contract.
        MissingExtraError: a hub id, and huggingface_hub is not installed.
    """
    name, path = _locate(name_or_path)
    card, tensors = read_weights(path)
    where = name or str(path)
    if card.model not in list_models():
        raise WeightsError(
            f"{where} holds weights of {card.model!r}, which finds no moments; there are "
            f"{', '.join(list_models())}"
        )
    if card.features is None:
        raise WeightsError(
            f"{where} has no feature contract, so nothing says which encoder its {card.model} needs; "
            f"train or convert it with one"
        )
    return GrounderWeights(
        name=name or card.model, where=where, card=card, contract=card.features, tensors=tensors
    )


def own_file(name_or_path: str | Path) -> Path:
    """The weights file that a path means, to be written to.

    Raises:
        WeightsError: a bundled name or hub id, whose file is shared; or nothing there.
    """
    name, path = _locate(name_or_path)
    if name:
        raise WeightsError(
            f"{name} is no file of yours and stays as it is; name a run directory or a .safetensors file"
        )
    return path


def _locate(name_or_path: str | Path) -> tuple[str, Path]:
    """The name to show ("" for a path) and the file."""
    text, path = str(name_or_path), Path(name_or_path)
    bundled = bundled_weights()
    if isinstance(name_or_path, str) and text in bundled:
        return text, bundled[text]
    if path.is_dir():
        if not (path / RUN_WEIGHTS).is_file():
            raise WeightsError(f"{path} is no run directory: it has no {RUN_WEIGHTS}")
        return "", path / RUN_WEIGHTS
    if path.is_file():
        return "", path
    if isinstance(name_or_path, str) and _HUB_ID.fullmatch(text) and path.suffix != ".safetensors":
        return text, _download(text)
    heads = [name for name, file in bundled.items() if read_weights(file)[0].model in list_models()]
    raise WeightsError(
        f"there are no weights {text!r}: no such file, and bundled are {', '.join(heads) or 'none'}; "
        f"a hub id has the form user/name"
    )


def _download(repository: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise MissingExtraError(
            f"{repository} lies on the hub, and huggingface_hub is not installed: "
            f"pip install 'momentkit[encoders]'"
        ) from error
    try:
        return Path(hf_hub_download(repository, HUB_WEIGHTS))
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"cannot fetch {HUB_WEIGHTS} of {repository} from the hub: {first}") from error
