"""A video that was paid for once, in memory or in a file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as parse_arrays
from safetensors.numpy import save as serialise_arrays

from momentkit.core.contract import FeatureContract
from momentkit.core.errors import FeatureError
from momentkit.core.files import atomic_write, read_bytes
from momentkit.core.types import VideoFeatures

MAX_BYTES = 1024**3
_CARD = "momentkit_video"


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedVideo:
    """A video that was encoded: ask it as often as you like.

    Attributes:
        name: of the film, without its folder.
        features: what the encoder made of it; `features.contract` says which encoder that was.
        path: the film, where there is one.
    """

    name: str
    features: VideoFeatures
    path: Path | None = None

    def __post_init__(self) -> None:
        features = self.features
        array_TD = features.features_TD
        if array_TD.ndim != 2 or array_TD.shape[0] < 1:
            raise FeatureError(f"{self.name}: features must be (clips, channels), got {array_TD.shape}")
        if not np.isfinite(array_TD).all():
            raise FeatureError(f"{self.name}: the features hold a number that is not finite")
        if not (0 < features.duration_s < float("inf") and 0 < features.clip_length_s < float("inf")):
            raise FeatureError(
                f"{self.name}: duration and clip length must be positive, got {features.duration_s} s and "
                f"{features.clip_length_s} s"
            )

    def save(self, path: str | Path) -> Path:
        """Write the features with all that `load` needs to ask them again, without the film.

        Example:
            >>> rows_TD = np.ones((3, 4), np.float32)
            >>> features = VideoFeatures(features_TD=rows_TD, clip_length_s=2.0, duration_s=5.5)
            >>> path = EncodedVideo(name="park.mp4", features=features).save("park.safetensors")
            >>> EncodedVideo.load(path).features.duration_s
            5.5

        Args:
            path: ends in .safetensors by custom; any name does.

        Raises:
            MomentkitError: the file cannot be written.
        """
        features = self.features
        card = {
            "name": self.name,
            "duration_s": features.duration_s,
            "clip_length_s": features.clip_length_s,
            "contract": None if features.contract is None else features.contract.model_dump(mode="json"),
        }
        array_TD = np.ascontiguousarray(features.features_TD, dtype=np.float32)
        return atomic_write(path, serialise_arrays({"features": array_TD}, {_CARD: json.dumps(card)}))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: missing or unreadable.
            FeatureError: damaged, or something else than an encoded video.
        """
        data = read_bytes(path, MAX_BYTES)
        try:
            array_TD = parse_arrays(data)["features"]
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            card = json.loads(header["__metadata__"][_CARD])
            contract = card["contract"]
            features = VideoFeatures(
                features_TD=array_TD.astype(np.float32),
                clip_length_s=float(card["clip_length_s"]),
                duration_s=float(card["duration_s"]),
                contract=None if contract is None else FeatureContract.model_validate(contract),
            )
            return cls(name=str(card["name"]), features=features)
        except (SafetensorError, ValidationError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise FeatureError(f"{path} is no encoded video, or it is damaged: {error}") from error
