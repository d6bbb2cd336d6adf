"""Results as an SVG time line: true and found moments, the saliency curve, an axis, the steps to them.

Self-contained: no script, no fonts or images from elsewhere. Found moments that overlap take separate lanes.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from momentkit.predict.render import clock, one_line
from momentkit.predict.trace_svg import trace_block
from momentkit.predict.windows import Window, best_overlap, lanes, scaled, ticks

if TYPE_CHECKING:
    from momentkit.predict.result import Result

WIDTH, LEFT, RIGHT = 960, 92, 24  # pixels: the drawing, and the margins beside the time line
BAR, GAP, CURVE, HEAD, AXIS = 16, 6, 44, 34, 26
INK, MUTED, RULE, FOUND, TRUE, CURVE_INK = "#1b2430", "#56606e", "#d9dee5", "#2563eb", "#0f7b55", "#b45309"


def to_svg(results: Sequence["Result"], truth: Mapping[str, Sequence[Window]] | None = None) -> str:
    """Draw results of one video below each other.

    Args:
        results: at least one.
        truth: sentence -> true windows in seconds; a sentence it lacks is drawn without.
    """
    top, parts = 0, []
    for result in results:
        block, height = _block(result, None if truth is None else truth.get(result.query))
        parts.append(f'<g transform="translate(0 {top})">{block}</g>')
        top += height
    names = "; ".join(one_line(result.query) for result in results)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        f'role="img" style="max-width:100%;height:auto" '
        f'font-family="system-ui,-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif" font-size="12">\n'
        f"<title>Moments in {escape(one_line(results[0].video))}: {escape(names)}</title>\n"
        f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def curve_points(
    saliency: Sequence[float], clip_length_s: float, duration_s: float
) -> list[tuple[float, float]]:
    """The saliency curve as (fraction of the duration, height in [0, 1]), from border to border.

    Each clip's score stands at the middle of the clip; the ends are drawn out to the borders.
    """
    if not saliency:
        return []
    heights = scaled(saliency)
    middles = [min((clip + 0.5) * clip_length_s / duration_s, 1.0) for clip in range(len(heights))]
    return [(0.0, heights[0]), *zip(middles, heights, strict=True), (1.0, heights[-1])]


def drawn_strengths(result: "Result") -> list[float]:
    """How strongly each moment is drawn, in [0.2, 1]: by its score beside the best one's, all of them faint
    where the sentence is probably not in the video."""
    top = max((moment.score for moment in result.moments), default=0.0)
    present = 1 - (result.not_found_probability or 0.0)
    return [
        0.2 + 0.8 * present * (max(moment.score, 0.0) / top if top > 0 else 1.0) for moment in result.moments
    ]


def _block(result: "Result", truth: Sequence[Window] | None) -> tuple[str, int]:
    """One result and the height it takes."""
    parts, y = [_headline(result)], HEAD
    body_top = y
    if truth is not None:
        parts += [_label("true", y)] + [_bar(window, result, y, TRUE, 1.0, "true moment") for window in truth]
        parts += (
            [] if truth else [f'<text x="{LEFT + 8}" y="{y + 12}" fill="{MUTED}">not in this video</text>']
        )
        y += BAR + GAP
    windows = [(moment.start_s, moment.end_s) for moment in result.moments]
    rows = lanes(windows)
    parts.append(_label("found", y))
    for moment, window, row, strength in zip(
        result.moments, windows, rows, drawn_strengths(result), strict=True
    ):
        note = f"found, score {moment.score:.2f}"
        note += f", IoU {best_overlap(moment, truth):.2f}" if truth else ""
        parts.append(_bar(window, result, y + row * (BAR + GAP), FOUND, strength, note))
    y += (max(rows, default=0) + 1) * (BAR + GAP)
    parts += [_label("saliency", y + CURVE - BAR), _curve(result, y)]
    y += CURVE
    parts.insert(0, _axis(result, body_top, y))
    y += AXIS + 10
    if result.trace is not None:
        block, height = trace_block(result.trace, result.duration_s)
        parts.append(f'<g transform="translate(0 {y})">{block}</g>')
        y += height
    return "".join(parts), y


def _headline(result: "Result") -> str:
    best = result.best
    text = (
        f"{clock(best.start_s)} to {clock(best.end_s)}, score {best.score:.2f}" if best else "nothing found"
    )
    if result.absent:
        text = f"probably not in this video ({result.not_found_probability:.0%})"
    query = one_line(result.query)
    query = query if len(query) <= 80 else query[:79] + "…"
    return (
        f'<text x="16" y="22" font-size="14" font-weight="600" fill="{INK}">{escape(query)}</text>'
        f'<text x="{WIDTH - RIGHT}" y="22" text-anchor="end" fill="{MUTED}">{escape(text)}</text>'
    )


def _label(text: str, y: float) -> str:
    return f'<text x="{LEFT - 12}" y="{y + 12}" text-anchor="end" fill="{MUTED}">{text}</text>'


def _x(time_s: float, duration_s: float) -> float:
    fraction = min(max(time_s / duration_s, 0.0), 1.0)
    return LEFT + fraction * (WIDTH - LEFT - RIGHT)


def _bar(window: Window, result: "Result", y: float, colour: str, opacity: float, note: str) -> str:
    left, right = (_x(time_s, result.duration_s) for time_s in window)
    return (
        f'<rect x="{left:.1f}" y="{y}" width="{max(right - left, 2):.1f}" height="{BAR}" rx="3" '
        f'fill="{colour}" fill-opacity="{opacity:.2f}" stroke="{colour}">'
        f"<title>{clock(window[0], 1)} to {clock(window[1], 1)}, {note}</title></rect>"
    )


def _curve(result: "Result", y: float) -> str:
    points = curve_points(result.saliency, result.clip_length_s, result.duration_s)
    line = " ".join(
        f"{_x(fraction * result.duration_s, result.duration_s):.1f},{y + (1 - height) * (CURVE - 4) + 2:.1f}"
        for fraction, height in points
    )
    floor, line_style = y + CURVE, 'fill="none" stroke-width="1.8" stroke-linejoin="round"'
    return (
        f'<g fill="{CURVE_INK}" stroke="{CURVE_INK}"><polyline points="{line}" {line_style}/>'
        f'<polygon points="{LEFT},{floor} {line} {WIDTH - RIGHT},{floor}" stroke="none" fill-opacity="0.1"/>'
        "</g>"
    )


def _axis(result: "Result", top: float, bottom: float) -> str:
    marks = []
    for time_s in ticks(result.duration_s, 12):
        x = _x(time_s, result.duration_s)
        marks.append(f'<path d="M{x:.1f} {top - 4}V{bottom + 4}" stroke="{RULE}"/>')
        marks.append(
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="{MUTED}">{clock(time_s)}</text>'
        )
    rule = f'<path d="M{LEFT} {bottom + 4}H{WIDTH - RIGHT}" stroke="{MUTED}"/>'
    return "".join(marks) + rule
