"""Moment figures of each query against the true windows of a length range.

Shapes   Q queries in submission order   B queries of a bucket   W true windows of all queries
Source   metrics.md sections 2.4 and 2.5
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from momentkit.metrics.arrays import pad, pad_rows, size_buckets
from momentkit.metrics.moments import (
    MAP_THRESHOLDS,
    MAX_WINDOWS,
    Bools,
    TieOrder,
    WindowTable,
    average_precision,
    best_of_five_iou,
    first_window_iou,
    undefined_overlaps,
)
from momentkit.metrics.overlap import Floats
from momentkit.metrics.protocols import MomentProtocol
from momentkit.metrics.queries import QueryGroups


@dataclass(frozen=True)
class PredictedWindows:
    """Predicted windows of each query, a list of (N, 3) each.

    Attributes:
        merged: for mAP: the first ten of every row, rows of a repeated query one after the other.
        first_five: for recall: the first five of the last row.
        counts: (Q,) windows in `merged`.
    """

    merged: list[Floats]
    first_five: list[Floats]
    counts: NDArray[np.int64]


def predicted_windows(groups: QueryGroups) -> PredictedWindows:
    """All predicted windows that count."""
    merged = [np.concatenate([row.windows[:MAX_WINDOWS] for row in group]) for group in groups.predicted]
    first_five = [group[-1].windows[:5] for group in groups.predicted]
    return PredictedWindows(merged, first_five, np.array([len(windows) for windows in merged]))


@dataclass(frozen=True)
class TrueWindows:
    """True windows of all queries, one after the other, and where each comes from.

    Attributes:
        windows_W2: start_s, end_s.
        query_W: index of the query, ascending.
        row_W: index of the ground-truth row, ascending.
        queries: how many there are.
    """

    windows_W2: Floats
    query_W: NDArray[np.int64]
    row_W: NDArray[np.int64]
    queries: int

    def counts(self, keep_W: Bools) -> NDArray[np.int64]:
        """Kept windows of each query, (Q,)."""
        return np.bincount(self.query_W[keep_W], minlength=self.queries)

    def of_last_rows(self, keep_W: Bools) -> Bools:
        """Those kept windows that stand in their query's last row with any."""
        last_row_Q = np.full(self.queries, -1)
        last_row_Q[self.query_W[keep_W]] = self.row_W[keep_W]  # rows ascend, so the last one stays
        return keep_W & (self.row_W == last_row_Q[self.query_W])

    def table(self, keep_W: Bools, queries_B: NDArray[np.int64]) -> WindowTable:
        """The kept windows of some queries (ascending)."""
        chosen_W = keep_W & np.isin(self.query_W, queries_B)
        return WindowTable(*pad(self.windows_W2[chosen_W], self.counts(chosen_W)[queries_B]))


def true_windows(groups: QueryGroups) -> TrueWindows:
    """All true windows, in the order of the queries."""
    rows = [row for group in groups.true for row in group]
    windows = [len(row.windows) for row in rows]
    query_of_row = np.repeat(np.arange(len(groups.true)), [len(group) for group in groups.true])
    return TrueWindows(
        np.concatenate([row.windows for row in rows]),
        np.repeat(query_of_row, windows),
        np.repeat(np.arange(len(rows)), windows),
        len(groups.true),
    )


def range_arrays(
    predicted: PredictedWindows,
    true: TrueWindows,
    keep_W: Bools,
    protocol: MomentProtocol,
    tie_order: TieOrder,
) -> tuple[dict[str, Floats], int]:
    """Figures of each query against the kept windows (NaN: it has none), and how many overlaps are 0/0."""
    arrays = {
        "mr_ap": np.full((true.queries, len(MAP_THRESHOLDS)), np.nan),
        "iou_top1": np.full(true.queries, np.nan),
    }
    if protocol.recall_at_five:
        arrays["iou_best5"] = np.full(true.queries, np.nan)
    count_Q, of_last_W, undefined = true.counts(keep_W), true.of_last_rows(keep_W), 0
    scored = np.flatnonzero(count_Q)
    for bucket in size_buckets(np.maximum(count_Q, predicted.counts)[scored]):
        queries_B = scored[bucket]
        merged = WindowTable(*pad_rows([predicted.merged[query] for query in queries_B]))
        first_five = WindowTable(*pad_rows([predicted.first_five[query] for query in queries_B]))
        truth, last_truth = true.table(keep_W, queries_B), true.table(of_last_W, queries_B)
        arrays["mr_ap"][queries_B] = average_precision(merged, truth, tie_order=tie_order)
        arrays["iou_top1"][queries_B] = first_window_iou(first_five.windows[:, 0, :2], last_truth)
        if protocol.recall_at_five:
            arrays["iou_best5"][queries_B] = best_of_five_iou(first_five, last_truth)
        undefined += undefined_overlaps(merged, truth)
    return arrays, undefined
