"""A decoded frame -> upright 8-bit RGB at the size asked for.

Untagged films of 720 lines and more are read as BT.709, smaller ones as BT.601, as players do.
"""

import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from momentkit.video.orientation import UPRIGHT, Orientation, from_matrix
from momentkit.video.source import VideoSource

_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_HD_LINES = 720
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def orientation_of(frame: VideoFrame) -> Orientation:
    """How to turn a frame upright, by the display matrix that came with it."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return from_matrix(bytes(matrix)) if isinstance(matrix, SideData) else UPRIGHT


def shown_size(source: VideoSource, frame: VideoFrame) -> tuple[int, int]:
    """(height, width) of a frame before turning, with square pixels; absurd pixel shapes count as square."""
    shape = source.stream.sample_aspect_ratio
    width = frame.width
    if shape and 0.1 <= shape <= 10:
        width = max(1, round(frame.width * shape))
    return (frame.height, width) if frame.height * width <= source.limits.max_pixels else _stored(frame)


def _stored(frame: VideoFrame) -> tuple[int, int]:
    return frame.height, frame.width


class Painter:
    """Turns frames into arrays; a frame shown at several times is painted once.

    Args:
        source: the file the frames come from.
        size: (height, width) wanted; None = as shown.
    """

    def __init__(self, source: VideoSource, size: tuple[int, int] | None) -> None:
        self._source, self._size = source, size
        self._scaler = VideoReformatter()
        self._orientations: dict[int, Orientation] = {}
        self._last: tuple[VideoFrame, NDArray[np.uint8]] | None = None

    def paint(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, upright, contiguous."""
        if self._last is not None and self._last[0] is frame:
            return self._last[1]
        orientation = self._orientation(frame)
        height, width = (
            shown_size(self._source, frame) if self._size is None else orientation.size(*self._size)
        )
        smaller = height <= frame.height and width <= frame.width
        untagged = frame.colorspace == _UNSPECIFIED
        scaled = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=Colorspace.ITU709 if untagged and frame.height >= _HD_LINES else None,
            interpolation=(Interpolation.AREA if smaller else Interpolation.BICUBIC) | _EXACT,
            threads=1,
        )
        picture = orientation.apply(scaled.to_ndarray().astype(np.uint8, copy=False))
        picture.flags.writeable = False
        self._last = frame, picture
        return picture

    def _orientation(self, frame: VideoFrame) -> Orientation:
        """As `orientation_of`, which is asked once for each angle: a frame whose side data was looked at is
        part of a reference cycle in the binding, and its picture stays in memory until the next collection.
        """
        angle = frame.rotation
        if angle not in self._orientations:
            self._orientations[angle] = orientation_of(frame)
        return self._orientations[angle]
