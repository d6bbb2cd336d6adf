"""From random to real: the spans of every denoising step below each other, and the same spans on their way.

Moved by SMIL, without a script. Where nothing moves, as on paper, the rows tell the story alone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from momentkit.predict.render import clock
from momentkit.predict.windows import Window, ticks

if TYPE_CHECKING:
    from momentkit.predict.result import Trace

WIDTH, LEFT, RIGHT = 960, 92, 24  # pixels, as in `timeline_svg`
ROW, BAR, STRIP, HEAD = 17, 9, 26, 30
ROWS, SPANS = 13, 20  # at most so many steps (the noise is one) and spans are drawn
STEP_S, HOLD_S = 0.7, 2.0  # of the animation: a step, and the answer
INK, MUTED, RULE, SPAN, NOISE = "#1b2430", "#56606e", "#dfe4ea", "#2563eb", "#b45309"
QUIET = "@media (prefers-reduced-motion:reduce),print{.moving{display:none}}"


def trace_svg(trace: "Trace", duration_s: float, aria_label: str = "from random to real") -> str:
    """The picture as an image of its own."""
    content, height = trace_block(trace, duration_s)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="trace" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{aria_label}" font-size="12">{content}</svg>'
    )


def trace_block(trace: "Trace", duration_s: float) -> tuple[str, int]:
    """The picture as a part of another one, and its height; `WIDTH` pixels wide.

    Args:
        trace: of one answer.
        duration_s: of the film; spans lie inside.
    """
    numbers = drawn_steps(len(trace.steps), ROWS)
    states = [(trace.start, *trace.steps)[number][:SPANS] for number in numbers]
    parts = [
        f"<style>{QUIET}</style>",
        f'<text x="{LEFT}" y="18" font-weight="600" fill="{INK}">From random to real</text>',
        f'<g class="moving">{_moving(states, duration_s)}</g>',
    ]
    for row, (number, spans) in enumerate(zip(numbers, states, strict=True)):
        parts.append(_row(number, spans, duration_s, HEAD + STRIP + row * ROW))
    bottom = HEAD + STRIP + len(numbers) * ROW
    return _axis(duration_s, bottom) + "".join(parts), bottom + 26


def drawn_steps(steps: int, most: int) -> list[int]:
    """Numbers of the steps that are drawn: 0 is the noise, the last is the answer, evenly spaced between.

    >>> drawn_steps(3, 13), drawn_steps(50, 6)
    ([0, 1, 2, 3], [0, 10, 20, 30, 40, 50])
    """
    count = min(steps + 1, most)
    return [round(index * steps / max(count - 1, 1)) for index in range(count)]


def _row(number: int, spans: Sequence[Window], duration_s: float, y: int) -> str:
    """One step: its spans on one line, the best one last, so that it covers the others."""
    name = f"step {number}" if number else "noise"
    bars = "".join(
        f'<rect x="{left:.1f}" y="{y + 3}" width="{width:.1f}" height="{BAR}" rx="2" {_look(index, number)}>'
        f"<title>{name}: {clock(span[0], 1)} to {clock(span[1], 1)}</title></rect>"
        for index, span in reversed(list(enumerate(spans)))
        for left, width in [_place(span, duration_s)]
    )
    return (
        f'<path d="M{LEFT} {y + ROW - 1.5}H{WIDTH - RIGHT}" stroke="{RULE}"/>'
        f'<text x="{LEFT - 14}" y="{y + 11}" text-anchor="end" font-size="11" fill="{MUTED}">{name}</text>'
        f"{bars}"
    )


def _axis(duration_s: float, bottom: int) -> str:
    return "".join(
        f'<path d="M{x:.1f} {HEAD - 8}V{bottom + 4}" stroke="{RULE}"/>'
        f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="{MUTED}">{clock(time_s)}</text>'
        for time_s in ticks(duration_s, 12)
        for x in [_place((time_s, time_s), duration_s)[0]]
    )


def _moving(states: Sequence[Sequence[Window]], duration_s: float) -> str:
    """The spans in one strip, walking through the states; and a mark beside the row they are at."""
    total_s = STEP_S * (len(states) - 1) + HOLD_S
    times = ";".join(f"{STEP_S * index / total_s:.4f}" for index in range(len(states))) + ";1"
    clockwork = f'dur="{total_s:.1f}s" repeatCount="indefinite" keyTimes="{times}"'
    parts = [
        f'<rect x="{LEFT}" y="{HEAD - 4}" width="{WIDTH - LEFT - RIGHT}" height="18" rx="4" fill="{RULE}" '
        f'fill-opacity="0.4"/>'
    ]
    for index in reversed(range(len(states[-1]))):
        places = [_place(spans[index], duration_s) for spans in states]
        lefts, widths = ([f"{place[side]:.1f}" for place in [*places, places[-1]]] for side in (0, 1))
        parts.append(
            f'<rect x="{lefts[-1]}" y="{HEAD - 2}" width="{widths[-1]}" height="14" rx="3" {_look(index, 1)}>'
            f'<animate attributeName="x" values="{";".join(lefts)}" {clockwork}/>'
            f'<animate attributeName="width" values="{";".join(widths)}" {clockwork}/></rect>'
        )
    falls = [f"0 {row * ROW}" for row in [*range(len(states)), len(states) - 1]]
    parts.append(
        f'<path d="M{LEFT - 9} {HEAD + STRIP + 3}l5 {BAR / 2}l-5 {BAR / 2}z" fill="{SPAN}" '
        f'transform="translate({falls[-1]})"><animateTransform attributeName="transform" type="translate" '
        f'values="{";".join(falls)}" {clockwork}/></path>'
    )
    return "".join(parts)


def _look(index: int, number: int) -> str:
    """The best span is strong, the others are faint; noise has a colour of its own."""
    colour, best = SPAN if number else NOISE, index == 0 and number > 0
    return f'fill="{colour}" fill-opacity="{0.9 if best else 0.16}" stroke="{colour}" stroke-opacity="0.45"'


def _place(span: Window, duration_s: float) -> tuple[float, float]:
    """Left border and width in pixels; an empty span keeps a pixel and a half."""
    left, right = (LEFT + min(max(time_s / duration_s, 0.0), 1.0) * (WIDTH - LEFT - RIGHT) for time_s in span)
    return left, max(right - left, 1.5)
