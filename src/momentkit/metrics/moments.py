"""Moment retrieval: average precision, the overlap of the first window, and of the best of five.

Everything is unrounded and per query; `submission` takes means and rounds. All queries are worked on at
once: the only loop runs over the rank of a prediction, since a match depends on the matches before it.

Shapes   Q queries   N predicted windows   G true windows   T thresholds
         windows in seconds; predictions are (start, end, score)
Source   metrics.md section 2, from Moment-DETR standalone_eval
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from momentkit.metrics.arrays import blocks
from momentkit.metrics.overlap import Floats, iou_cross, iou_paired

Bools = NDArray[np.bool_]
TieOrder = Literal["highest", "lowest"]
"""Which of two true windows of equal overlap is tried first. The official order differs between machines."""

MAX_WINDOWS = 10  # predictions of a row that count for mAP
MAP_THRESHOLDS = tuple(float(f"{percent / 100:.2f}") for percent in range(50, 100, 5))


@dataclass(frozen=True)
class WindowTable:
    """Padded windows of many queries.

    Attributes:
        windows: (Q, N, 3) start_s, end_s, score of predictions in file order, or (Q, G, 2) of true windows.
        mask: (Q, N) or (Q, G), True = real.
    """

    windows: Floats
    mask: Bools

    def __getitem__(self, rows: slice) -> "WindowTable":
        return WindowTable(self.windows[rows], self.mask[rows])


def average_precision(
    predicted: WindowTable,
    truth: WindowTable,
    thresholds: tuple[float, ...] = MAP_THRESHOLDS,
    *,
    tie_order: TieOrder = "highest",
) -> Floats:
    """Interpolated average precision of each query at each threshold.

    Args:
        predicted: (Q, N, 3); the caller has cut each row to its first `MAX_WINDOWS`.
        truth: (Q, G, 2); a query without a real window gets AP 0.
        thresholds: an overlap equal to a threshold is a hit.
        tie_order: which true window is tried first where overlaps are equal.

    Returns:
        (Q, T) in [0, 1].
    """
    queries, most_predicted = predicted.mask.shape
    per_query = len(thresholds) * truth.mask.shape[1] + most_predicted * (
        truth.mask.shape[1] + len(thresholds)
    )
    result_QT = np.zeros((queries, len(thresholds)))
    for rows in blocks(queries, per_query):
        hit_TQN = _hits(predicted[rows], truth[rows], np.array(thresholds), tie_order)
        result_QT[rows] = _interpolate(hit_TQN, truth.mask[rows].sum(1)).T
    return result_QT


def _hits(predicted: WindowTable, truth: WindowTable, thresholds_T: Floats, tie_order: TieOrder) -> Bools:
    """Greedy matching by descending score, for each threshold on its own: (T, Q, N) in that order."""
    score_QN = np.where(predicted.mask, -predicted.windows[..., 2], np.inf)
    order_QN = np.argsort(score_QN, axis=1, kind="stable")
    spans_QN2 = np.take_along_axis(predicted.windows[..., :2], order_QN[..., None], axis=1)
    iou_QNG = _matchable(iou_cross(spans_QN2, truth.windows), predicted.mask, truth.mask)
    if tie_order == "highest":  # argmax below takes the first of equals
        iou_QNG = iou_QNG[..., ::-1]
    queries, ranks, true_windows = iou_QNG.shape
    free_TQG = np.ones((len(thresholds_T), queries, true_windows), dtype=bool)
    hit_TQN = np.zeros((len(thresholds_T), queries, ranks), dtype=bool)
    for rank in range(ranks):
        # Most predictions reach no true window at the lowest threshold; only the others are matched.
        active_A = np.flatnonzero((iou_QNG[:, rank] >= thresholds_T.min()).any(1))
        iou_AG = iou_QNG[active_A, rank]
        free_TAG = free_TQG[:, active_A]
        candidate_TAG = free_TAG & (iou_AG >= thresholds_T[:, None, None])
        chosen_TA1 = np.where(candidate_TAG, iou_AG, -np.inf).argmax(-1)[..., None]
        hit_TA1 = np.take_along_axis(candidate_TAG, chosen_TA1, -1)
        np.put_along_axis(free_TAG, chosen_TA1, np.take_along_axis(free_TAG, chosen_TA1, -1) & ~hit_TA1, -1)
        free_TQG[:, active_A] = free_TAG
        hit_TQN[:, active_A, rank] = hit_TA1[..., 0]
    return hit_TQN


def _matchable(iou_QNG: Floats, predicted_mask_QN: Bools, truth_mask_QG: Bools) -> Floats:
    """Overlaps that sort as the official program sorts them: 0/0 above everything, padding below."""
    real_QNG = predicted_mask_QN[..., None] & truth_mask_QG[:, None, :]
    return np.where(real_QNG, np.where(np.isnan(iou_QNG), np.inf, iou_QNG), -np.inf)


def _interpolate(hit_TQN: Bools, true_Q: NDArray[np.int64]) -> Floats:
    """Area under the precision made monotone from the right, at the points where recall grows: (T, Q)."""
    found_TQN = hit_TQN.cumsum(-1)
    precision_TQN = found_TQN / np.arange(1, hit_TQN.shape[-1] + 1)
    best_TQN = np.maximum.accumulate(precision_TQN[..., ::-1], axis=-1)[..., ::-1]
    recall_TQN = found_TQN / np.maximum(true_Q, 1)[:, None]
    gain_TQN = np.diff(recall_TQN, axis=-1, prepend=0.0)
    return (gain_TQN * best_TQN).sum(-1)


def first_window_iou(first_Q2: Floats, truth: WindowTable) -> Floats:
    """Overlap of one window with the true window it fits best, (Q,) in [0, 1]; R1 and mIoU are its means.

    Args:
        first_Q2: start, end of the first window in file order (not the one with the highest score).
        truth: (Q, G, 2), at least one real window a query.
    """
    if not len(first_Q2):
        return np.zeros(0)
    iou_QG = iou_cross(first_Q2[:, None, :], truth.windows)[:, 0]
    iou_QG = np.where(truth.mask, np.where(np.isnan(iou_QG), np.inf, iou_QG), -np.inf)
    return iou_paired(first_Q2, truth.windows[np.arange(len(first_Q2)), iou_QG.argmax(1)])


def best_of_five_iou(predicted: WindowTable, truth: WindowTable) -> Floats:
    """Overlap of the best pair among the first five windows and all true ones, (Q,); UniVTG's R5.

    Args:
        predicted: (Q, N, 3) in file order.
        truth: (Q, G, 2), at least one real window a query.
    """
    if not len(predicted.mask):
        return np.zeros(0)
    five = WindowTable(predicted.windows[:, :5, :2], predicted.mask[:, :5])
    iou_QNG = np.nan_to_num(iou_cross(five.windows, truth.windows), nan=0.0)
    iou_QNG = np.where(five.mask[..., None] & truth.mask[:, None, :], iou_QNG, -np.inf)
    queries_Q = np.arange(len(iou_QNG))
    best_n_Q, best_g_Q = np.divmod(iou_QNG.reshape(len(iou_QNG), -1).argmax(1), truth.mask.shape[1])
    return iou_paired(five.windows[queries_Q, best_n_Q], truth.windows[queries_Q, best_g_Q])


def undefined_overlaps(predicted: WindowTable, truth: WindowTable) -> int:
    """Pairs of windows whose overlap is 0/0; the official program counts each as a hit."""
    iou_QNG = iou_cross(predicted.windows[..., :2], truth.windows)
    return int((np.isnan(iou_QNG) & predicted.mask[..., None] & truth.mask[:, None, :]).sum())
