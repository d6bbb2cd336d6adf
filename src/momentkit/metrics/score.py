"""One door for every protocol: two files in, figures out.

The QVHighlights family is in `submission`; here are the rankings (tan), the highlight sets (tvsum, youtube)
and DiDeMo.

Shapes   Q queries in submission order   T clips   R raters
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from momentkit.core.errors import SubmissionError
from momentkit.metrics.arrays import percent
from momentkit.metrics.didemo import didemo_scores
from momentkit.metrics.highlights import domain_figure, mean_over_domains, tied_at_cut, tvsum_ap, youtube_ap
from momentkit.metrics.overlap import Floats
from momentkit.metrics.queries import require_same_queries
from momentkit.metrics.ranking import MS_2D_TAN, rank_scores
from momentkit.metrics.rows import (
    SALIENCY,
    WINDOWS,
    LabelledRow,
    QueryId,
    field,
    number_list,
    number_table,
    query_id,
    read_list,
    read_rows,
)
from momentkit.metrics.submission import Scores, score_moment_files

RANKING = "pred_segments"  # DiDeMo: all 21 chunk pairs, best first


def score_files(
    predictions: str | Path, truth: str | Path, *, protocol: str = "qvh", match_number: bool = True
) -> Scores:
    """Score a prediction file against its ground truth.

    Args:
        predictions: JSON lines.
        truth: JSON lines; for didemo the published JSON list.
        protocol: qvh, cgdetr, univtg, lighthouse, momentdiff[:set], tan[:charades|activitynet|tacos], tvsum,
            youtube or didemo.
        match_number: True refuses different sets of queries; False scores the shared ones.

    Raises:
        SubmissionError: names file, line and field.
        ConfigError: no such protocol.
    """
    if protocol in MS_2D_TAN:
        return _score_ranking(*_paired(read_rows(predictions), read_rows(truth), match_number), protocol)
    if protocol in ("tvsum", "youtube"):
        return _score_domains(*_paired(read_rows(predictions), read_rows(truth), match_number), protocol)
    if protocol == "didemo":
        sentences = [
            (where, row | {"qid": query_id(where, row, "annotation_id")}) for where, row in read_list(truth)
        ]
        return _score_didemo(*_paired(read_rows(predictions), sentences, match_number), protocol)
    return score_moment_files(predictions, truth, protocol=protocol, match_number=match_number)


def _paired(
    predictions: list[LabelledRow], truth: list[LabelledRow], match_number: bool
) -> tuple[list[LabelledRow], list[LabelledRow]]:
    """Prediction and truth of the same query side by side; a repeated query is refused."""
    by_qid = []
    for rows in (predictions, truth):
        seen: dict[QueryId, LabelledRow] = {}
        for where, row in rows:
            if (qid := query_id(where, row)) in seen:
                raise SubmissionError(f"{where}: qid: {qid!r} was at {seen[qid][0]} already")
            seen[qid] = (where, row)
        by_qid.append(seen)
    predicted, true = by_qid
    wheres = {qid: where for qid, (where, _) in predicted.items()}
    shared = require_same_queries(wheres, true.keys(), match_number=match_number)
    qids = [qid for qid in predicted if qid in shared]
    return [predicted[qid] for qid in qids], [true[qid] for qid in qids]


def _qids(rows: list[LabelledRow]) -> tuple[QueryId, ...]:
    return tuple(row["qid"] for _, row in rows)


def _score_ranking(predictions: list[LabelledRow], truth: list[LabelledRow], protocol: str) -> Scores:
    options = MS_2D_TAN[protocol]
    candidates = [number_table(where, row, WINDOWS, 3) for where, row in predictions]
    true = [number_table(where, row, "relevant_windows", 2) for where, row in truth]
    for rows, tables, name in ((predictions, candidates, WINDOWS), (truth, true, "relevant_windows")):
        for (where, _), table in zip(rows, tables, strict=True):
            if not (table[:, 1] > table[:, 0]).all():
                raise SubmissionError(f"{where}: {name}: a window does not end after it starts")
    if several := [where for (where, _), table in zip(truth, true, strict=True) if len(table) != 1]:
        raise SubmissionError(
            f"{several[0]}: relevant_windows: must hold one window, as {protocol} scores one"
        )
    scores = rank_scores([table[:, :2] for table in candidates], np.concatenate(true), options)
    figures = {
        f"Rank{n}@{m}": percent(float(scores.rank[i, j]))
        for i, m in enumerate(options.overlaps)
        for j, n in enumerate(options.ranks)
    }
    unsorted = sum(bool((np.diff(table[:, 2]) > 0).any()) for table in candidates)
    warnings = (
        (f"{unsorted} rows are not sorted by score; the order of the file is the ranking",)
        if unsorted
        else ()
    )
    return Scores(
        protocol,
        {"brief": figures | {"mIoU": percent(scores.miou)}},
        _qids(predictions),
        {"hits": scores.hits.astype(np.float64), "iou_top1": scores.first_iou},
        warnings,
    )


def _score_domains(predictions: list[LabelledRow], truth: list[LabelledRow], protocol: str) -> Scores:
    """Mean per domain, and over the domains that occur."""
    domains: dict[str, list[Floats]] = {}
    ap_of: Callable[[Floats, Floats], Floats] = tvsum_ap if protocol == "tvsum" else _youtube_ap
    every: list[Floats] = []
    cut, tied = 0, []
    for (where, row), (truth_where, true) in zip(predictions, truth, strict=True):
        raters = 20 if protocol == "tvsum" else 1
        label_TR = number_table(truth_where, true, "label", raters)
        score_T = number_list(where, row, SALIENCY)
        cut += len(score_T) > len(label_TR)
        score_T = score_T[: len(label_TR)]
        if tied_at_cut(score_T) if protocol == "tvsum" else len(set(score_T.tolist())) < len(score_T):
            tied.append(str(row["qid"]))
        every.append(ap_of(score_T, label_TR))
        domains.setdefault(str(field(truth_where, true, "domain")), []).append(every[-1])
    fractions = {name: domain_figure(domains[name], "flat") for name in sorted(domains)}
    warnings = []
    if cut:
        warnings.append(f"{cut} rows have more scores than labelled clips; the surplus is cut, as published")
    if tied:
        warnings.append(
            f"{len(tied)} videos have ties that decide the figure ({', '.join(tied[:3])}): the earlier "
            "clip goes first here, published figures go by an unstable sort"
        )
    figures = {name: {"mAP": round(100 * fraction, 3)} for name, fraction in fractions.items()}
    brief = {"mAP": percent(mean_over_domains(fractions))}
    return Scores(
        protocol, {"brief": brief} | figures, _qids(predictions), {"ap": np.stack(every)}, tuple(warnings)
    )


def _youtube_ap(score_T: Floats, label_T1: Floats) -> Floats:
    return np.array([youtube_ap(score_T, label_T1[:, 0])])


def _score_didemo(predictions: list[LabelledRow], truth: list[LabelledRow], protocol: str) -> Scores:
    rankings = [number_table(where, row, RANKING, 2).astype(np.int64) for where, row in predictions]
    for (where, _), ranking in zip(predictions, rankings, strict=True):
        if len(ranking) != 21:
            raise SubmissionError(
                f"{where}: {RANKING}: must hold all 21 chunk pairs, best first, got {len(ranking)}"
            )
    times = [number_table(where, row, "times", 2).astype(np.int64) for where, row in truth]
    scores = didemo_scores(np.stack(rankings), times)
    brief = {"Rank1": percent(scores.rank1), "Rank5": percent(scores.rank5), "mIoU": percent(scores.miou)}
    per_query = {"rank": scores.rank_Q, "iou_top1": scores.iou_Q}
    return Scores(protocol, {"brief": brief}, _qids(predictions), per_query)
