"""The training labels of a clip grid: graded relevance, and the clips of the margin loss.

Each rule returns y (one label a clip) and two lists of clips, positives that must score above negatives.
A row without any positive clip gets the same clip as positive and negative: the pair's loss is a constant.

Source   Moment-DETR (rated clips), CG-DETR = LD-DETR = FlashVTG (one window; TVSum; YouTube). They differ in
         three points. Ours drops clip ids beyond the features, where they grow the label array by one and
         fail on a second. Ours breaks ties by clip order, where theirs are left to an unstable sort. Ours
         takes every window of a row that has several and no ratings; theirs knows only rows of one.
Shapes   T clips   P pairs   R relevant clips   S raters
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TVSUM_RATERS = 20


@dataclass(frozen=True)
class Labels:
    """Labels of one row.

    Attributes:
        saliency_T: float32 relevance of each clip.
        positive_clip_P, negative_clip_P: int64 clip indices in [0, T).
    """

    saliency_T: NDArray[np.float32]
    positive_clip_P: NDArray[np.int64]
    negative_clip_P: NDArray[np.int64]


def rated_labels(
    relevant_clips: Sequence[int], scores_RS: Sequence[Sequence[float]], clips: int, rng: np.random.Generator
) -> Labels:
    """QVHighlights: the sum of the raters (0..12) on relevant clips, 0 elsewhere; two pairs.

    Pairs: (highest sum, lowest sum among the relevant), (random relevant, random other clip). Where every
    clip is relevant the second repeats the first.

    Args:
        relevant_clips: clip ids; those not below `clips` have no features and are left out.
        scores_RS: one list of ratings a relevant clip.
        clips: T.
        rng: draws the random pair.
    """
    all_R = np.asarray(relevant_clips, np.int64)
    kept = all_R < clips
    relevant_R = all_R[kept]
    if not len(relevant_R):
        return no_labels(clips)
    sums_R = np.asarray(scores_RS, np.float64).sum(1)[kept]
    saliency_T = np.zeros(clips, np.float32)
    saliency_T[relevant_R] = sums_R
    ascending = np.argsort(sums_R, kind="stable")
    positive, negative = [relevant_R[ascending[-1]]], [relevant_R[ascending[0]]]
    is_other_T = np.ones(clips, bool)
    is_other_T[relevant_R] = False
    others = np.flatnonzero(is_other_T)
    if len(others):
        positive.append(relevant_R[rng.integers(len(relevant_R))])
        negative.append(others[rng.integers(len(others))])
    else:
        positive, negative = positive * 2, negative * 2
    return Labels(saliency_T, np.asarray(positive, np.int64), np.asarray(negative, np.int64))


def window_labels(
    windows_s: Sequence[tuple[float, float]], clips: int, step_s: float, rng: np.random.Generator
) -> Labels:
    """Moments without ratings: 1 on the clips of any window, 0 elsewhere; two random pairs.

    A window covers the clips floor(start/step) .. floor(end/step) - 1, and at least one. A single positive is
    taken twice; with fewer than two clips outside, the positives stand for the negatives.

    Args:
        windows_s: moments in seconds.
        clips: T.
        step_s: seconds a clip stands for: duration/T in the published rule, else the clip length.
        rng: draws the pairs.
    """
    saliency_T = np.zeros(clips, np.float32)
    for start_s, end_s in windows_s:
        last = max(0, min(int(end_s / step_s), clips) - 1)
        saliency_T[min(int(start_s / step_s), last) : last + 1] = 1
    inside, outside = np.flatnonzero(saliency_T), np.flatnonzero(saliency_T == 0)
    if not len(inside):
        return no_labels(clips)
    positive = _two_of(inside, rng) if len(inside) > 1 else inside.repeat(2)
    negative = _two_of(outside, rng) if len(outside) > 1 else positive
    return Labels(saliency_T, positive, negative)


def rater_labels(scores_TS: Sequence[Sequence[float]], clips: int) -> Labels:
    """TVSum: the sum of (score - 1) over 20 raters on a scale of 0..12; one pair, highest and lowest clip.

    Args:
        scores_TS: ratings 1..5 of each clip; those beyond `clips` are left out.
        clips: T.
    """
    sums_T = (np.asarray(scores_TS, np.float64) - 1).sum(1)[:clips]
    return _extremes(sums_T / (4 * TVSUM_RATERS) * 12)


def binary_labels(scores_TS: Sequence[Sequence[float]], clips: int) -> Labels:
    """YouTube Highlights: 0 or 1 a clip; one pair, highest and lowest clip."""
    return _extremes(np.asarray(scores_TS, np.float64)[:clips, 0])


def no_labels(clips: int, pairs: int = 2) -> Labels:
    """A row in whose video nothing matches: all zeros, and pairs that teach nothing."""
    same = np.zeros(pairs, np.int64)
    return Labels(np.zeros(clips, np.float32), same, same)


def _extremes(values_T: NDArray[np.float64]) -> Labels:
    ascending = np.argsort(values_T, kind="stable")
    return Labels(values_T.astype(np.float32), ascending[-1:], ascending[:1])


def _two_of(pool: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Two different entries; `Generator.choice` without replacement costs ten times this."""
    first, second = int(rng.integers(len(pool))), int(rng.integers(len(pool) - 1))
    return pool[[first, second + (second >= first)]]
