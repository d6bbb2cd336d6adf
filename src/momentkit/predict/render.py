"""Results as text: a table for a terminal, JSON, CSV, WebVTT subtitles.

Sentences and file names are a stranger's text: each format escapes them in its own way.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Union

from rich.table import Table
from rich.text import Text

from momentkit.predict.windows import Window, best_overlap

if TYPE_CHECKING:
    from momentkit.predict.result import Result

CSV_COLUMNS = (
    "video",
    "query",
    "rank",
    "start_s",
    "end_s",
    "score",
    "not_found_probability",
    "model",
    "encoder",
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


def clock(time_s: float, decimals: int = 0) -> str:
    """Seconds as m:ss, or h:mm:ss from an hour on.

    >>> clock(75.26, 1), clock(3725)
    ('1:15.3', '1:02:05')
    """
    units = round(time_s * 10**decimals)
    whole, fraction = divmod(units, 10**decimals)
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    return f"{text}.{fraction:0{decimals}d}" if decimals else text


def one_line(text: str) -> str:
    """Text for one line of any document: white space runs become a space, other controls U+FFFD."""
    return _CONTROLS.sub("\ufffd", " ".join(text.split()))


def to_json(results: Union["Result", Sequence["Result"]]) -> str:
    """One result as an object, several as an array, indented, with a final newline."""
    if isinstance(results, Sequence):
        content: object = [result.model_dump(mode="json") for result in results]
    else:
        content = results.model_dump(mode="json")
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(results: Sequence["Result"]) -> str:
    """One row a moment; a sentence without a moment keeps one row, with the moment's columns empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for result in results:
        chance = "" if result.not_found_probability is None else f"{result.not_found_probability:.6f}"
        rows = [
            (str(rank), f"{moment.start_s:.3f}", f"{moment.end_s:.3f}", f"{moment.score:.6f}")
            for rank, moment in enumerate(result.moments, 1)
        ]
        for row in rows or [("", "", "", "")]:
            writer.writerow((result.video, result.query, *row, chance, result.model, result.encoder))
    return text.getvalue()


def to_vtt(results: Sequence["Result"]) -> str:
    """WebVTT subtitles: one cue a moment, in order of time, as the format asks."""
    cues = [(moment, result.query) for result in results for moment in result.moments]
    blocks = ["WEBVTT"]
    for moment, query in sorted(cues, key=lambda cue: (cue[0].start_s, cue[0].end_s)):
        start_ms = round(moment.start_s * 1000)
        end_ms = max(round(moment.end_s * 1000), start_ms + 1)  # a cue must not be empty
        text = one_line(query).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_vtt_time(start_ms)} --> {_vtt_time(end_ms)}\n{text} ({moment.score:.2f})")
    return "\n\n".join(blocks) + "\n"


def _vtt_time(time_ms: int) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{milliseconds:03d}"


def to_table(result: "Result", truth: Sequence[Window] | None = None) -> Table:
    """A table for a terminal: one row a moment; with `truth`, the overlap with the best true window."""
    table = Table(title=Text(one_line(result.query), style="bold"), title_justify="left")
    table.add_column("#", justify="right", style="dim")
    for name in ("start", "end", "seconds", "score"):
        table.add_column(name, justify="right")
    if truth is not None:
        table.add_column("IoU with truth", justify="right")
    for rank, moment in enumerate(result.moments, 1):
        cells = [str(rank), clock(moment.start_s, 1), clock(moment.end_s, 1)]
        cells += [f"{moment.end_s - moment.start_s:.1f}", f"{moment.score:.2f}"]
        if truth is not None:
            cells.append(f"{best_overlap(moment, truth):.2f}" if truth else "none is true")
        table.add_row(*cells, style="" if rank > 1 else "bold")
    return table


def remarks(result: "Result") -> list[str]:
    """What must be said beside the moments, one sentence each: presence, unknown words, nothing found."""
    lines = []
    if not result.moments:
        lines.append("no moment clears the threshold")
    if result.not_found_probability is not None:
        chance = result.not_found_probability
        verdict = "probably not in this video" if result.absent else "in this video"
        lines.append(f"{verdict}: {max(chance, 1 - chance):.0%} sure")
    if result.unknown_words:
        words = ", ".join(one_line(word) for word in result.unknown_words)
        lines.append(f"words the text encoder does not know, so the answer is a guess about them: {words}")
    return lines
