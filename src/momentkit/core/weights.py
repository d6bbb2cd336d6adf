"""Weights that say what they are: safetensors whose metadata holds a card, guarded by a checksum.

Neither safetensors nor zip notices a flipped bit, so the card carries the SHA-256 of itself and the tensors.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from momentkit.core.contract import FeatureContract
from momentkit.core.errors import WeightsError
from momentkit.core.files import atomic_write

MAX_WEIGHTS_BYTES = 16 * 1024**3


class Presence(BaseModel):
    """Calibrated chance that the query occurs in the video.

    It is sigmoid(slope * logit(best score) + saliency * largest saliency + offset): the best score compares
    moments of one video, so that alone it says little; saliency is trained against other sentences.

    Attributes:
        slope, saliency, offset: fitted on held-out queries, half of which do not occur in their video.
        fitted_on: what they were fitted on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    slope: float = Field(ge=-1e9, le=1e9)  # so that no answer is infinite
    offset: float = Field(ge=-1e9, le=1e9)
    saliency: float = Field(default=0.0, ge=-1e9, le=1e9)
    fitted_on: str

    def probability(self, best_score: ArrayLike, largest_saliency: ArrayLike) -> NDArray[np.float64]:
        """The chance, of one query or of many.

        Args:
            best_score: score of the first moment; 0 where there is none. Cut to [0, 1].
            largest_saliency: over the clips, finite.
        """
        evidence = self.slope * score_logits(best_score) + self.saliency * np.asarray(largest_saliency)
        return np.exp(-np.logaddexp(0, -(evidence + self.offset)))


def score_logits(scores: ArrayLike) -> NDArray[np.float64]:
    """Logits of scores, which are cut to [1e-6, 1 - 1e-6]."""
    clipped = np.clip(np.asarray(scores, np.float64), 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


class WeightsCard(BaseModel):
    """What a weights file is.

    Attributes:
        model: registry name, or the encoder's name.
        options: options of the model that differ from nothing: all of them.
        features: the contract of the features it was trained with; None for encoders and converted weights
            whose source does not say.
        predict: options of the decoding that belongs to these weights (rounding, suppression).
        trained_on: data set and split.
        licence: licence of the training data.
        metrics: figure name -> value, measured on `measured_on`.
        measured_on: data set and split of the figures.
        presence: calibration of "is it in this video at all"; None where it was not fitted.
        notes: anything else a user must know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str
    options: dict[str, Any] = Field(default_factory=dict)
    features: FeatureContract | None = None
    predict: dict[str, Any] = Field(default_factory=dict)
    trained_on: str = ""
    licence: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    measured_on: str = ""
    presence: Presence | None = None
    notes: str = ""


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], card: WeightsCard) -> Path:
    """Write tensors and their card; saving the same content twice gives the same bytes."""
    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    text = json.dumps(card.model_dump(mode="json"), sort_keys=True)
    return atomic_write(path, serialise(ordered, {"momentkit": text, "sha256": checksum(text, ordered)}))


def serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Safetensors bytes that depend on the content alone: the library writes metadata in random order."""
    data = serialise_tensors(dict(tensors), dict(metadata))
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def write_presence(path: str | Path, presence: Presence) -> Path:
    """Put a calibration on the card of a weights file; tensors and everything else stay as they are.

    The file is replaced as a whole or not at all.

    Raises:
        WeightsError: as of `read_weights`.
    """
    card, tensors = _read(Path(path))
    return save_weights(path, tensors, card.model_copy(update={"presence": presence}))


def read_weights(path: str | Path) -> tuple[WeightsCard, dict[str, Tensor]]:
    """Read tensors and their card; float16 tensors come back as float32.

    Raises:
        WeightsError: missing, damaged, without a card, or holding a number that is not finite.
    """
    card, ordered = _read(Path(path))
    return card, {n: t.float() if t.dtype == torch.float16 else t for n, t in ordered.items()}


def _read(path: Path) -> tuple[WeightsCard, dict[str, Tensor]]:
    """Card and tensors as they are stored, by name; they are the file's pages, not a second copy."""
    try:
        size = path.stat().st_size
        if not path.is_file():  # a device or a pipe would be read without end
            raise WeightsError(f"{path} is no file; give a .safetensors file")
        if size > MAX_WEIGHTS_BYTES:
            raise WeightsError(f"{path} has {size} bytes; at most {MAX_WEIGHTS_BYTES} are read")
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            ordered = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from error
    if "momentkit" not in metadata:
        raise WeightsError(
            f"{path} carries no momentkit card; `momentkit convert` turns an authors' checkpoint into ours"
        )
    if metadata.get("sha256") != checksum(metadata["momentkit"], ordered):
        raise WeightsError(f"{path} is damaged: its checksum does not fit its content; fetch it again")
    try:
        card = WeightsCard.model_validate_json(metadata["momentkit"])
    except ValidationError as error:
        first = error.errors()[0]
        raise WeightsError(f"{path}: card: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for name, tensor in ordered.items():
        if tensor.numel() == 0 or not _is_finite(tensor):
            raise WeightsError(f"{path}: tensor {name} is empty or holds a number that is not finite")
    return card, ordered


def checksum(text: str, ordered: Mapping[str, Tensor]) -> str:
    """SHA-256 of a text and of tensors with their names, types and shapes, in the order given."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in ordered.items():
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_finite(tensor: Tensor) -> bool:
    """In parts: the masks of a whole tensor take more memory than it does."""
    return all(bool(torch.isfinite(part).all()) for part in tensor.reshape(-1).split(2**20))
