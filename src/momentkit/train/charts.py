"""Small charts as SVG: grouped bars, a reliability curve, pairs of dots. Self-contained, without script."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from momentkit.metrics.calibration import Calibration

INK, MUTED, RULE, GRID = "#1b2430", "#56606e", "#d9dee5", "#eceff3"
COLOURS = ("#2563eb", "#b6bfca", "#b45309", "#0f7b55")  # of series, the first is the model's
FONT = 'font-family="system-ui,-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif" font-size="12"'


@dataclass(frozen=True)
class Pair:
    """A figure that we and a paper have.

    Attributes:
        group: the row it belongs to.
        name: of the figure.
        ours, deviation, paper: percent.
    """

    group: str
    name: str
    ours: float
    deviation: float
    paper: float


def bars(title: str, groups: Sequence[tuple[str, Sequence[float | None]]], series: Sequence[str]) -> str:
    """Horizontal bars from 0 to 100, a group a label, a bar a series; None is drawn as a dash.

    Args:
        title: above the chart.
        groups: label and values.
        series: their names, as many as values a group.
    """
    left, bar, gap, top = 120, 13, 12, 54
    width = 460 if len(series) < 3 else 620  # the legend takes one line
    step = bar * len(series) + gap
    height = top + step * len(groups) + 22
    scale = (width - left - 44) / 100
    parts = [_text(0, 14, title, weight=600, size=14), _legend(series)]
    for percent in (0, 25, 50, 75, 100):
        x = left + percent * scale
        parts.append(f'<path d="M{x:.1f} {top - 6}V{height - 18}" stroke="{GRID}"/>')
        parts.append(_text(x, height - 4, str(percent), anchor="middle", fill=MUTED, size=11))
    for row, (label, values) in enumerate(groups):
        y = top + row * step
        parts.append(_text(left - 8, y + (step - gap) / 2 + 4, label, anchor="end"))
        for index, value in enumerate(values):
            at = y + index * bar
            said = "-" if value is None else f"{value:.1f}"
            note = escape(f"{series[index]}, {label}: {said}")
            length = 0.0 if value is None else max(value, 0.0) * scale
            parts.append(
                f'<rect x="{left}" y="{at}" width="{length:.1f}" height="{bar - 2}" rx="2" '
                f'fill="{COLOURS[index]}"><title>{note}</title></rect>'
            )
            parts.append(_text(left + length + 5, at + 10, said, fill=MUTED, size=11))
    return _svg(width, height, title, parts)


def reliability(curve: Calibration, title: str = "") -> str:
    """Share of right answers over confidence; below, how many answers each bin has.

    Args:
        curve: what is drawn.
        title: above it; by default from which overlap on an answer is right.
    """
    left, top, side, strip = 40, 44, 260, 46
    width, height = left + side + 20, top + side + strip + 44
    title = title or f"Right from an overlap of {curve.threshold}"
    most = max(part.answers for part in curve.bins)
    floor = top + side
    parts = [
        _text(0, 14, title, weight=600, size=14),
        _text(0, 32, f"error {100 * curve.error:.1f}, {_bias(curve.bias)}", fill=MUTED),
        f'<rect x="{left}" y="{top}" width="{side}" height="{side}" fill="none" stroke="{RULE}"/>',
        f'<path d="M{left} {floor}L{left + side} {top}" stroke="{MUTED}" stroke-dasharray="4 4"/>',
    ]
    for tick in (0, 0.5, 1):
        parts.append(
            _text(left + tick * side, height - 22, f"{tick:g}", anchor="middle", fill=MUTED, size=11)
        )
        parts.append(_text(left - 6, floor - tick * side + 4, f"{tick:g}", anchor="end", fill=MUTED, size=11))
    parts.append(_text(left + side / 2, height - 6, "confidence", anchor="middle", fill=MUTED))
    points = []
    for part in curve.bins:
        x, y = left + part.confidence * side, floor - part.right * side
        points.append(f"{x:.1f},{y:.1f}")
        note = f"confidence {part.confidence:.2f}, right {part.right:.2f}, {part.answers} answers"
        parts.append(f'<path d="M{x:.1f} {y:.1f}V{floor - part.confidence * side:.1f}" stroke="#f0a58f"/>')
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLOURS[0]}"><title>{note}</title></circle>'
        )
        tall = (strip - 8) * part.answers / most
        parts.append(
            f'<rect x="{left + part.low * side + 1:.1f}" y="{floor + strip - tall:.1f}" '
            f'width="{(part.high - part.low) * side - 2:.1f}" height="{tall:.1f}" fill="{COLOURS[1]}">'
            f"<title>{note}</title></rect>"
        )
    parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{COLOURS[0]}"/>')
    return _svg(width, height, title, parts)


def dumbbells(pairs: Sequence[Pair], title: str) -> str:
    """A line a figure: the paper's as a ring, ours as a dot with its deviation, the difference at the end."""
    left, row, head, width = 90, 20, 26, 640
    scale = (width - left - 70) / 100
    parts = [
        _text(0, 16, title, weight=600, size=14),
        _text(width, 16, "○ paper   ● ours", anchor="end", fill=MUTED),
    ]
    y, group = 30, ""
    for pair in pairs:
        if pair.group != group:
            y, group = y + head, pair.group
            parts.append(_text(0, y - 4, group, weight=600))
        middle = y + row / 2
        ours, paper = left + pair.ours * scale, left + pair.paper * scale
        spread = pair.deviation * scale
        colour = COLOURS[3] if pair.ours >= pair.paper else COLOURS[2]
        parts += [
            f'<path d="M{left} {middle}H{left + 100 * scale:.1f}" stroke="{GRID}"/>',
            _text(left - 8, middle + 4, pair.name, anchor="end", fill=MUTED),
            f'<path d="M{ours:.1f} {middle}H{paper:.1f}" stroke="{colour}" stroke-width="2"/>',
            f'<path d="M{ours - spread:.1f} {middle}H{ours + spread:.1f}" stroke="{INK}" stroke-width="5" '
            'stroke-opacity="0.3"/>',
            f'<circle cx="{paper:.1f}" cy="{middle}" r="4.5" fill="#ffffff" stroke="{INK}"/>',
            f'<circle cx="{ours:.1f}" cy="{middle}" r="4.5" fill="{colour}"/>',
            _text(width, middle + 4, f"{pair.ours - pair.paper:+.2f}", anchor="end", fill=colour),
        ]
        y += row
    if not pairs:
        parts.append(_text(0, 48, "no figure is both printed and measured", fill=MUTED))
    return _svg(width, y + 30, title, parts)


def _bias(bias: float) -> str:
    if abs(bias) < 0.005:
        return "sure as it should be"
    return f"too {'sure' if bias > 0 else 'unsure'} by {100 * abs(bias):.1f} points on average"


def _legend(series: Sequence[str]) -> str:
    x, parts = 0.0, []
    for name, colour in zip(series, COLOURS, strict=False):
        parts.append(f'<rect x="{x:.0f}" y="26" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(_text(x + 14, 35, name, fill=MUTED))
        x += 30 + 6.4 * len(name)
    return "".join(parts)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    fill: str = INK,
    weight: int = 400,
    size: int = 12,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}" '
        f'font-size="{size}">{escape(text)}</text>'
    )


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" style="max-width:100%;height:auto" {FONT}>\n'
        f'<title>{escape(title)}</title>\n<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
