"""Films longer than a model was trained on: overlapping windows, and their answers made one.

A window lasts `WINDOW_S` and overlaps the next by half, so a moment of up to half a window lies whole in one
at least. Merging, in seconds of the film:

1. A moment that touches a border inside the film is cut there. Where two neighbouring windows both answer
   with a moment that is cut at their border and covers all they share, the two are one that runs through.
2. A cut moment that is left is dropped if another window covers half of it, to a clip, with a moment of at
   least half its score that ends, or goes on, where this one was cut: that window saw more.
3. Of moments of different windows that overlap by more than half (IoU), the best is kept. Within a window
   nothing changes: suppression was done there.

The saliency of a clip is the mean over its windows, weighed by how central the clip lies in each.

Shapes   T clips of the film   N moments of a window   B sentences   D channels   W windows
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from momentkit.core.timeline import seconds_to_clips
from momentkit.predict.decode import Decoded
from momentkit.predict.windows import Window, overlap

WINDOW_S = 150.0  # of the films most heads were trained on
COARSE_WINDOWS = 48  # from an hour on, similarity chooses the windows that are looked at
COARSE_KEPT = 32
_SAME = 0.5  # IoU from which moments of two windows are one
_SMOOTH = 5  # clips over which similarity is averaged before windows are compared


@dataclass(frozen=True)
class Part:
    """The answer of one window.

    Attributes:
        first, end: clips of the film.
        answer: times from the window's beginning.
    """

    first: int
    end: int
    answer: Decoded


@dataclass
class _Found:
    """A moment in seconds of the film, and whether its window cut it."""

    start_s: float
    end_s: float
    score: float
    window: int
    cut_left: bool
    cut_right: bool

    @property
    def span(self) -> Window:
        return self.start_s, self.end_s


def window_clips(clip_length_s: float) -> int:
    """Clips of a window: even, so that half of it is whole clips."""
    return max(2, 2 * round(seconds_to_clips(WINDOW_S, clip_length_s) / 2))


def windows_over(clips: int, clip_length_s: float) -> list[tuple[int, int]]:
    """First and end clip of each window, all of the same length; the last ends with the film.

    >>> windows_over(300, 1.0)
    [(0, 150), (75, 225), (150, 300)]
    """
    width = window_clips(clip_length_s)
    if clips <= width:
        return [(0, clips)]
    starts = [*range(0, clips - width, width // 2), clips - width]
    return [(first, first + width) for first in starts]


def promising(
    video_TD: NDArray[np.float32], sentences_BD: NDArray[np.float32], windows: Sequence[tuple[int, int]]
) -> NDArray[np.bool_]:
    """Which windows of a long film each sentence is looked for in: those with the most similar clips.

    Args:
        video_TD: frames in the space of the sentences; time channels and other streams left out.
        sentences_BD: one vector each.
        windows: of `windows_over`.

    Returns:
        (B, W), True for at most `COARSE_KEPT` of each row.
    """
    norm_T = np.maximum(np.linalg.norm(video_TD, axis=1), 1e-8)
    similar_BT = sentences_BD @ video_TD.T / norm_T
    kernel = np.ones(_SMOOTH) / _SMOOTH
    smooth_BT = np.stack([np.convolve(row_T, kernel, mode="same") for row_T in similar_BT])
    best_BW = np.stack([smooth_BT[:, first:end].max(1) for first, end in windows], 1)
    order_BW = np.argsort(-best_BW, axis=1, kind="stable")
    kept_BW = np.zeros(best_BW.shape, dtype=bool)
    np.put_along_axis(kept_BW, order_BW[:, :COARSE_KEPT], True, axis=1)
    return kept_BW


def merge(parts: Sequence[Part], clips: int, clip_length_s: float, top: int) -> Decoded:
    """One answer about the film from those of its windows.

    Args:
        parts: in order of time; windows that were not looked at are left out.
        clips: of the film.
        clip_length_s: seconds.
        top: moments kept, by score.
    """
    found = [
        moment for index, part in enumerate(parts) for moment in _in_film(index, part, clips, clip_length_s)
    ]
    found = _without_cut(_run_through(found, parts, clip_length_s), parts, clip_length_s)
    kept: list[_Found] = []
    for moment in sorted(found, key=lambda one: -one.score):
        if all(moment.window == one.window or overlap(moment.span, one.span) <= _SAME for one in kept):
            kept.append(moment)
        if len(kept) == top:
            break
    rows = [(one.start_s, one.end_s, one.score) for one in kept]
    windows_N3 = np.array(rows, dtype=np.float32).reshape(-1, 3)
    return Decoded(windows_N3, _saliency(parts, clips))


def _in_film(index: int, part: Part, clips: int, clip_length_s: float) -> list[_Found]:
    """The moments of a window; those closer than a clip to its border inside the film are cut there."""
    begin_s, end_s = part.first * clip_length_s, part.end * clip_length_s
    result = []
    for start_s, stop_s, score in part.answer.windows_N3.astype(float).tolist():
        start_s, stop_s = start_s + begin_s, stop_s + begin_s
        if not (score > 0 and stop_s > start_s):
            continue
        cut_left = part.first > 0 and start_s < begin_s + clip_length_s
        cut_right = part.end < clips and stop_s > end_s - clip_length_s
        result.append(_Found(start_s, stop_s, score, index, cut_left, cut_right))
    return result


def _run_through(found: Sequence[_Found], parts: Sequence[Part], clip_length_s: float) -> list[_Found]:
    """Step 1, from left to right, so that a moment may run through any number of windows."""
    rows: list[list[_Found]] = [[] for _ in parts]
    for moment in found:
        rows[moment.window].append(moment)
    for left, right in pairwise(range(len(parts))):
        begin_s = parts[right].first * clip_length_s
        end_s = parts[left].end * clip_length_s
        if end_s <= begin_s:  # a window between them was not looked at
            continue
        ahead = [one for one in rows[left] if one.cut_right and one.start_s < begin_s + clip_length_s]
        behind = [one for one in rows[right] if one.cut_left and one.end_s > end_s - clip_length_s]
        if not (ahead and behind):
            continue
        one, other = (max(side, key=lambda moment: moment.score) for side in (ahead, behind))
        rows[left] = [moment for moment in rows[left] if moment not in ahead]
        rows[right] = [moment for moment in rows[right] if moment not in behind]
        score = max(one.score, other.score)
        rows[right].append(_Found(one.start_s, other.end_s, score, right, one.cut_left, other.cut_right))
    return [moment for row in rows for moment in row]


def _without_cut(found: Sequence[_Found], parts: Sequence[Part], clip_length_s: float) -> list[_Found]:
    """Step 2."""
    begins_s = [part.first * clip_length_s for part in parts]
    ends_s = [part.end * clip_length_s for part in parts]
    seen: list[list[_Found]] = [[] for _ in parts]  # what reaches into each window, from wherever it was seen
    for moment in found:
        first, end = bisect_right(ends_s, moment.start_s), bisect_left(begins_s, moment.end_s)
        for index in range(first, end):
            seen[index].append(moment)

    def beyond(other: _Found, moment: _Found) -> bool:
        """Whether another window's moment covers this one and goes on, or ends, where this one was cut."""
        shared_s = min(other.end_s, moment.end_s) - max(other.start_s, moment.start_s)
        return (
            other.window != moment.window
            and other.score >= moment.score / 2
            and shared_s >= max((moment.end_s - moment.start_s - clip_length_s) / 2, 0)
            and (not moment.cut_left or not other.cut_left or other.start_s < moment.start_s - clip_length_s)
            and (not moment.cut_right or not other.cut_right or other.end_s > moment.end_s + clip_length_s)
        )

    return [
        moment
        for moment in found
        if not (moment.cut_left or moment.cut_right)
        or not any(beyond(other, moment) for other in seen[moment.window])
    ]


def _saliency(parts: Sequence[Part], clips: int) -> NDArray[np.float32]:
    total_T, weight_T = np.zeros(clips), np.zeros(clips)
    for part in parts:
        width = part.end - part.first
        centrality_T = np.minimum(np.arange(1, width + 1), np.arange(width, 0, -1)).astype(np.float64)
        total_T[part.first : part.end] += centrality_T * part.answer.saliency_T
        weight_T[part.first : part.end] += centrality_T
    seen_T = weight_T > 0
    total_T[seen_T] /= weight_T[seen_T]
    total_T[~seen_T] = total_T[seen_T].min()  # what was not looked at is no highlight
    return total_T.astype(np.float32)
