"""Our metrics against stored figures of the official programs: every case of a folder.

The folder holds any of `qvh/cases.json`, `tan_cases.json`, `hd_cases.json`, `didemo_cases.json` and
`postproc_cases.json`, laid out as the README beside the stored figures says. Rounded figures must be equal,
per-query arrays within 1e-12, float32 outputs within 1e-6 of their size.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from momentkit.core.errors import ConfigError, SubmissionError
from momentkit.metrics.moments import TieOrder
from momentkit.metrics.rows import SALIENCY, WINDOWS, UntrustedRowError, read_rows
from momentkit.metrics.submission import Scores, score_moment_rows
from momentkit.verify.metrics_sets import (
    Arrays,
    CaseFolder,
    NotRun,
    didemo_case,
    highlight_case,
    post_process_case,
    rank_case,
    score_map_case,
)
from momentkit.verify.report import CaseResult, StageResult, compare

PER_QUERY_TOLERANCE = 1e-12
Submission = tuple[list[dict[str, Any]], list[dict[str, Any]]]
Check = Callable[[CaseFolder, dict[str, Any]], CaseResult]


def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every case of a folder, one result each; a case whose data is absent did not run."""
    folder = CaseFolder(golden)
    for family, check, case in _cases(folder):
        name = f"{family}/{case.get('id', '?')}"
        try:
            result = check(folder, case)
            yield CaseResult(name, result.stages, result.note)
        except NotRun as reason:
            yield CaseResult(name, note=str(reason))
        except (OSError, KeyError, TypeError, ValueError, ConfigError) as error:
            yield CaseResult(name, note=f"the case cannot be read: {type(error).__name__}: {error}")


def _cases(folder: CaseFolder) -> Iterator[tuple[str, Check, dict[str, Any]]]:
    for case in folder.cases("qvh/cases.json"):
        yield "qvh", moment_case, case
    tan = folder.cases("tan_cases.json") or {}  # two lists in one file
    for case in tan.get("rank", ()):
        yield "rank", rank_case, case
    for case in tan.get("scoremap", ()):
        yield "scoremap", score_map_case, case
    others: tuple[tuple[str, Check], ...] = (
        ("hd", highlight_case),
        ("didemo", didemo_case),
        ("postproc", post_process_case),
    )
    for family, check in others:
        for case in folder.cases(f"{family}_cases.json"):
            yield family, check, case


def moment_case(folder: CaseFolder, case: dict[str, Any]) -> CaseResult:
    """Moments and highlights under every evaluator the case names."""
    expected = json.loads(folder.path(case["expected"]).read_text())
    if unknown := sorted(case["options"].keys() - {"match_number"}):
        raise NotRun(f"the option {unknown[0]!r} is not known here")
    submission = _read(folder.path(case["pred"]), folder.path(case["gt"]))
    stages, notes = [], []
    for name, wanted in expected.items():
        if case["gt_tie_order_matters"] and "@" not in name:
            notes.append(f"{name} not asserted: ties of overlap, which that program breaks by machine")
            continue
        stage, note = _judge(name, _attempt(submission, case, name, wanted), wanted)
        stages.append(stage)
        if note:
            notes.append(note)
    if case["per_query"]:
        ours = _attempt(submission, case, case["evaluators"][0], {})
        stages += _per_query(folder.arrays(case["per_query"]), ours, case["gt_tie_order_matters"])
    return CaseResult(case["id"], tuple(stages), "; ".join(notes))


def _read(predictions: Path, truth: Path) -> Submission | SubmissionError:
    try:
        return [row for _, row in read_rows(predictions)], [row for _, row in read_rows(truth)]
    except SubmissionError as refusal:
        return refusal


def _attempt(
    submission: Submission | SubmissionError, case: dict[str, Any], name: str, wanted: dict[str, Any]
) -> Scores | SubmissionError:
    """Our scores, or our refusal. Only some evaluators were run with the saliency scores."""
    if isinstance(submission, SubmissionError):
        return submission
    protocol, _, ties = name.partition("@")
    predictions, truth = submission
    scored_first = protocol == case["evaluators"][0]
    always = case["id"] == "hl_edges" or case["id"].endswith("saliency_only") or WINDOWS not in predictions[0]
    if not (scored_first or always or _has_highlights(wanted)):
        predictions = [{key: row[key] for key in row if key != SALIENCY} for row in predictions]
    match_number = case["options"].get("match_number", True)
    try:
        return score_moment_rows(
            predictions, truth, protocol=protocol, match_number=match_number, tie_order=_tie_order(ties)
        )
    except SubmissionError as refusal:
        return refusal


def _has_highlights(figures: Mapping[str, Any]) -> bool:
    return any(name.startswith("HL-") for name in figures)


def _tie_order(ties: str) -> TieOrder:
    orders: dict[str, TieOrder] = {
        "": "highest",
        "ties_highest_index_first": "highest",
        "ties_lowest_index_first": "lowest",
    }
    if ties not in orders:
        raise NotRun(f"the order of ties {ties!r} is not known here")
    return orders[ties]


def _judge(name: str, ours: Scores | SubmissionError, wanted: dict[str, Any]) -> tuple[StageResult, str]:
    """Agreement of figures, or of a stop of the official program with our refusal or null."""
    if "error" in wanted:
        if isinstance(ours, SubmissionError):
            return StageResult(name, 0.0, 0.0), f"{name} stops ({wanted['error']}), ours refuses: {ours}"
        # The program stops on a range without true windows; there null is asked of ours.
        empty = [part for part, figures in ours.figures.items() if figures is None]
        agrees = bool(empty) and wanted["error"] == "TypeError"
        given = f"null for {' and '.join(empty)}" if empty else "figures"
        note = f"{name} stops ({wanted['error']}), ours gives {given}"
        return StageResult(f"{name} stops", 0.0 if agrees else inf, 0.0), note
    if isinstance(ours, UntrustedRowError):
        return StageResult(name, 0.0, 0.0), f"{name} gives figures that mean nothing, ours refuses: {ours}"
    if isinstance(ours, SubmissionError):
        nothing_there = not _flatten(wanted)  # the program's dictionary is empty too
        return StageResult(f"{name} refused: {ours}", 0.0 if nothing_there else inf, 0.0), ""
    return _compare_figures(name, ours.figures, wanted), ""


def _compare_figures(name: str, ours: dict[str, Any], wanted: dict[str, Any]) -> StageResult:
    """Largest difference of all figures, named; infinite where one has a figure the other lacks."""
    a, b = _flatten(ours), _flatten(wanted)
    worst, largest = "", 0.0
    for key in sorted(a.keys() | b.keys()):
        difference = _difference(a[key], b[key]) if key in a and key in b else inf
        if difference > largest:
            worst, largest = f" {key}", difference
    return StageResult(f"{name}{worst}", largest, 0.0)


def _flatten(figures: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in figures.items():
        flat |= _flatten(value, f"{path}{key}/") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return flat


def _difference(ours: Any, wanted: Any) -> float:
    if isinstance(ours, (int, float)) and isinstance(wanted, (int, float)):
        difference = abs(ours - wanted)
        return difference if difference == difference else inf
    return 0.0 if ours is None and wanted is None else inf


def _per_query(stored: Arrays, ours: Scores | SubmissionError, ties_matter: bool) -> list[StageResult]:
    """Unrounded arrays of the first evaluator, rows in submission order."""
    if isinstance(ours, UntrustedRowError):
        return []
    if isinstance(ours, SubmissionError):
        return [StageResult(f"per query refused: {ours}", inf, PER_QUERY_TOLERANCE)]
    same = [str(qid) for qid in ours.qids] == stored["qid"].tolist()
    stages = [StageResult("order of queries", 0.0 if same else inf, 0.0)]
    for name in sorted(stored.keys() - {"qid"}):
        if not (name == "mr_ap" and ties_matter):
            key = name if name.startswith("hl_") else f"full.{name}"
            array = ours.per_query.get(key, np.zeros(0))
            stages.append(compare(f"per query {name}", array, stored[name], PER_QUERY_TOLERANCE))
    return stages
