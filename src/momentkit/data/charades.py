"""Charades-STA in its first form: `VIDEO START END##sentence.`, with the lengths of the videos beside it.

Source   2D-TAN's reader: ends cut to the length, rows without length dropped. What is left are the rows of
         `charades_sta_{train,test}_tvr_format.jsonl`, numbered from 0 over both files.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from momentkit.core.errors import DataError
from momentkit.core.files import read_lines
from momentkit.data.annotations import AnnotationReport, check_rows
from momentkit.data.row import WindowRules

FIRST_TEST_QID = 12404
_LINE = re.compile(r"(\S+) (-?[\d.]+) (-?[\d.]+)##(.+)")


def read_lengths(path: str | Path) -> dict[str, float]:
    """Video -> seconds, from a table whose first row names its columns.

    Args:
        path: comma-separated, with a column "video_id" or "id" and one "length_seconds" or "length", as in
            `Charades_v1_train.csv` (its other columns must then not hold commas).

    Raises:
        DataError: a column is missing or a length is no number; names file and line.
    """
    lines = ((number, line.decode("utf-8-sig").strip().split(",")) for number, line in read_lines(path))
    _, names = next(lines, (0, []))
    name = next((names.index(column) for column in ("video_id", "id") if column in names), None)
    length = next((names.index(column) for column in ("length_seconds", "length") if column in names), None)
    if name is None or length is None:
        raise DataError(f"{path}: columns video_id and length_seconds are wanted, got {', '.join(names)}")
    lengths_s = {}
    for number, cells in lines:
        try:
            lengths_s[cells[name]] = float(cells[length])
        except (ValueError, IndexError) as error:
            raise DataError(f"{path}:{number}: length_seconds is not a number: {','.join(cells)}") from error
    return lengths_s


def read_text_form(
    path: str | Path, lengths_s: Mapping[str, float], *, first_qid: int = 0
) -> AnnotationReport:
    """Rows of `charades_sta_{train,test}.txt`: ends cut to the video, rows without length dropped, counted.

    Args:
        path: the file, plain or gzip.
        lengths_s: duration of each video.
        first_qid: number of the first row kept; `FIRST_TEST_QID` for the test file.

    Raises:
        DataError: a line of another form, or a video of unknown length; names file and line.
    """
    rules = WindowRules(clip_windows=True, drop_bad_windows=True)
    report = check_rows(path, _rows(path, lengths_s), rules)
    numbered = (replace(query, qid=first_qid + number) for number, query in enumerate(report.queries))
    return replace(report, queries=tuple(numbered))


def _rows(path: str | Path, lengths_s: Mapping[str, float]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_lines(path):
        match = _LINE.fullmatch(line.decode("utf-8-sig").strip())
        if match is None:
            raise DataError(f"{path}:{number}: `VIDEO START END##sentence.` is wanted, got {line[:60]!r}")
        video, start, end, sentence = match.groups()
        if video not in lengths_s:
            raise DataError(f"{path}:{number}: the length of video {video!r} is not in the table")
        try:
            window = [float(start), float(end)]
        except ValueError as error:
            raise DataError(f"{path}:{number}: {start} and {end} are not both numbers") from error
        row = {"qid": number, "query": sentence, "vid": video, "duration": lengths_s[video]}
        yield number, row | {"relevant_windows": [window]}
