"""One self-contained HTML page: the film, the sentences asked, time lines with true and found moments.

The page reaches for nothing outside itself (its content policy forbids it), holds the film when it is small
enough, and shows every time line without a script; the script adds the player's play head and switching.
The markup is here, its looks and behaviour are files under `assets/report/`.
"""

import base64
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from momentkit.core.errors import MomentkitError
from momentkit.core.files import atomic_write, read_bytes
from momentkit.core.types import Moment
from momentkit.predict.render import clock, one_line, remarks
from momentkit.predict.timeline_svg import curve_points, drawn_strengths
from momentkit.predict.trace_svg import trace_svg
from momentkit.predict.windows import Window, best_overlap, lanes, ticks

if TYPE_CHECKING:
    from momentkit.predict.result import Result

MAX_EMBEDDED_BYTES = 30 * 1024**2
MEDIA_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm"}
_MARK = re.compile(r"\{\{(\w+)\}\}")


def save_report(
    results: Sequence["Result"],
    path: str | Path,
    film: str | Path | None = None,
    truth: Mapping[str, Sequence[Window]] | None = None,
) -> Path:
    """Write one page for several sentences about one video.

    Args:
        results: at least one, in the order of their chips.
        path: the HTML file.
        film: the video; embedded up to `MAX_EMBEDDED_BYTES`, above that referenced beside the page.
        truth: sentence -> true windows in seconds; a sentence with an empty list is known not to occur.

    Raises:
        MomentkitError: no result, results of several videos, a film that cannot be read, an unwritable path.
    """
    if not results:
        raise MomentkitError("a report needs at least one result, got none")
    if len(names := {result.video for result in results}) > 1:
        raise MomentkitError(f"a report shows one video, got {len(names)}: {', '.join(sorted(names)[:3])}")
    source = None if film is None else _film_source(Path(film), Path(path).parent)
    return atomic_write(path, to_html(results, source, truth))


def to_html(
    results: Sequence["Result"],
    source: str | None = None,
    truth: Mapping[str, Sequence[Window]] | None = None,
) -> str:
    """The page as text; `source` is the address of the film for the player, None for a page without one."""
    known = [None if truth is None else truth.get(result.query) for result in results]
    rows = [(index, result, known[index]) for index, result in enumerate(results)]
    script = _asset("script.js")
    values = {
        "title": escape(one_line(results[0].video)),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "style": _asset("style.css"),
        "facts": _facts(results),
        "player": _player(source, results[0]),
        "chips": "".join(_chip(*row) for row in rows),
        "panels": "".join(_panel(*row) for row in rows),
        "layout": "with-film" if source else "without-film",
    }
    return _MARK.sub(lambda mark: values[mark[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return (files("momentkit") / "assets" / "report" / name).read_text(encoding="utf-8")


def _film_source(film: Path, folder: Path) -> str:
    """A data address for a small film a browser can play, else a relative one."""
    media_type = MEDIA_TYPES.get(film.suffix.lower())
    if media_type and film.is_file() and film.stat().st_size <= MAX_EMBEDDED_BYTES:
        content = base64.b64encode(read_bytes(film, MAX_EMBEDDED_BYTES)).decode()
        return f"data:{media_type};base64,{content}"
    if not film.is_file():
        raise MomentkitError(f"cannot put {film} into the report: there is no such file")
    return quote(Path(os.path.relpath(film.resolve(), folder.resolve())).as_posix())


def _facts(results: Sequence["Result"]) -> str:
    first = results[0]
    sentences = f"{len(results)} sentence{'s' if len(results) > 1 else ''}"
    facts = (clock(first.duration_s), sentences, f"model {first.model}", f"encoder {first.encoder}")
    return "".join(f"<li>{escape(one_line(fact))}</li>" for fact in facts)


def _player(source: str | None, result: "Result") -> str:
    if source is None:
        return ""
    return (
        f'<figure class="player"><video id="film" controls playsinline preload="metadata" '
        f'src="{escape(source)}" aria-label="{escape(one_line(result.video))}"></video>'
        f'<figcaption id="caption" aria-live="polite"></figcaption></figure>'
    )


def _chip(index: int, result: "Result", truth: Sequence[Window] | None) -> str:
    word, kind = _verdict(result, truth)
    time = f"{clock(result.best.start_s)} – {clock(result.best.end_s)}" if result.best else ""
    time = "" if result.absent else time
    return (
        f'<a class="chip" id="chip-{index}" href="#panel-{index}"><span class="ask">'
        f'{escape(one_line(result.query))}</span><span class="answer">{time}</span>'
        f'<span class="tag {kind}">{escape(word)}</span></a>'
    )


def _verdict(result: "Result", truth: Sequence[Window] | None) -> tuple[str, str]:
    """A few words on the answer, and their colour: against the truth where it is known."""
    if truth is not None and not truth:
        if result.absent or not result.best:
            return "not in the film: right", "good"
        return "not in the film", "bad" if result.not_found_probability is not None else "plain"
    if result.absent:
        return f"not in this film: {result.not_found_probability:.0%} sure", "bad" if truth else "plain"
    if not result.best:
        return "nothing found", "bad" if truth else "plain"
    if truth:
        fit = best_overlap(result.best, truth)
        return f"IoU {fit:.2f}", "good" if fit >= 0.5 else "bad"
    return f"score {result.best.score:.2f}", "plain"


def _panel(index: int, result: "Result", truth: Sequence[Window] | None) -> str:
    notes = "".join(f"<p class='note'>{escape(line[:1].upper() + line[1:])}.</p>" for line in remarks(result))
    return (
        f'<section class="panel" id="panel-{index}" data-duration="{result.duration_s:.3f}" '
        f'aria-label="{escape(one_line(result.query))}"><h2>{escape(one_line(result.query))}</h2>{notes}'
        f'<div class="board"><div class="names">{_names(result, truth)}</div>'
        f'<div class="tracks">{_grid(result)}{_true_track(result, truth)}{_found_track(result, truth)}'
        f'{_curve(result)}<div class="head" hidden></div></div></div>'
        f"{_trace(result)}{_table(result, truth)}</section>"
    )


def _names(result: "Result", truth: Sequence[Window] | None) -> str:
    rows = max(lanes([(m.start_s, m.end_s) for m in result.moments]), default=0) + 1
    true = '<span class="name">True</span>' if truth is not None else ""
    found = f'<span class="name" style="--rows:{rows}">Found</span>'
    return f'{true}{found}<span class="name">Saliency</span>'


def _grid(result: "Result") -> str:
    marks = ticks(result.duration_s, 10)
    return (
        '<div class="axis" aria-hidden="true">'
        + "".join(
            f'<span class="tick" style="left:{_percent(time_s, result)}%"><i>{clock(time_s)}</i></span>'
            for time_s in marks
        )
        + "</div>"
    )


def _percent(time_s: float, result: "Result") -> str:
    return f"{100 * min(max(time_s / result.duration_s, 0.0), 1.0):.3f}"


def _bar(kind: str, window: Window, result: "Result", label: str, style: str = "", data: str = "") -> str:
    width = f"{100 * max(window[1] - window[0], 0.0) / result.duration_s:.3f}"
    return (
        f'<button type="button" class="bar {kind}" data-start="{window[0]:.3f}" data-end="{window[1]:.3f}" '
        f'{data} style="left:{_percent(window[0], result)}%;width:{width}%;{style}" title="{label}" '
        f'aria-label="{label}"></button>'
    )


def _true_track(result: "Result", truth: Sequence[Window] | None) -> str:
    if truth is None:
        return ""
    bars = "".join(_bar("true", w, result, f"true moment, {_span(w)}") for w in truth)
    return f'<div class="track">{bars or "<em>not in this film</em>"}</div>'


def _found_track(result: "Result", truth: Sequence[Window] | None) -> str:
    windows = [(moment.start_s, moment.end_s) for moment in result.moments]
    rows, strengths = lanes(windows), drawn_strengths(result)
    bars = []
    for moment, window, row, strength in zip(result.moments, windows, rows, strengths, strict=True):
        label = f"found, {_span(window)}, score {moment.score:.2f}"
        label += f", IoU {best_overlap(moment, truth):.2f}" if truth else ""
        style = f"--row:{row};--strength:{strength:.2f}"
        bars.append(_bar("found", window, result, label, style, f'data-score="{moment.score:.2f}"'))
    content = "".join(bars) or "<em>nothing</em>"
    return f'<div class="track" style="--rows:{max(rows, default=0) + 1}">{content}</div>'


def _span(window: Window) -> str:
    return f"{clock(window[0], 1)} to {clock(window[1], 1)}"


def _curve(result: "Result") -> str:
    points = curve_points(result.saliency, result.clip_length_s, result.duration_s)
    line = " ".join(f"{1000 * fraction:.1f},{96 - 92 * height:.1f}" for fraction, height in points)
    return (
        '<svg class="curve" viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" '
        'aria-label="saliency of each clip, stretched to the height of the strip">'
        f'<polygon points="0,100 {line} 1000,100"/><polyline points="{line}"/></svg>'
    )


def _trace(result: "Result") -> str:
    return "" if result.trace is None else trace_svg(result.trace, result.duration_s)


def _table(result: "Result", truth: Sequence[Window] | None) -> str:
    if not result.moments:
        return ""
    fit = '<th scope="col">IoU with truth</th>' if truth else ""
    rows = "".join(_row(rank, moment, truth) for rank, moment in enumerate(result.moments, 1))
    return (
        '<table><thead><tr><th scope="col">#</th><th scope="col">Moment</th><th scope="col">Length</th>'
        f'<th scope="col">Score</th>{fit}</tr></thead><tbody>{rows}</tbody></table>'
    )


def _row(rank: int, moment: Moment, truth: Sequence[Window] | None) -> str:
    window = (moment.start_s, moment.end_s)
    fit = f"<td>{best_overlap(moment, truth):.2f}</td>" if truth else ""
    width = f"{100 * min(max(moment.score, 0.0), 1.0):.1f}"
    meter = f'<span class="meter" aria-hidden="true"><i style="width:{width}%"></i></span>'
    return (
        f"<tr><td>{rank}</td><td>"
        f'<button type="button" class="play" data-start="{window[0]:.3f}" '
        f'data-end="{window[1]:.3f}">{_span(window)}</button></td><td>{window[1] - window[0]:.1f} s</td>'
        f"<td>{meter}{moment.score:.2f}</td>{fit}</tr>"
    )
