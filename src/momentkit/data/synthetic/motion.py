"""Where every actor is at every time: poses from planted events, pure arithmetic.

Periodic actions start and end at rest and at full swing, so their borders show in the picture.

Shapes   A actors   N times   6 = x, y, size, tilt_rad, opacity, stretch (1 = none; > 1 tall and thin)
"""

import numpy as np
from numpy.typing import NDArray

from momentkit.data.synthetic.world import RADIUS, Event, Pose, Scene

Array = NDArray[np.float64]
X, Y, SIZE, TILT, OPACITY, STRETCH = range(6)
APPROACH_S = 0.8
"""An interaction's walk to its place and back, part of the event."""
CHASE_X, CHASE_Y = 0.52, 0.29  # half axes of the track, heights
_CHASE_RATE, _CHASE_GAP = 0.9, 0.85  # rad/s, rad


def poses(scene: Scene, times_s: Array) -> Array:
    """Poses of a scene's cast.

    Args:
        times_s: N times in seconds of the film, any order.

    Returns:
        (A, N, 6) float64.
    """
    result_AN6 = np.stack([np.repeat(_row(pose)[None], len(times_s), 0) for pose in scene.entry])
    for event in scene.events:
        during = (times_s >= event.start_s) & (times_s < event.end_s)
        after = times_s >= event.end_s
        time_s = times_s[during] - event.start_s
        result_AN6[event.actor, after] = _row(event.finish)
        if event.other is None:
            result_AN6[event.actor, during] = _solo(event, time_s)
            continue
        assert event.other_finish is not None
        result_AN6[event.other, after] = _row(event.other_finish)
        first, second = _INTERACTIONS[event.action](event, time_s)
        result_AN6[event.actor, during], result_AN6[event.other, during] = first, second
    return result_AN6


def _row(pose: Pose) -> Array:
    return np.array([pose.x, pose.y, pose.size, pose.tilt_rad, pose.opacity, 1.0])


def _between(begin: Pose, finish: Pose, share: Array) -> Array:
    return _row(begin) + (_row(finish) - _row(begin)) * share[:, None]


def _ramp(share: Array) -> Array:
    """0..1 at an even pace but for a short start and stop."""
    edge = 0.06
    inside = (share - edge / 2) / (1 - edge)
    start = share**2 / (2 * edge * (1 - edge))
    stop = 1 - (1 - share) ** 2 / (2 * edge * (1 - edge))
    return np.where(share < edge, start, np.where(share > 1 - edge, stop, inside))


def _smooth(share: Array) -> Array:
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)


def _solo(event: Event, time_s: Array) -> Array:
    share = time_s / event.length_s
    rows_N6 = _between(event.begin, event.finish, _ramp(share))
    turns = share * event.cycles
    swing = np.sin(2 * np.pi * turns)
    match event.action:
        case "jump":
            height = 4 * (turns % 1) * (1 - turns % 1)
            rows_N6[:, Y] -= 0.17 * height
            rows_N6[:, STRETCH] = 0.84 + 0.3 * np.sqrt(height)
        case "spin":
            rows_N6[:, TILT] += event.turn * 2 * np.pi * turns
        case "blink":
            rows_N6[:, OPACITY] *= 0.55 + 0.45 * np.cos(2 * np.pi * turns)
        case "shake":
            rows_N6[:, X] += 0.035 * np.sin(2 * np.pi * 5.3 * time_s)
            rows_N6[:, TILT] += 0.22 * np.sin(2 * np.pi * 4.6 * time_s)
        case "loop":
            rows_N6[:, X] += 0.13 * event.turn * swing
            rows_N6[:, Y] -= 0.13 * (1 - np.cos(2 * np.pi * turns))
        case "sway":
            rows_N6[:, X] += 0.15 * event.turn * swing
            rows_N6[:, TILT] += 0.15 * event.turn * np.cos(2 * np.pi * turns) * _smooth(8 * share)
        case _:
            pass  # moves, growth, tilts and fades are the way from `begin` to `finish`
    return rows_N6


def _ends(event: Event, path_N6: Array, begin: Pose, finish: Pose, time_s: Array) -> Array:
    """Lead from the rest into a path and out again."""
    approach_s = min(APPROACH_S, event.length_s / 3)
    into = _smooth(time_s / approach_s)[:, None]
    out = _smooth((event.length_s - time_s) / approach_s)[:, None]
    return _row(finish) * (1 - out) + (_row(begin) * (1 - into) + path_N6 * into) * out


def _still(pose: Pose, count: int) -> Array:
    return np.repeat(_row(pose)[None], count, 0)


def _pair(event: Event) -> tuple[Pose, Pose]:
    assert event.other_begin is not None and event.other_finish is not None
    return event.other_begin, event.other_finish


def contact(one: Pose, other: Pose) -> float:
    """Distance of two centres that touch, in heights."""
    return 0.92 * RADIUS * (one.size + other.size)


def _chase(event: Event, time_s: Array) -> tuple[Array, Array]:
    begin, finish = _pair(event)
    angle = event.phase_rad + event.turn * _CHASE_RATE * time_s
    rows = []
    for lead, (start, end) in ((0.0, (event.begin, event.finish)), (_CHASE_GAP, (begin, finish))):
        path_N6 = _still(start, len(time_s))
        path_N6[:, X] = 8 / 9 + CHASE_X * np.cos(angle + event.turn * lead)
        path_N6[:, Y] = 0.5 + CHASE_Y * np.sin(angle + event.turn * lead)
        rows.append(_ends(event, path_N6, start, end, time_s))
    return rows[0], rows[1]


def _push(event: Event, time_s: Array) -> tuple[Array, Array]:
    begin, finish = _pair(event)
    approach_s = min(APPROACH_S, event.length_s / 3)
    share = _ramp(np.clip((time_s - approach_s) / (event.length_s - approach_s), 0, 1))
    other_N6 = _between(begin, finish, share)
    into = _smooth(time_s / approach_s)
    actor_N6 = _still(event.begin, len(time_s))
    behind_x = other_N6[:, X] - event.turn * contact(event.begin, begin)
    actor_N6[:, X] += (behind_x - event.begin.x) * into
    actor_N6[:, Y] += (begin.y - event.begin.y) * into
    return actor_N6, other_N6


def _bump(event: Event, time_s: Array) -> tuple[Array, Array]:
    begin, finish = _pair(event)
    gap = 0.24 * np.abs(np.cos(np.pi * event.cycles * time_s / event.length_s))
    actor_N6, other_N6 = _still(event.begin, len(time_s)), _between(begin, finish, np.zeros(len(time_s)))
    actor_N6[:, X] = begin.x + event.turn * (contact(event.begin, begin) + gap)
    actor_N6[:, Y] = begin.y
    hit = np.clip(1 - gap / 0.12, 0, 1)
    other_N6[:, X] -= event.turn * 0.05 * hit
    other_N6[:, TILT] -= event.turn * 0.18 * hit
    return _ends(event, actor_N6, event.begin, event.finish, time_s), other_N6


def _orbit(event: Event, time_s: Array) -> tuple[Array, Array]:
    begin, _ = _pair(event)
    angle = event.phase_rad + event.turn * 2 * np.pi * event.cycles * time_s / event.length_s
    path_N6 = _still(event.begin, len(time_s))
    path_N6[:, X] = begin.x + 0.33 * np.cos(angle)
    path_N6[:, Y] = begin.y + 0.25 * np.sin(angle)
    actor_N6 = _ends(event, path_N6, event.begin, event.finish, time_s)
    return actor_N6, _still(begin, len(time_s))


def _swap(event: Event, time_s: Array) -> tuple[Array, Array]:
    begin, finish = _pair(event)
    share = _ramp(time_s / event.length_s)
    way = np.array([finish.x - begin.x, finish.y - begin.y])
    side = np.array([-way[1], way[0]]) / max(float(np.hypot(*way)), 1e-6)
    bow = 0.17 * event.turn * np.sin(np.pi * share)[:, None] * side
    actor_N6, other_N6 = _between(event.begin, event.finish, share), _between(begin, finish, share)
    actor_N6[:, :2] += bow
    other_N6[:, :2] -= bow
    return actor_N6, other_N6


_INTERACTIONS = {"chase": _chase, "push": _push, "bump": _bump, "orbit": _orbit, "swap": _swap}
