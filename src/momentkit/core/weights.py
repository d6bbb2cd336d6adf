"""Weights that say what they are: safetensors whose metadata holds a card, guarded by a checksum.

Neither safetensors nor zip notices a flipped bit, so the card carries the SHA-256 of itself and the tensors.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialise_tensors
from torch import Tensor

from momentkit.core.contract import FeatureContract
from momentkit.core.errors import WeightsError
from momentkit.core.files import atomic_write

MAX_WEIGHTS_BYTES = 16 * 1024**3


class Presence(BaseModel):
    """Calibrated chance that the query occurs in the video: sigmoid(slope * top score logit + offset).

    Attributes:
        slope, offset: fitted on held-out queries, half of which do not occur in their video.
        fitted_on: what they were fitted on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    slope: float
    offset: float
    fitted_on: str


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


def read_weights(path: str | Path) -> tuple[WeightsCard, dict[str, Tensor]]:
    """Read tensors and their card; float16 tensors come back as float32.

    Raises:
        WeightsError: missing, damaged, without a card, or holding a number that is not finite.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise WeightsError(
                f"{path} has {path.stat().st_size} bytes; at most {MAX_WEIGHTS_BYTES} are read"
            )
        data = path.read_bytes()
        tensors = parse_tensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from error
    metadata = header.get("__metadata__") or {}
    if "momentkit" not in metadata:
        raise WeightsError(
            f"{path} carries no momentkit card; `momentkit convert` turns an authors' checkpoint into ours"
        )
    ordered = {name: tensors[name] for name in sorted(tensors)}
    if metadata.get("sha256") != checksum(metadata["momentkit"], ordered):
        raise WeightsError(f"{path} is damaged: its checksum does not fit its content; fetch it again")
    try:
        card = WeightsCard.model_validate_json(metadata["momentkit"])
    except ValidationError as error:
        first = error.errors()[0]
        raise WeightsError(f"{path}: card: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    for name, tensor in ordered.items():
        if tensor.numel() == 0 or not torch.isfinite(tensor).all():
            raise WeightsError(f"{path}: tensor {name} is empty or holds a number that is not finite")
    return card, {n: t.float() if t.dtype == torch.float16 else t for n, t in ordered.items()}


def checksum(text: str, ordered: Mapping[str, Tensor]) -> str:
    """SHA-256 of a text and of tensors with their names, types and shapes, in the order given."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in ordered.items():
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
