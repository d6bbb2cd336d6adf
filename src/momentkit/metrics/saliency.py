"""Highlight detection on QVHighlights: average precision over tie groups, and whether the top clip is one.

Shapes   Q queries   T clips of the longest video   S scores of the longest prediction
         L levels (Fair, Good, VeryGood)   R raters   C = L * R label columns
Source   metrics.md section 3, from Moment-DETR standalone_eval
"""

import numpy as np
from numpy.typing import NDArray

from momentkit.metrics.arrays import blocks
from momentkit.metrics.overlap import Floats

Bools = NDArray[np.bool_]

LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}
"""Name -> smallest rating that makes a clip a highlight. The papers report VeryGood."""


def highlight_ap(
    score_QS: Floats, score_mask_QS: Bools, rating_QTR: Floats, clips_Q: NDArray[np.int64]
) -> Floats:
    """Average precision of the clip ranking for each level and rater.

    Scores beyond the video are cut and missing ones are 0.0, which can outrank negative scores.

    Args:
        score_QS: predicted saliency, any finite values; padding holds anything.
        score_mask_QS: True = real.
        rating_QTR: rating of each clip, 0 where a rater gave none.
        clips_Q: clips of each video.

    Returns:
        (Q, L, R) in [0, 1]; 0 where no clip reaches the level.
    """
    queries, clips, raters = rating_QTR.shape
    score_QT = np.zeros((queries, clips))
    shared = min(clips, score_QS.shape[1])
    score_QT[:, :shared] = np.where(score_mask_QS, score_QS, 0.0)[:, :shared]
    mask_QT = np.arange(clips) < clips_Q[:, None]
    levels_L = np.array(list(LEVELS.values()))
    result_QC = np.zeros((queries, len(LEVELS) * raters))
    for rows in blocks(queries, clips * raters * len(LEVELS)):
        rating_QRT = rating_QTR[rows].swapaxes(1, 2)
        label_QLRT = rating_QRT[:, None] >= levels_L[:, None, None]
        label_QCT = label_QLRT.reshape(len(rating_QRT), len(LEVELS) * raters, clips)
        result_QC[rows] = ranked_ap(score_QT[rows], mask_QT[rows], label_QCT)
    return result_QC.reshape(queries, len(LEVELS), raters)


def ranked_ap(score_QT: Floats, mask_QT: Bools, label_QCT: Bools) -> Floats:
    """Mean interpolated precision over the groups of equal scores in which a positive appears, (Q, C).

    The mean does not weigh a group by its positives: with ties this is not ordinary average precision.
    """
    order_QT = np.argsort(np.where(mask_QT, -score_QT, np.inf), axis=1, kind="stable")
    sorted_QT = np.take_along_axis(score_QT, order_QT, 1)
    real_QT = np.take_along_axis(mask_QT, order_QT, 1)
    last_QT = real_QT.copy()  # the last clip of its tie group
    last_QT[:, :-1] &= (sorted_QT[:, 1:] != sorted_QT[:, :-1]) | ~real_QT[:, 1:]

    positive_QCT = np.take_along_axis(label_QCT & mask_QT[:, None], order_QT[:, None], 2)
    found_QCT = positive_QCT.cumsum(-1, dtype=np.int32)
    group_found_QCT = np.where(last_QT[:, None], found_QCT, 0)
    precision_QCT = group_found_QCT / np.arange(1, score_QT.shape[1] + 1)
    best_QCT = np.maximum.accumulate(precision_QCT[..., ::-1], axis=-1)[..., ::-1]
    before_QCT = np.maximum.accumulate(group_found_QCT, axis=-1)
    grew_QCT = group_found_QCT > np.concatenate(
        [np.zeros_like(before_QCT[..., :1]), before_QCT[..., :-1]], -1
    )
    return np.where(grew_QCT, best_QCT, 0.0).sum(-1) / np.maximum(grew_QCT.sum(-1), 1)


def highlight_hit(score_QS: Floats, score_mask_QS: Bools, rating_QTR: Floats) -> Floats:
    """Whether any rater calls the top-scored clip (the first of equals) a highlight, (Q, L) of 0 and 1.

    A top score beyond the end of the video is no hit.
    """
    top_Q = np.where(score_mask_QS, score_QS, -np.inf).argmax(1)
    queries, clips, _ = rating_QTR.shape
    inside_Q = top_Q < clips
    best_Q = np.zeros(queries, dtype=rating_QTR.dtype)  # clips past a video's own end are rated 0
    best_Q[inside_Q] = rating_QTR[inside_Q, top_Q[inside_Q]].max(-1)
    return (best_Q[:, None] >= np.array(list(LEVELS.values()))).astype(np.float64)
