"""Rows of prediction and ground-truth files, checked: an error names file, line and field.

Where the official program would crash, or return figures that mean nothing (numbers that are not finite,
no windows, clip ids outside the video), `UntrustedRowError` says what is wrong.

Shapes   N predicted windows   G true windows   S saliency scores   C rated clips   R raters
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import DataError, NotFiniteError, SubmissionError
from momentkit.core.files import read_json_lines, read_lines
from momentkit.metrics.overlap import Floats

QueryId = int | str
LabelledRow = tuple[str, dict[str, Any]]
"""Where a row stands ("file:line"), and the row."""

CLIP_LENGTH_S = 2  # QVHighlights; the evaluator knows no other
RATERS = 3
MAX_CLIPS = 100_000  # 55 hours; more is a mistake in `duration`
WINDOWS, SALIENCY = "pred_relevant_windows", "pred_saliency_scores"


class UntrustedRowError(SubmissionError):
    """A row that the official program crashes on, or turns into figures that mean nothing."""


@dataclass(frozen=True)
class PredictionRow:
    """One row of a prediction file.

    Attributes:
        where: "file:line".
        qid: as given; int 3 is not "3".
        windows: (N, 3) start_s, end_s, score in file order; empty where moments are not scored.
        saliency: (S,) score of each clip; empty where highlights are not scored.
    """

    where: str
    qid: QueryId
    windows: Floats
    saliency: Floats


@dataclass(frozen=True)
class TruthRow:
    """One row of a ground-truth file.

    Attributes:
        where: "file:line".
        qid: as given.
        windows: (G, 2) start_s, end_s; empty where moments are not scored.
        clips: clips of the video, int(duration / 2); 0 where highlights are not scored.
        rated_clips: (C,) indices.
        ratings: (C, 3) rating 0..4 of each rater.
    """

    where: str
    qid: QueryId
    windows: Floats
    clips: int
    rated_clips: NDArray[np.int64]
    ratings: Floats


NO_WINDOWS = np.zeros((0, 3))
NO_SALIENCY = np.zeros(0)
NO_CLIPS = np.zeros(0, dtype=np.int64)
NO_RATINGS = np.zeros((0, RATERS))


def read_rows(path: str | Path) -> list[LabelledRow]:
    """All rows of a JSON-lines file, with "file:line" of each.

    Raises:
        SubmissionError: unreadable, not JSON lines, or no row at all.
        UntrustedRowError: NaN or Infinity in a row.
    """
    try:
        rows = [(f"{path}:{line}", row) for line, row in read_json_lines(path)]
    except NotFiniteError as error:
        raise UntrustedRowError(str(error)) from error
    except DataError as error:
        raise SubmissionError(str(error)) from error
    if not rows:
        raise SubmissionError(f"{path} has no rows; a row is a JSON object on a line of its own")
    return rows


def read_list(path: str | Path) -> list[LabelledRow]:
    """Rows of a file that is one JSON list of objects (plain or gzip), each with "file: entry n".

    Raises:
        SubmissionError: unreadable, not JSON, or no list of objects.
        UntrustedRowError: NaN or Infinity.
    """

    def refuse(constant: str) -> float:
        raise UntrustedRowError(f"{path}: {constant} is not a number that can be used")

    try:
        entries = json.loads(b"".join(line for _, line in read_lines(path)), parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        raise SubmissionError(f"{path}: not JSON: {error}") from error
    except DataError as error:
        raise error if isinstance(error, SubmissionError) else SubmissionError(str(error)) from error
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise SubmissionError(f"{path}: must be a JSON list of at least one object")
    return [(f"{path}: entry {number}", entry) for number, entry in enumerate(entries, 1)]


def label_rows(rows: Iterable[dict[str, Any]], kind: str) -> list[LabelledRow]:
    """Rows in memory, each with a name such as "prediction 3" that stands for file and line.

    Raises:
        SubmissionError: there are none.
    """
    labelled = [(f"{kind} {number}", row) for number, row in enumerate(rows, 1)]
    if not labelled:
        raise SubmissionError(f"there is no {kind} to score")
    return labelled


def prediction_rows(rows: list[LabelledRow]) -> list[PredictionRow]:
    """Check prediction rows. The first row decides what is scored: moments, highlights or both.

    Raises:
        SubmissionError: names row and field.
        UntrustedRowError: a number that is not finite, a row without windows or without scores.
    """
    first = rows[0][1]
    if WINDOWS not in first and SALIENCY not in first:
        raise SubmissionError(
            f"{rows[0][0]}: has neither {WINDOWS} nor {SALIENCY}; there is nothing to score"
        )
    with_windows, with_saliency = WINDOWS in first, SALIENCY in first
    return [
        PredictionRow(
            where,
            query_id(where, row),
            number_table(where, row, WINDOWS, 3) if with_windows else NO_WINDOWS,
            number_list(where, row, SALIENCY) if with_saliency else NO_SALIENCY,
        )
        for where, row in rows
    ]


def truth_rows(rows: list[LabelledRow], *, moments: bool, highlights: bool) -> list[TruthRow]:
    """Check ground-truth rows, as far as they are needed.

    Raises:
        SubmissionError: names row and field.
        UntrustedRowError: no true window, a clip id outside the video.
    """
    checked = []
    for where, row in rows:
        windows = number_table(where, row, "relevant_windows", 2) if moments else NO_WINDOWS[:, :2]
        rating = _ratings(where, row) if highlights else (0, NO_CLIPS, NO_RATINGS)
        checked.append(TruthRow(where, query_id(where, row), windows, *rating))
    return checked


def _ratings(where: str, row: dict[str, Any]) -> tuple[int, NDArray[np.int64], Floats]:
    duration_s = field(where, row, "duration")
    if not _all_numbers([duration_s]) or not 0 <= duration_s <= MAX_CLIPS * CLIP_LENGTH_S:
        limit_s = MAX_CLIPS * CLIP_LENGTH_S
        raise UntrustedRowError(f"{where}: duration: must be seconds in [0, {limit_s}], got {duration_s!r}")
    clips = int(duration_s / CLIP_LENGTH_S)
    ids = field(where, row, "relevant_clip_ids")
    if not isinstance(ids, list) or not set(map(type, ids)) <= {int}:
        raise SubmissionError(
            f"{where}: relevant_clip_ids: must be a list of whole numbers, got {_short(ids)}"
        )
    if outside := [i for i in ids if not 0 <= i < clips]:
        raise UntrustedRowError(
            f"{where}: relevant_clip_ids: {outside[0]} is outside the video, whose {duration_s:g} s have "
            f"{clips} clips of {CLIP_LENGTH_S} s"
        )
    # A video without a highlight has empty lists, which `number_table` refuses.
    empty = not ids and row.get("saliency_scores") == []
    ratings = NO_RATINGS if empty else number_table(where, row, "saliency_scores", RATERS)
    if len(ratings) != len(ids):
        raise SubmissionError(
            f"{where}: saliency_scores: {len(ratings)} entries for {len(ids)} relevant_clip_ids"
        )
    return clips, np.array(ids, dtype=np.int64), ratings


def field(where: str, row: dict[str, Any], name: str) -> Any:
    """A field that must be there."""
    if name not in row:
        raise SubmissionError(
            f"{where}: {name}: is missing; the row has {', '.join(map(str, row)) or 'no field'}"
        )
    return row[name]


def query_id(where: str, row: dict[str, Any], name: str = "qid") -> QueryId:
    """A whole number or a string, kept as it is."""
    value = field(where, row, name)
    if type(value) not in (int, str):
        raise SubmissionError(f"{where}: {name}: must be a whole number or a string, got {_short(value)}")
    return value


def number_list(where: str, row: dict[str, Any], name: str) -> Floats:
    """A list of at least one finite number, (S,) float64."""
    values = field(where, row, name)
    if not isinstance(values, list) or not _all_numbers(values):
        raise SubmissionError(f"{where}: {name}: must be a list of numbers, got {_short(values)}")
    if not values:
        raise UntrustedRowError(f"{where}: {name}: is empty; at least one number is needed")
    return _finite(where, name, values)


def number_table(where: str, row: dict[str, Any], name: str, columns: int) -> Floats:
    """A list of at least one list of `columns` finite numbers, (N, columns) float64."""
    values = field(where, row, name)
    if not isinstance(values, list) or not set(map(type, values)) <= {list}:
        raise SubmissionError(
            f"{where}: {name}: must be a list of lists of {columns} numbers, got {_short(values)}"
        )
    if not values:
        raise UntrustedRowError(f"{where}: {name}: is empty; at least one entry is needed")
    if set(map(len, values)) != {columns}:
        wrong = next(value for value in values if len(value) != columns)
        raise SubmissionError(f"{where}: {name}: each entry must have {columns} numbers, got {_short(wrong)}")
    flat = list(chain.from_iterable(values))
    if not _all_numbers(flat):
        raise SubmissionError(f"{where}: {name}: must hold numbers only, got {_short(_first_other(flat))}")
    return _finite(where, name, flat).reshape(-1, columns)


def _finite(where: str, name: str, values: list[Any]) -> Floats:
    try:
        array = np.array(values, dtype=np.float64)
        # The sum is finite only if every number is; of a short list it costs a tenth of numpy's check.
        finite = isfinite(sum(values)) or bool(np.isfinite(array).all())
    except OverflowError:  # a whole number beyond float64
        finite = False
    if not finite:
        raise UntrustedRowError(f"{where}: {name}: holds a number that is not finite (NaN, or too large)")
    return array


def _all_numbers(values: list[Any]) -> bool:
    """bool is refused: JSON's true is no number."""
    return set(map(type, values)) <= {int, float}


def _first_other(values: list[Any]) -> Any:
    return next(value for value in values if type(value) not in (int, float))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
