"""Own data: rows from a table (CSV), subtitles (SRT, WebVTT) or JSON lines; a video, a query, windows.

CSV      a header with video, query, start, end, and where wanted duration; comma, semicolon or tab. Times are
         seconds or h:mm:ss. Rows of one video and query are one row with several windows.
SRT/VTT  each cue is a query about the film of the file's name; markup is taken off.
JSONL    objects with video, query, windows [[start, end], ...], and where wanted duration; ratings in the
         QVHighlights form (relevant_clip_ids with saliency_scores) go along.

A duration that is not given is asked of the caller, who may measure the film. qids are "<name>-<number>", so
that the text features of two files never meet.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from momentkit.core.errors import DataError
from momentkit.core.files import read_json_lines, read_lines
from momentkit.data.annotations import AnnotationReport, check_rows
from momentkit.data.row import WindowRules

Numbered = tuple[int, dict[str, Any]]  # line, fields
FILM_ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv")
_NAMES = {
    "video": ("video", "vid", "file", "film"),
    "query": ("query", "sentence", "text", "caption"),
    "start": ("start", "start_s", "begin", "from"),
    "end": ("end", "end_s", "stop", "to"),
    "duration": ("duration", "duration_s", "length"),
}
_ARROW = re.compile(r"(\S+)\s+-->\s+(\S+)")
_MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")
_TIME = re.compile(r"(?:(\d+):)?(?:(\d{1,2}):)?(\d+(?:[.,]\d+)?)")


def read_own(
    files: Iterable[str | Path],
    name: str,
    duration_of: Callable[[str], float | None],
    *,
    video: str = "",
    rules: WindowRules = WindowRules(),
) -> list[AnnotationReport]:
    """Rows of own files, a report a file; qids run on from file to file.

    Args:
        files: `.csv`, `.tsv`, `.srt`, `.vtt` or `.jsonl`.
        name: begins the qids.
        duration_of: seconds of a video whose duration the file does not give; None where nobody knows.
        video: of all rows, where the file does not say; "": the file's name, for subtitles.
        rules: what may be done with windows.

    Raises:
        DataError: a file, or a row, that cannot be used; names file and line.
    """
    reports, number = [], 0
    for file in map(Path, files):
        rows = list(_rows(file, video, duration_of))
        numbered = [
            (line, row | {"qid": f"{name}-{number + place}"}) for place, (line, row) in enumerate(rows)
        ]
        number += len(rows)
        reports.append(check_rows(file, numbered, rules))
        if reports[-1].problems:
            raise DataError(reports[-1].problems[0].message)
        if not reports[-1].queries:
            raise DataError(f"{file} holds no row")
    return reports


def seconds(text: str) -> float:
    """Seconds of "12.5", "1:02", "0:01:02,500".

    Raises:
        ValueError: something else.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text.strip()!r} is no time; 12.5, 1:02 and 0:01:02.5 are")
    first, second, last = match.groups()
    minutes = int(second or 0) + 60 * int(first or 0) if second else int(first or 0)
    return 60 * minutes + float(last.replace(",", "."))


def video_id(name: str) -> str:
    """The name of a film without folder and ending."""
    last = name.strip().replace("\\", "/").rpartition("/")[2]
    return next((last[: -len(end)] for end in FILM_ENDINGS if last.lower().endswith(end)), last)


def _rows(file: Path, video: str, duration_of: Callable[[str], float | None]) -> Iterator[Numbered]:
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise DataError(f"{file}: {', '.join(_READERS)} files are imported, got {file.suffix or 'no ending'}")
    for line, row in reader(file):
        vid = video_id(str(row.pop("video", "") or video))
        if not vid:
            raise DataError(f"{file}:{line}: no video is named; add a column, or say --video")
        duration = row.get("duration")
        duration = duration_of(vid) if duration is None else duration
        if duration is None:
            raise DataError(
                f"{file}:{line}: nothing says how long {vid!r} is; add a column duration, or name the folder "
                "of the films (--videos)"
            )
        yield line, row | {"vid": vid, "duration": duration}


def _table(file: Path) -> Iterator[Numbered]:
    text = _text(file)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    columns = {field: _column(reader.fieldnames or (), field, file) for field in _NAMES}
    merged: dict[tuple[str, str], Numbered] = {}
    try:
        for cells in reader:
            line = reader.line_num
            given = {field: (cells.get(column) or "").strip() for field, column in columns.items() if column}
            if not any(given.values()):
                continue
            window = [_time(given[bound], f"{file}:{line}: {bound}") for bound in ("start", "end")]
            key = given.get("video", ""), given["query"]
            _, row = merged.setdefault(
                key, (line, {"video": key[0], "query": key[1], "relevant_windows": []})
            )
            row["relevant_windows"].append(window)
            if given.get("duration"):
                row["duration"] = _time(given["duration"], f"{file}:{line}: duration")
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: {error}") from error
    yield from merged.values()


def _column(names: Iterable[str], field: str, file: Path) -> str | None:
    found = next((name for name in names if name and name.strip().lower() in _NAMES[field]), None)
    if found is None and field in ("query", "start", "end"):
        raise DataError(f"{file}: no column {field}; the header names {', '.join(names) or 'nothing'}")
    return found


def _subtitles(file: Path) -> Iterator[Numbered]:
    merged: dict[str, Numbered] = {}
    lines = [*enumerate(_text(file).splitlines(), 1), (0, "")]
    cue: list[str] | None = None
    start_line, window = 0, [0.0, 0.0]
    for number, line in lines:
        match = _ARROW.search(line)
        if match is not None:
            cue, start_line = [], number
            window = [_time(bound, f"{file}:{number}") for bound in match.groups()]
        elif cue is not None and line.strip():
            cue.append(_MARKUP.sub("", line).strip())
        elif cue is not None:
            if said := " ".join(filter(None, cue)):
                row = merged.setdefault(said, (start_line, {"query": said, "relevant_windows": []}))[1]
                row["relevant_windows"].append(window)
            cue = None
    for line_number, row in merged.values():
        yield line_number, row | {"video": file.stem}


def _objects(file: Path) -> Iterator[Numbered]:
    for line, row in read_json_lines(file):
        kept = dict(row)
        for field, names in (("video", ("vid",)), ("relevant_windows", ("windows",))):
            for other in names:
                if other in kept:
                    kept.setdefault(field, kept.pop(other))
        if not isinstance(kept.get("video", ""), str):
            raise DataError(f"{file}:{line}: video must be a text, got {kept['video']!r}")
        yield line, kept


def _time(text: str, where: str) -> float:
    try:
        value = seconds(text)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    if not math.isfinite(value):
        raise DataError(f"{where}: {text!r} is no time")
    return value


def _text(file: Path) -> str:
    whole = b"".join(line if line.strip() else b"\n" for line in _lines(file))
    try:
        return whole.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text: {error.reason} at byte {error.start}") from error


def _lines(file: Path) -> Iterator[bytes]:
    """All lines, the blank ones too: they end a cue."""
    last = 0
    for number, line in read_lines(file):
        yield from [b"\n"] * (number - last - 1)
        yield line
        last = number


_READERS: dict[str, Callable[[Path], Iterator[Numbered]]] = {
    ".csv": _table,
    ".tsv": _table,
    ".srt": _subtitles,
    ".vtt": _subtitles,
    ".jsonl": _objects,
}
