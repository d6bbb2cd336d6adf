"""What each query contributes to the figures, and what follows from it: parts of the queries, calibration.

Shapes   Q queries with a truth, in the order of the data set   T overlap thresholds
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from momentkit.core.types import Query
from momentkit.data.options import DataConfig
from momentkit.metrics.breakdown import breakdown, moment_properties
from momentkit.metrics.calibration import Calibration, calibration
from momentkit.metrics.highlights import tvsum_ap, youtube_ap
from momentkit.metrics.overlap import Floats
from momentkit.metrics.saliency import LEVELS
from momentkit.metrics.submission import score_moment_rows
from momentkit.train.evaluate import HIGHLIGHT_CLIP_S, PROTOCOL, Row

RIGHT_FROM = (0.5, 0.7)  # overlaps from which calibration calls an answer right
R1_THRESHOLDS = (0.3, 0.5, 0.7)
MISSES_SHOWN = 8


@dataclass(frozen=True)
class PerQuery:
    """Values of each query.

    Attributes:
        queries: those with a truth.
        rows: their answers.
        values: figure -> (Q,) in [0, 1]; the figure is their mean (TVSum's is a mean over domains of means).
        iou_Q: overlap of the first window with the true one it fits best; none where moments are not scored.
        ap_QT: average precision at each threshold; the same.
    """

    queries: tuple[Query, ...]
    rows: tuple[Row, ...]
    values: Mapping[str, Floats]
    iou_Q: Floats | None = None
    ap_QT: Floats | None = None


@dataclass(frozen=True)
class Details:
    """What lies behind the figures of a model.

    Attributes:
        parts: who -> property -> part -> figures in percent and how many queries.
        calibration: of the first window's score, one a threshold; empty where scores are no confidences.
        misses: the surest answers that miss: query, video, confidence, window found, true windows.
    """

    parts: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
    calibration: tuple[Calibration, ...]
    misses: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        curves = [curve.to_json() for curve in self.calibration]
        return {"parts": self.parts, "calibration": curves, "misses": list(self.misses)}


def per_query(rows: Sequence[Row], queries: Sequence[Query], data: DataConfig) -> PerQuery:
    """Values of every query with a truth.

    Args:
        rows: answers, one a query, in the same order.
        queries: with their truth.
        data: the layout decides what is scored.
    """
    by_clips = data.layout in ("tvsum", "youtube")
    pairs = [
        (row, query)
        for row, query in zip(rows, queries, strict=True)
        if (query.clip_labels if by_clips else query.windows_s)
    ]
    kept, asked = tuple(row for row, _ in pairs), tuple(query for _, query in pairs)
    if by_clips:
        ap_Q = np.array([_clip_ap(row, query, data.layout) for row, query in pairs])
        return PerQuery(asked, kept, {"mAP": ap_Q})
    scores = score_moment_rows(*_numbered(pairs, data), protocol=PROTOCOL)
    iou_Q, ap_QT = scores.per_query["full.iou_top1"], scores.per_query["full.mr_ap"]
    values = {f"R1@{t}": (iou_Q >= t).astype(np.float64) for t in R1_THRESHOLDS}
    values |= {"mIoU": iou_Q, "mAP": ap_QT.mean(1)}
    if "hl_ap" in scores.per_query:
        level = list(LEVELS).index("VeryGood")
        values["HL-mAP"] = scores.per_query["hl_ap"][:, level].mean(1)
        values["HL-Hit1"] = scores.per_query["hl_hit1"][:, level]
    return PerQuery(asked, kept, values, iou_Q, ap_QT)


def _clip_ap(row: Row, query: Query, layout: str) -> float:
    labels_CR = np.array(query.clip_labels, dtype=np.float64)
    score_T = np.array(row["pred_saliency_scores"])[: len(labels_CR)]
    if layout == "tvsum":
        return float(np.mean(tvsum_ap(score_T, labels_CR)))
    return float(youtube_ap(score_T, labels_CR[:, 0]))


def _numbered(pairs: Sequence[tuple[Row, Query]], data: DataConfig) -> tuple[list[Row], list[Row]]:
    """Answers and truth keyed by position: a file may hold one qid twice."""
    highlights = data.clip_length_s == HIGHLIGHT_CLIP_S and all(
        query.saliency_scores is not None and "pred_saliency_scores" in row for row, query in pairs
    )
    names = ["pred_relevant_windows"] + ["pred_saliency_scores"] * highlights
    answers = [{"qid": number} | {name: row[name] for name in names} for number, (row, _) in enumerate(pairs)]
    truth = [
        {
            "qid": number,
            "duration": query.duration_s,
            "relevant_windows": [list(window) for window in query.windows_s or ()],
            "relevant_clip_ids": list(query.relevant_clips or ()),
            "saliency_scores": [list(scores) for scores in query.saliency_scores or ()],
        }
        for number, (_, query) in enumerate(pairs)
    ]
    return answers, truth


def details(answers: Mapping[str, PerQuery], model: str) -> Details | None:
    """Parts of the queries for everybody, calibration and misses of the model; None without moments.

    Args:
        answers: who -> its values, on the same queries.
        model: which of them is the model.
    """
    own = answers[model]
    if own.iou_Q is None:
        return None
    properties = moment_properties(
        [query.windows_s or () for query in own.queries],
        [query.duration_s for query in own.queries],
        [query.text for query in own.queries],
    )
    parts = {
        who: breakdown(values.iou_Q, values.ap_QT, properties)
        for who, values in answers.items()
        if values.iou_Q is not None and values.ap_QT is not None
    }
    confidence_Q = np.array([row["pred_relevant_windows"][0][2] for row in own.rows])
    curves = [calibration(confidence_Q, own.iou_Q >= t, t) for t in RIGHT_FROM]
    return Details(parts, tuple(curve for curve in curves if curve), _misses(own, own.iou_Q, confidence_Q))


def _misses(own: PerQuery, iou_Q: Floats, confidence_Q: Floats) -> tuple[Mapping[str, Any], ...]:
    """The answers of highest confidence that overlap no true moment by a half, surest first."""
    wrong = [int(index) for index in np.argsort(-confidence_Q, kind="stable") if iou_Q[index] < RIGHT_FROM[0]]
    return tuple(
        {
            "query": own.queries[index].text,
            "vid": own.queries[index].vid,
            "confidence": float(confidence_Q[index]),
            "iou": float(iou_Q[index]),
            "found": own.rows[index]["pred_relevant_windows"][0][:2],
            "true": [list(window) for window in own.queries[index].windows_s or ()],
        }
        for index in wrong[:MISSES_SHOWN]
    )
