"""The length limit of the published post-processor.

No published configuration reaches it (metrics.md section 7), but stored cases of the program do, and files
made by somebody's own configuration may. Rounding, clamping and suppression are in `predict.suppress`.

Shapes   N windows; columns 0 and 1 are start_s, end_s; float32, whose rounding the program shows
Source   Moment-DETR, the step `clip_window_l` of its post-processor
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Anchor = Literal["left", "center", "right"]


def limit_lengths(
    windows_N: NDArray[np.float32], shortest_s: float, longest_s: float, anchor: Anchor
) -> NDArray[np.float32]:
    """Stretch windows shorter than `shortest_s` and cut those longer than `longest_s`.

    Args:
        windows_N: (N, 2 or more); not written to.
        shortest_s: smallest length that stays as it is.
        longest_s: largest length that stays as it is.
        anchor: what stands still: the start ("left"), the middle, or the end ("right").
    """
    windows_N = windows_N.astype(np.float32)
    length_N = windows_N[:, 1] - windows_N[:, 0]
    for rows_N, new_length_s in ((length_N < shortest_s, shortest_s), (length_N > longest_s, longest_s)):
        moved = _resize(windows_N[:, :2], np.float32(new_length_s), anchor)
        windows_N[rows_N, :2] = moved[rows_N]
    return windows_N


def _resize(windows_N2: NDArray[np.float32], length_s: np.float32, anchor: Anchor) -> NDArray[np.float32]:
    start_N, end_N = windows_N2[:, 0], windows_N2[:, 1]
    if anchor == "left":
        return np.stack([start_N, start_N + length_s], axis=1)
    if anchor == "right":
        return np.stack([end_N - length_s, end_N], axis=1)
    centre_N = (start_N + end_N) / np.float32(2)
    return np.stack([centre_N - length_s / np.float32(2), centre_N + length_s / np.float32(2)], axis=1)
