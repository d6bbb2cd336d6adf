"""TVSum top-5 mAP and YouTube Highlights mAP.

The published figures rank clips with an unstable sort: where scores tie, the order of the clips (and the
figure, by up to ten points) is an accident of that sort. Ours is stable: among equal scores the earlier clip
comes first, and `tied_at_cut` says where that decided. To reproduce a published figure, hand in the order.

Shapes   T clips   R raters   K ranked clips that count
Source   metrics.md section 6; UMT, datasets/tvsum.py and youtube.py, kept by its successors
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import SubmissionError
from momentkit.metrics.overlap import Floats

TVSUM_TOP = 5
MeanRule = Literal["by_rater", "flat"]
"""UMT and UniVTG average over videos for each rater first; the others over the flat list. Rounding to five
decimals can tell them apart by 1e-5."""


def ranked_area(label_RK: NDArray[Any]) -> Floats:
    """Area under precision over recall by the trapezoid rule, precision starting at 1; (R,) in [0, 1].

    Args:
        label_RK: 0/1 or bool labels in ranked order. Recall is relative to the positives inside these K.
    """
    label_RK = np.asarray(label_RK, dtype=np.float64)
    found_RK = label_RK.cumsum(1)
    positives_R1 = label_RK.sum(1, keepdims=True)
    recall_RK = found_RK / np.maximum(positives_R1, 1)
    precision_RK = found_RK / np.arange(1, label_RK.shape[1] + 1)
    before_RK = np.concatenate([np.ones((len(label_RK), 1)), precision_RK[:, :-1]], axis=1)
    return (np.diff(recall_RK, axis=1, prepend=0.0) * (before_RK + precision_RK) / 2).sum(1)


def clip_order(score_T: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Clips by descending score; the earlier of equals first."""
    return np.argsort(-np.asarray(score_T), kind="stable")


def tied_at_cut(score_T: NDArray[np.floating[Any]], top: int = TVSUM_TOP) -> bool:
    """Whether the last clip that counts and the first that does not have the same score."""
    ordered = np.sort(np.asarray(score_T))[::-1]
    return len(ordered) > top and bool(ordered[top - 1] == ordered[top])


def tvsum_ap(
    score_T: NDArray[np.floating[Any]], rating_CR: Floats, order_T: NDArray[np.int64] | None = None
) -> Floats:
    """AP of a TVSum video's five best clips, for each rater.

    A clip is a highlight for a rater above that rater's lower median over all clips of the video.

    Args:
        score_T: predicted score of each clip; fewer clips than ratings are ranked among themselves.
        rating_CR: (C, R) rating of every clip by every rater.
        order_T: the clips' ranking; None = stable by descending score.

    Returns:
        (R,) in [0, 1].

    Raises:
        SubmissionError: more scores than rated clips, no score, NaN.
    """
    _check_scores(score_T, len(rating_CR))
    median_R = np.sort(rating_CR, axis=0)[(len(rating_CR) - 1) // 2]
    order_T = clip_order(score_T) if order_T is None else order_T
    return ranked_area((rating_CR > median_R)[order_T[:TVSUM_TOP]].T)


def youtube_ap(
    score_T: NDArray[np.floating[Any]], match_C: Floats, order_T: NDArray[np.int64] | None = None
) -> float:
    """AP of a YouTube Highlights video's whole ranking, in [0, 1]; a clip is a highlight where match > 0.

    Args:
        score_T: predicted score of each clip.
        match_C: (C,) match of every clip.
        order_T: the clips' ranking; None = stable by descending score.

    Raises:
        SubmissionError: more scores than labelled clips, no score, NaN.
    """
    _check_scores(score_T, len(match_C))
    order_T = clip_order(score_T) if order_T is None else order_T
    return float(ranked_area((match_C > 0)[order_T][None])[0])


def domain_figure(ap_VR: list[Floats], rule: MeanRule = "by_rater") -> float:
    """Mean over a domain's videos (and raters), a fraction rounded to five decimals.

    Args:
        ap_VR: (R,) of each video; R = 1 for YouTube.
        rule: order in which the mean is taken.
    """
    if rule == "flat":
        # Those programs round a numpy number, whose rounding scales first: 0.395625 becomes 0.39562.
        return float(np.round(np.mean(np.concatenate(ap_VR)), 5))
    return round(_mean([_mean(column) for column in np.stack(ap_VR).T.tolist()]), 5)


def mean_over_domains(figures: Mapping[str, float]) -> float:
    """Mean of the rounded domain figures, a fraction rounded to six decimals."""
    return round(_mean(list(figures.values())), 6)


def _mean(values: list[float]) -> float:
    """In the order of the program: numpy adds in another one, and five decimals can show it."""
    return sum(values) / len(values)


def _check_scores(score_T: NDArray[np.floating[Any]], clips: int) -> None:
    if not len(score_T) or len(score_T) > clips:
        raise SubmissionError(
            f"{len(score_T)} scores for {clips} labelled clips; at least 1 and at most {clips} fit"
        )
    if not np.isfinite(score_T).all():
        raise SubmissionError("a score is not finite")
