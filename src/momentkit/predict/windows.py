"""Found moments beside true ones: their overlap, lanes in which they do not hide each other, an axis.

Units   seconds throughout.
"""

from collections.abc import Sequence

from momentkit.core.types import Moment

Window = tuple[float, float]
"""Start and end in seconds."""

TICKS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)


def overlap(one: Window, other: Window) -> float:
    """Intersection over union of two windows, 0 where both are empty."""
    intersection = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    union = (one[1] - one[0]) + (other[1] - other[0]) - intersection
    return intersection / union if union > 0 else 0.0


def best_overlap(moment: Moment, truth: Sequence[Window]) -> float:
    """Overlap of a found moment with the true window it fits best; 0 where there is no true window."""
    return max((overlap((moment.start_s, moment.end_s), window) for window in truth), default=0.0)


def lanes(windows: Sequence[Window]) -> list[int]:
    """A lane for each window, the lowest in which it touches no earlier one.

    The best moments come first, so the first lane reads as the answer and the others as alternatives.

    >>> lanes([(0, 4), (2, 6), (8, 9)])
    [0, 1, 0]
    """
    taken: list[list[Window]] = []
    chosen = []
    for start_s, end_s in windows:
        free = (
            lane
            for lane, others in enumerate(taken)
            if all(end_s <= other[0] or start_s >= other[1] for other in others)
        )
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((start_s, end_s))
        chosen.append(lane)
    return chosen


def scaled(values: Sequence[float]) -> list[float]:
    """Values stretched to [0, 1] for drawing; constant values lie on 0."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


def ticks(duration_s: float, most: int) -> list[float]:
    """Round times from 0 on, at most about `most` of them."""
    step_s = next((step for step in TICKS_S if duration_s / step <= most), None)
    if step_s is None:  # days of film: whole hours, as many as fit
        step_s = 3600 * (int(duration_s / most / 3600) + 1)
    return [float(index * step_s) for index in range(int(duration_s / step_s) + 1)]
