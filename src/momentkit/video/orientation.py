"""Turn a stored picture upright: the eight ways a display matrix can turn and mirror it.

Source   FFmpeg libavutil/display.h: (x', y') = (a x + c y, b x + d y), x to the right, y down
"""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """What to do with a stored picture: swap the axes first, then mirror.

    Attributes:
        swap: x and y change places.
        mirror_x, mirror_y: turn over left-right, top-bottom.
    """

    swap: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) stored -> (H, W, 3) or (W, H, 3) upright, contiguous."""
        turned = picture.transpose(1, 0, 2) if self.swap else picture
        turned = turned[:, ::-1] if self.mirror_x else turned
        turned = turned[::-1] if self.mirror_y else turned
        return np.ascontiguousarray(turned)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after turning; as turning back needs the same swap, also the way back."""
        return (width, height) if self.swap else (height, width)

    @property
    def mirrored(self) -> bool:
        """Whether the picture is seen in a mirror, apart from being turned."""
        return self.swap ^ self.mirror_x ^ self.mirror_y

    @property
    def rotation_degrees(self) -> int:
        """Counter-clockwise turn, 0, 90, 180 or 270; where mirrored, left and right are changed first."""
        if self.swap:
            return 270 if self.mirror_x else 90
        return 180 if self.mirror_y else 0


UPRIGHT = Orientation()


def from_matrix(matrix: bytes) -> Orientation:
    """Display matrix (nine 32-bit integers as FFmpeg gives them) -> the nearest of the eight orientations.

    A matrix that is too short, or that maps the picture onto a line, turns nothing.
    """
    if len(matrix) < 36:
        return UPRIGHT
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    if a * d == b * c:
        return UPRIGHT
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)
