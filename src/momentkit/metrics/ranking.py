"""Rank n@m and mIoU of proposal rankings (2D-TAN, MS-2D-TAN), and score maps -> rankings.

Shapes   Q queries   C candidate windows, best first   K kept windows   M thresholds   n as in Rank n@m
         B videos of a batch   S scales   N cells of the finest scale   windows are start_s, end_s
Source   metrics.md section 4; MS-2D-TAN lib/core/eval.py
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import ConfigError, SubmissionError
from momentkit.metrics.arrays import blocks, pad_rows, size_buckets
from momentkit.metrics.overlap import Floats, iou_cross, iou_paired

Bools = NDArray[np.bool_]
Maps = NDArray[np.float32]


@dataclass(frozen=True)
class RankProtocol:
    """What Rank n@m is computed for.

    Attributes:
        overlaps: the m; a hit needs a strictly larger IoU.
        ranks: the n.
        suppress_above: a candidate is dropped when its IoU with a kept one is larger.
    """

    overlaps: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7)
    ranks: tuple[int, ...] = (1, 5)
    suppress_above: float = 0.49


MS_2D_TAN = {
    "tan": RankProtocol(),
    "tan:charades": RankProtocol(overlaps=(0.5, 0.7)),
    "tan:activitynet": RankProtocol(overlaps=(0.3, 0.5, 0.7)),
    "tan:tacos": RankProtocol(overlaps=(0.1, 0.3, 0.5, 0.7)),
}
"""The settings of MS-2D-TAN. 2D-TAN suppresses above 0.5 (0.45 Charades pool, 0.4 TACoS pool)."""


@dataclass(frozen=True)
class RankScores:
    """Rank n@m of a set of queries.

    Attributes:
        hits: (Q, M, n) bool, any of the first n kept windows overlaps more than m.
        first_iou: (Q,) IoU of the first kept window.
    """

    hits: Bools
    first_iou: Floats

    @property
    def rank(self) -> Floats:
        """(M, n) fractions."""
        return self.hits.mean(0)

    @property
    def miou(self) -> float:
        """What TAN prints as mIoU: the mean over the first kept windows."""
        return float(self.first_iou.mean())


def suppress(candidates: Sequence[Floats], protocol: RankProtocol) -> tuple[Floats, Bools]:
    """Greedy suppression in list order, all queries at once.

    Args:
        candidates: for each query (C_q, 2), best first, at least one.
        protocol: threshold, and how many windows are needed.

    Returns:
        (Q, K, 2) the kept windows and (Q, K) True = there is one; K = the largest n.

    Raises:
        SubmissionError: a window that does not end after its start, or a query without any.
    """
    for query, windows in enumerate(candidates, 1):
        if not len(windows):
            raise SubmissionError(f"ranking {query}: is empty; at least one window is needed")
        if not (windows[:, 1] > windows[:, 0]).all():
            bad = windows[~(windows[:, 1] > windows[:, 0])][0]
            raise SubmissionError(f"ranking {query}: the window {bad.tolist()} must end after it starts")
    keep = max(protocol.ranks)
    kept_QK2, real_QK = np.zeros((len(candidates), keep, 2)), np.zeros((len(candidates), keep), dtype=bool)
    for bucket in size_buckets(np.array([len(windows) for windows in candidates])):
        for rows in blocks(len(bucket), 8 * max(len(candidates[query]) for query in bucket)):
            windows_BC2, alive_BC = pad_rows([candidates[query] for query in bucket[rows]])
            kept_QK2[bucket[rows]], real_QK[bucket[rows]] = _suppress_block(
                windows_BC2, alive_BC, keep, protocol
            )
    return kept_QK2, real_QK


def _suppress_block(
    windows_QC2: Floats, alive_QC: Bools, keep: int, protocol: RankProtocol
) -> tuple[Floats, Bools]:
    alive_QC, queries_Q = alive_QC.copy(), np.arange(len(alive_QC))
    kept_QK2, real_QK = np.zeros((len(alive_QC), keep, 2)), np.zeros((len(alive_QC), keep), dtype=bool)
    for place in range(keep):
        first_Q = alive_QC.argmax(1)  # the best that is left
        real_QK[:, place] = alive_QC[queries_Q, first_Q]
        kept_QK2[:, place] = np.where(real_QK[:, place, None], windows_QC2[queries_Q, first_Q], 0.0)
        iou_QC = iou_cross(kept_QK2[:, place, None], windows_QC2)[:, 0]
        # Written so that a window which overlaps exactly as much as allowed stays.
        alive_QC &= iou_QC <= protocol.suppress_above
        alive_QC[queries_Q, first_Q] = False
    return kept_QK2, real_QK


def rank_scores(
    candidates: Sequence[Floats], truth_Q2: Floats, protocol: RankProtocol = RankProtocol()
) -> RankScores:
    """Rank n@m after suppression. Fewer than n kept windows are no error.

    Args:
        candidates: for each query (C_q, 2), best first.
        truth_Q2: the one true window of each query.
        protocol: which n and m.

    Raises:
        SubmissionError: a window that does not end after its start, no query, or a NaN in the truth.
    """
    if not len(candidates) or len(candidates) != len(truth_Q2):
        raise SubmissionError(
            f"{len(candidates)} rankings for {len(truth_Q2)} true windows; one each is needed"
        )
    if not (truth_Q2[:, 1] > truth_Q2[:, 0]).all():
        raise SubmissionError(
            "a true window does not end after it starts; drop it, as the published readers do"
        )
    kept_QK2, real_QK = suppress(candidates, protocol)
    iou_QK = np.where(real_QK, iou_paired(kept_QK2, truth_Q2[:, None]), 0.0)
    over_QMK = (iou_QK[:, None] > np.array(protocol.overlaps)[:, None]) & real_QK[:, None]
    hits = np.stack([over_QMK[..., :n].any(-1) for n in protocol.ranks], axis=-1)
    return RankScores(hits, iou_QK[:, 0])


def joint_map(maps_BNA: Sequence[Maps]) -> Maps:
    """Maps of several scales -> one (B, N, N): cell (i, a) is the window from cell i, a + 1 cells long.

    Args:
        maps_BNA: for each scale (B, N_s, A_s), finest first: start cell and length in cells of that scale,
            from 1. Probabilities, or masks as 0 and 1. Where scales meet, the largest value stands.

    Raises:
        ConfigError: the cells of a scale do not divide the finest one's.
    """
    batch, cells = maps_BNA[0].shape[:2]
    joint_BNN = np.zeros((batch, cells, cells), dtype=np.float32)
    for scale_BNA in maps_BNA:
        starts, lengths = scale_BNA.shape[1:]
        if cells % starts or lengths > starts:
            raise ConfigError(f"a scale of {starts} cells and {lengths} lengths does not fit {cells} cells")
        step = cells // starts
        target_BNA = joint_BNN[:, ::step, step - 1 :: step][:, :, :lengths]  # a view
        np.maximum(target_BNA, scale_BNA, out=target_BNA)
    return joint_BNN


def map_rankings(
    joint_BNN: Maps, joint_mask_BNN: Maps, unit_s_B: Floats, *, shared_count: bool = True
) -> list[Floats]:
    """A score map -> windows by descending score; the earlier cell first among equals.

    Args:
        joint_BNN: scores, see `joint_map`.
        joint_mask_BNN: positive where a cell is a window.
        unit_s_B: seconds a cell covers: duration / N, or the fixed time unit of the sliding-window sets.
        shared_count: True takes as many cells of every video as the first one of the batch has windows, as
            the published evaluation does: its figures depend on who shares a batch. False takes each
            video's own count.

    Returns:
        For each video (C, 2) start_s, end_s; the arithmetic is float32.
    """
    cells = joint_BNN.shape[1]
    count_B = (joint_mask_BNN > 0).reshape(len(joint_BNN), -1).sum(1)
    rankings = []
    for video, score_NN in enumerate(joint_BNN):
        count = int(count_B[0 if shared_count else video])
        order = np.argsort(-score_NN.reshape(-1), kind="stable")[:count]
        cell_C2 = np.stack(np.divmod(order, cells), axis=1) + np.array([0, 1])
        start_C, length_C = (cell_C2.astype(np.float32) * np.float32(unit_s_B[video])).T
        windows = np.stack([start_C, start_C + length_C], axis=1)
        rankings.append(windows[windows[:, 0] < windows[:, 1]].astype(np.float64))
    return rankings
