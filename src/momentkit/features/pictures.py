"""How a frame becomes the input of an image network: resized, cut, scaled to mean 0 and deviation 1.

Shapes   N frames   H, W pixels   S side of the square
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import FeatureError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

BILINEAR, BICUBIC = 2, 3  # the numbers that pillow and the checkpoints' settings use


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Frame -> square; the defaults are OpenAI's CLIP."""

    shorter_side: int = 224  # pixels after resizing
    crop: int = 224  # side of the centre square
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # of RGB on [0, 1]
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    resample: int = BICUBIC
    stretch: bool = False  # the whole frame is squeezed into the square, nothing is cut off

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.shorter_side:
            raise FeatureError(f"cannot cut {self.crop} pixels from a side of {self.shorter_side}")
        if self.resample not in (BILINEAR, BICUBIC):
            raise FeatureError(f"resample {self.resample} is neither bilinear (2) nor bicubic (3)")

    @property
    def name(self) -> str:
        """For the contract."""
        return f"stretch {self.crop}" if self.stretch else f"centre {self.crop}"

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Frames (H, W, 3) uint8 RGB -> (N, 3, S, S) float32."""
        squares = np.stack([self._square(frame) for frame in frames]).astype(np.float32) / np.float32(255)
        normal = (squares - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(0, 3, 1, 2), dtype=np.float32)

    def _square(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image = _image(frame)
        if self.stretch:
            return np.asarray(image.resize((self.crop, self.crop), resample=self.resample))
        width, height = image.size
        shorter = min(width, height)
        size = (self.shorter_side * width // shorter, self.shorter_side * height // shorter)
        resized = image.resize(size, resample=self.resample)
        left, top = (size[0] - self.crop) // 2, (size[1] - self.crop) // 2
        return np.asarray(resized.crop((left, top, left + self.crop, top + self.crop)))


def _image(frame: NDArray[np.uint8]) -> "Image":
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError(
            "this encoder needs pillow, which is not installed: pip install 'momentkit[encoders]'"
        ) from error
    return Image.fromarray(frame)


def preprocess_of(settings: dict[str, Any], default: Preprocess, where: str) -> Preprocess:
    """The preprocessing that a checkpoint's settings state.

    Args:
        settings: of its `preprocessor_config.json`; empty where it has none.
        default: the family's, at the side that the network takes; its way of resizing is the only one read.
        where: what messages name.

    Raises:
        FeatureError: the settings are not of this family, or do not fit the network.
    """

    def side(value: Any, *keys: str) -> int:
        if isinstance(value, dict):
            value = next((value[key] for key in keys if key in value), default.crop)
        return int(value)

    resample = int(settings.get("resample", default.resample))
    if not default.stretch and resample != default.resample:
        raise FeatureError(f"{where}: resample {resample} is not bicubic ({BICUBIC}), which CLIP uses")
    red, green, blue = settings.get("image_mean") or default.mean
    red_std, green_std, blue_std = settings.get("image_std") or default.std
    size = side(settings.get("size") or default.crop, "shortest_edge", "height")
    preprocess = Preprocess(
        shorter_side=size,
        crop=size if default.stretch else side(settings.get("crop_size") or default.crop, "height"),
        mean=(red, green, blue),
        std=(red_std, green_std, blue_std),
        resample=resample,
        stretch=default.stretch,
    )
    if preprocess.crop != default.crop:
        raise FeatureError(f"{where}: frames are cut to {preprocess.crop}, the network takes {default.crop}")
    return preprocess
