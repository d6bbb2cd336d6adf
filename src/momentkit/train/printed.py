"""Figures that papers print beside those of the evaluation's protocol, so that `compare` can show both.

R5@t    share of queries of which one of the first five windows overlaps a true one by t or more (UniVTG's
        rule, as for R1). Papers after 2D-TAN count overlaps above t only, after a suppression of 0.49: the
        same where the run's [predict] suppresses so, but for overlaps that are exactly t.
R1@0.1  as R1@0.3.
DiDeMo  Rank@1, Rank@5 and mIoU of all annotators (`metrics.didemo`); the ranking of the 21 moments is read
        off the windows, so that a [predict] without suppression tells most about it.

Shapes   Q queries with a truth
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from momentkit.core.types import Query
from momentkit.data.options import DataConfig
from momentkit.metrics.arrays import pad_rows, percent
from momentkit.metrics.didemo import COUNTED, chunk_ranking, didemo_scores
from momentkit.metrics.moments import WindowTable, best_of_five_iou, first_window_iou

RECALL_LAYOUTS = ("charades", "tacos", "activitynet", "didemo")
THRESHOLDS = (0.1, 0.3, 0.5, 0.7)


def printed_figures(pairs: Sequence[tuple[dict[str, Any], Query]], data: DataConfig) -> dict[str, float]:
    """Figure -> percent; none for layouts whose papers print none of these.

    Args:
        pairs: submission rows, each with at least one window, and their queries, each with a true one.
        data: the layout decides.
    """
    if data.layout not in RECALL_LAYOUTS:
        return {}
    found = [np.array(row["pred_relevant_windows"], np.float64)[:, :3] for row, _ in pairs]
    predicted = WindowTable(*pad_rows([windows_N3[:5] for windows_N3 in found]))
    truth = WindowTable(*pad_rows([np.array(query.windows_s, np.float64) for _, query in pairs]))
    five_Q = best_of_five_iou(predicted, truth)
    first_Q = first_window_iou(predicted.windows[:, 0, :2], truth)
    figures = {"MR-full-R1@0.1": percent(float((first_Q >= 0.1).mean()))}
    figures |= {f"MR-full-R5@{t}": percent(float((five_Q >= t).mean())) for t in THRESHOLDS}
    chosen = [query.annotators for _, query in pairs]
    if all(chunks is not None and len(chunks) >= COUNTED for chunks in chosen):
        ranking_QP2 = np.stack([chunk_ranking(windows_N3) for windows_N3 in found])
        scores = didemo_scores(ranking_QP2, [np.array(chunks) for chunks in chosen])
        figures |= {
            "DiDeMo-Rank@1": percent(scores.rank1),
            "DiDeMo-Rank@5": percent(scores.rank5),
            "DiDeMo-mIoU": percent(scores.miou),
        }
    return figures
