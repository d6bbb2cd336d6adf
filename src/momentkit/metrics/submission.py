"""Score a submission against its ground truth, as one of the published QVHighlights-family evaluators does.

Shapes   Q queries, distinct, in submission order   B queries of a bucket   W windows of all queries
         L levels   R raters   T clips   S predicted scores
Source   metrics.md sections 1, 2.4 to 2.8 and 3
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import SubmissionError
from momentkit.metrics.arrays import pad_rows, percent, size_buckets
from momentkit.metrics.figures import brief_figures, moment_figures
from momentkit.metrics.moments import Bools, TieOrder
from momentkit.metrics.overlap import Floats
from momentkit.metrics.protocols import LengthRange, MomentProtocol, moment_protocol
from momentkit.metrics.queries import QueryGroups, examples, match_queries
from momentkit.metrics.ranges import predicted_windows, range_arrays, true_windows
from momentkit.metrics.rows import (
    RATERS,
    SALIENCY,
    WINDOWS,
    LabelledRow,
    QueryId,
    TruthRow,
    label_rows,
    prediction_rows,
    read_rows,
    truth_rows,
)
from momentkit.metrics.saliency import LEVELS, highlight_ap, highlight_hit


@dataclass(frozen=True)
class Scores:
    """What a submission reached.

    Attributes:
        protocol: as the caller named it.
        figures: the published layout; percent, rounded to two decimals; None where a range is empty.
        qids: (Q,) the distinct queries in submission order.
        per_query: unrounded arrays, rows in the order of `qids`. "<range>.mr_ap" (Q, 10) at IoU 0.5..0.95,
            "<range>.iou_top1" (Q,), "<range>.iou_best5" (Q,) under univtg (NaN rows where a query has no true
            window in the range); "hl_ap" (Q, 3, 3) query, level, rater; "hl_hit1" (Q, 3).
        warnings: what the official program would have done without a word.
    """

    protocol: str
    figures: dict[str, Any]
    qids: tuple[QueryId, ...]
    per_query: Mapping[str, Floats]
    warnings: tuple[str, ...] = ()


@dataclass
class _Notes:
    """Warnings in the order in which they come up."""

    lines: list[str] = field(default_factory=list)

    def say(self, condition: object, line: str) -> None:
        if condition:
            self.lines.append(line)


def score_moment_files(
    predictions: str | Path,
    truth: str | Path,
    *,
    protocol: str = "qvh",
    match_number: bool = True,
    tie_order: TieOrder = "highest",
) -> Scores:
    """Score a prediction file. See `score_moment_rows`; errors name file and line."""
    return _score(read_rows(predictions), read_rows(truth), protocol, match_number, tie_order)


def score_moment_rows(
    predictions: Sequence[dict[str, Any]],
    truth: Sequence[dict[str, Any]],
    *,
    protocol: str = "qvh",
    match_number: bool = True,
    tie_order: TieOrder = "highest",
) -> Scores:
    """Score prediction rows.

    Args:
        predictions: rows {"qid", "pred_relevant_windows": [[start_s, end_s, score], ...],
            "pred_saliency_scores": [...]}; the first decides whether moments, highlights or both are scored.
        truth: rows {"qid", "relevant_windows", "duration", "relevant_clip_ids", "saliency_scores"}.
        protocol: qvh, cgdetr, univtg, lighthouse or momentdiff[:set].
        match_number: True refuses different sets of queries; False keeps the shared ones.
        tie_order: which of two true windows of equal overlap is matched first (published figures of files
            whose true windows touch depend on the machine here).

    Raises:
        SubmissionError: names row and field.
        ConfigError: no such protocol.
    """
    return _score(
        label_rows(predictions, "prediction"),
        label_rows(truth, "truth row"),
        protocol,
        match_number,
        tie_order,
    )


def _score(
    predictions: list[LabelledRow],
    truth: list[LabelledRow],
    protocol_name: str,
    match_number: bool,
    tie_order: TieOrder,
) -> Scores:
    protocol, notes = moment_protocol(protocol_name), _Notes()
    predicted = prediction_rows(predictions)
    moments = WINDOWS in predictions[0][1]
    highlights = SALIENCY in predictions[0][1] and _score_highlights(protocol, truth, notes)
    if not (moments or highlights):
        raise SubmissionError(
            f"{predictions[0][0]}: has no {WINDOWS}, and {protocol_name} scores no highlights here"
        )
    for name, scored in ((WINDOWS, moments), (SALIENCY, SALIENCY in predictions[0][1])):
        ignored = sum(name in row for _, row in predictions)
        notes.say(
            not scored and ignored, f"{ignored} rows have {name}, not scored since the first row has none"
        )
    true = truth_rows(truth, moments=moments, highlights=highlights)
    predicted, true = match_queries(predicted, true, match_number=match_number)
    groups = QueryGroups(predicted, true)
    notes.say(
        len(groups.qids) < max(len(predicted), len(true)),
        f"{len(predicted) + len(true) - 2 * len(groups.qids)} rows repeat a query: their windows are merged "
        "for mAP, the last row counts for the rest",
    )

    figures: dict[str, Any] = {}
    per_query: dict[str, Floats] = {}
    if moments:
        _score_ranges(groups, protocol, tie_order, figures, per_query, notes)
    if highlights:
        _score_saliency(groups, figures, per_query)
    ordered = {name: figures[name] for name in sorted(figures)}
    brief = brief_figures(protocol, ordered, moments=moments)
    return Scores(protocol_name, {"brief": brief} | ordered, groups.qids, per_query, tuple(notes.lines))


def _score_highlights(protocol: MomentProtocol, truth: list[LabelledRow], notes: _Notes) -> bool:
    """Whether the protocol scores the predicted saliency, given the labels there are."""
    labelled = [isinstance(row.get("saliency_scores"), list) for _, row in truth]
    if protocol.highlights == "scored" and not any(labelled):
        raise SubmissionError(
            f"{truth[0][0]}: saliency_scores: no row has labels to score {SALIENCY} against; leave "
            "the scores out, or take --protocol cgdetr, which passes over them (tvsum, youtube: their own)"
        )
    answers = {"scored": True, "where_labelled": any(labelled), "first_row": labelled[0], "never": False}
    scored = answers[protocol.highlights]
    reason = "this protocol has none" if protocol.highlights == "never" else "the truth has no labels"
    notes.say(not scored, f"no highlight figures: {reason}")
    return scored


def _score_ranges(
    groups: QueryGroups,
    protocol: MomentProtocol,
    tie_order: TieOrder,
    figures: dict[str, Any],
    per_query: dict[str, Floats],
    notes: _Notes,
) -> None:
    predicted, true = predicted_windows(groups), true_windows(groups)
    length_W = true.windows_W2[:, 1] - true.windows_W2[:, 0]
    _note_odd_windows(groups, length_W, notes)
    for part in protocol.ranges:
        keep_W = _in_range(part, length_W)
        if protocol.empty_range == "everything" and not keep_W.any():
            keep_W = np.ones_like(keep_W)
        arrays, undefined = range_arrays(predicted, true, keep_W, protocol, tie_order)
        notes.say(
            undefined and part.name == "full",
            f"{undefined} overlaps are 0/0; the official program counts each as a hit",
        )
        scored_Q = true.counts(keep_W) > 0
        figures |= moment_figures(protocol, part.name, {name: arrays[name][scored_Q] for name in arrays})
        per_query |= {f"{part.name}.{name}": array for name, array in arrays.items()}


def _in_range(part: LengthRange, length_W: Floats) -> Bools:
    if part.every:
        return np.ones(len(length_W), dtype=bool)
    return (length_W > part.over_s) & (length_W <= part.up_to_s)


def _note_odd_windows(groups: QueryGroups, length_W: Floats, notes: _Notes) -> None:
    bad_truth = int((~(length_W > 0)).sum())
    notes.say(bad_truth, f"{bad_truth} true windows do not end after they start")
    reversed_rows = [
        row.where
        for group in groups.predicted
        for row in group
        if not (row.windows[:, 1] >= row.windows[:, 0]).all()
    ]
    notes.say(
        reversed_rows,
        f"{len(reversed_rows)} rows predict a window that ends before it starts ({examples(reversed_rows)}); "
        "it counts as the official program counts it",
    )


def _score_saliency(groups: QueryGroups, figures: dict[str, Any], per_query: dict[str, Floats]) -> None:
    scores = [group[-1].saliency for group in groups.predicted]
    rows = [group[-1] for group in groups.true]
    ap_QLR = np.zeros((len(rows), len(LEVELS), RATERS))
    hit_QL = np.zeros((len(rows), len(LEVELS)))
    longest = [max(len(score), row.clips) for score, row in zip(scores, rows, strict=True)]
    for queries_B in size_buckets(np.array(longest)):
        score_BS, mask_BS = pad_rows([scores[query] for query in queries_B])
        rating_BTR, clips_B = _rating_table([rows[query] for query in queries_B])
        ap_QLR[queries_B] = highlight_ap(score_BS, mask_BS, rating_BTR, clips_B)
        hit_QL[queries_B] = highlight_hit(score_BS, mask_BS, rating_BTR)
    per_query |= {"hl_ap": ap_QLR, "hl_hit1": hit_QL}
    for level, name in enumerate(LEVELS):
        figures[f"HL-min-{name}"] = {
            "HL-mAP": percent(float(ap_QLR[:, level].mean())),
            "HL-Hit1": percent(float(hit_QL[:, level].mean())),
        }


def _rating_table(rows: list[TruthRow]) -> tuple[Floats, NDArray[np.int64]]:
    """Ratings of every clip, 0 where there are none, (B, T, R); and the clips of each video."""
    clips_B = np.array([row.clips for row in rows])
    rating_BTR = np.zeros((len(rows), clips_B.max(initial=0), RATERS))
    query_C = np.repeat(np.arange(len(rows)), [len(row.rated_clips) for row in rows])
    clip_C = np.concatenate([row.rated_clips for row in rows])
    rating_BTR[query_C, clip_C] = np.concatenate([row.ratings for row in rows])
    return rating_BTR, clips_B
