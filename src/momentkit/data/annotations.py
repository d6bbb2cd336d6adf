"""Annotation files in the QVHighlights form: one JSON object a line, one query of one video each.

Every fault names file, line and field. `read_annotations` stops at the first, `validate_annotations`
collects all. Nothing is mended unless it is asked for, and what is mended is counted.

A row   qid (int or text), query, vid, duration (s), relevant_windows [[start, end], ...] (s) or null,
        relevant_clip_ids + saliency_scores (QVHighlights) or null, label (one list of ratings a clip: TVSum,
        YouTube) or absent, domain (TVSum, YouTube) or absent. Other fields are passed over.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from momentkit.core.errors import DataError
from momentkit.core.files import atomic_write, read_json_lines
from momentkit.core.types import Query
from momentkit.data.row import Problem, RowCheck, WindowRules

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AnnotationReport:
    """What an annotation file holds.

    Attributes:
        path: the file.
        rows: lines that are not blank.
        queries: the rows without a fault, in file order.
        problems: the faults, in file order.
        clipped_windows: windows that were cut to the video (on request).
        dropped_windows: windows of no length that were dropped (on request).
        dropped_lines: rows that lost all their windows that way and were dropped with them.
        repeated_qids: rows whose qid another row before them has. Legal: rows are keyed by position.
    """

    path: str
    rows: int
    queries: tuple[Query, ...]
    problems: tuple[Problem, ...] = ()
    clipped_windows: int = 0
    dropped_windows: int = 0
    dropped_lines: tuple[int, ...] = ()
    repeated_qids: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Kind of fault -> how often, the most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())

    def mended(self) -> list[str]:
        """What was changed or is unusual, as sentences; empty where nothing is."""
        said = {
            f"{self.clipped_windows} windows cut to their video": self.clipped_windows,
            f"{self.dropped_windows} windows of no length dropped": self.dropped_windows,
            f"{len(self.dropped_lines)} rows dropped that had no other window": len(self.dropped_lines),
            f"{self.repeated_qids} rows repeat a qid of another row": self.repeated_qids,
        }
        return [f"{self.path}: {sentence}" for sentence, count in said.items() if count]


def read_annotations(
    path: str | Path,
    *,
    clip_windows: bool = False,
    drop_bad_windows: bool = False,
    keep_outside: bool = False,
) -> list[Query]:
    """The rows of an annotation file (`.jsonl` or `.jsonl.gz`); what was mended is logged as a warning.

    Args:
        path: the file.
        clip_windows, drop_bad_windows, keep_outside: as in `WindowRules`.

    Raises:
        DataError: the first fault, with file, line and field.
    """
    rules = WindowRules(
        clip_windows=clip_windows, drop_bad_windows=drop_bad_windows, keep_outside=keep_outside
    )
    report = load_annotations(path, rules)
    for sentence in report.mended():
        _log.warning(sentence)
    return list(report.queries)


def load_annotations(path: str | Path, rules: WindowRules = WindowRules()) -> AnnotationReport:
    """As `read_annotations`, with the counts of what was mended.

    Raises:
        DataError: the first fault; or a file without any row.
    """
    report = validate_annotations(path, rules)
    if report.problems:
        raise DataError(report.problems[0].message)
    if not report.queries:
        raise DataError(f"{path} holds no row; a JSON object a line is wanted")
    return report


def validate_annotations(path: str | Path, rules: WindowRules = WindowRules()) -> AnnotationReport:
    """All faults of an annotation file.

    Raises:
        DataError: the file cannot be read at all.
    """
    problems: list[Problem] = []

    def unreadable(line: int, error: DataError) -> None:
        problems.append(Problem("line is no JSON object", line, str(error)))

    return check_rows(path, read_json_lines(path, unreadable), rules, problems)


def check_rows(
    path: str | Path,
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    rules: WindowRules,
    unreadable: Sequence[Problem] = (),
) -> AnnotationReport:
    """Examine rows, wherever they come from.

    Args:
        path: the file, for the messages.
        rows: line number and row in the QVHighlights form.
        rules: what may be done with windows.
        unreadable: lines that are no rows; read after `rows` is exhausted, so that a reader may fill it.
    """
    problems: list[Problem] = []
    queries: list[Query] = []
    mended: Counter[str] = Counter()
    dropped_lines: list[int] = []
    count = 0
    for line, row in rows:
        count += 1
        checked = RowCheck(row, f"{path}:{line}", line, rules, mended)
        query = checked.query()
        problems += checked.problems
        if query is not None and checked.lost_all_windows:
            dropped_lines.append(line)
        elif query is not None:
            queries.append(query)
    return AnnotationReport(
        path=str(path),
        rows=count + len(unreadable),
        queries=tuple(queries),
        problems=tuple(sorted([*problems, *unreadable], key=lambda problem: problem.line)),
        clipped_windows=mended["clipped"],
        dropped_windows=mended["dropped"],
        dropped_lines=tuple(dropped_lines),
        repeated_qids=len(queries) - len({query.qid for query in queries}),
    )


def to_row(query: Query) -> dict[str, Any]:
    """A query as a row of an annotation file; fields it does not have are left out."""
    row = {
        "qid": query.qid,
        "query": query.text,
        "duration": query.duration_s,
        "vid": query.vid,
        "relevant_windows": query.windows_s,
        "relevant_clip_ids": query.relevant_clips,
        "saliency_scores": query.saliency_scores,
        "label": query.clip_labels,
        "domain": query.domain or None,
    }
    return {name: value for name, value in row.items() if value is not None}


def write_annotations(path: str | Path, queries: Iterable[Query]) -> Path:
    """Write rows as JSON lines."""
    return atomic_write(path, "".join(f"{json.dumps(to_row(query))}\n" for query in queries))
