"""One scene while it is being planned: who rests where, who is free, and which actions there is room for."""

from dataclasses import dataclass, field, replace

import numpy as np

from momentkit.data.synthetic.motion import CHASE_X, CHASE_Y, contact
from momentkit.data.synthetic.world import WIDTH, Actor, Event, Pose

MARGIN = 0.15
"""Least distance of a resting centre from the border of the picture, in heights."""
_ROOM = 0.25  # least distance between two resting centres
_PERIOD_S = {"jump": 0.85, "spin": 1.6, "blink": 0.9, "shake": 1.0, "loop": 2.2, "sway": 2.2, "bump": 1.4}
_MOVES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_GROWN, _SMALL, _LYING_RAD = 1.5, 0.8, 1.45


@dataclass
class Stage:
    """State of a scene at the planner's cursor.

    Attributes:
        cast: the actors.
        rest: the pose each will have when its last planned event is over.
        free_s: when each may act again.
    """

    cast: tuple[Actor, ...]
    rest: list[Pose]
    free_s: list[float]
    events: list[Event] = field(default_factory=list)

    def plan(
        self, action: str, actor: int, other: int | None, start_s: float, length_s: float,
        rng: np.random.Generator,
    ) -> Event | None:  # fmt: skip
        """The event, or None where the state or the room does not allow it."""
        pose = self.rest[actor]
        if (pose.opacity > 0) == (action == "appear"):
            return None
        event = Event(
            action=action,
            start_s=start_s,
            end_s=start_s + length_s,
            actor=actor,
            begin=pose,
            finish=pose,
            cycles=max(1, round(length_s / _PERIOD_S.get(action, 3.6))),
            turn=int(rng.choice((-1, 1))),
        )
        if other is not None:
            partner = self.rest[other]
            if partner.opacity == 0 or pose.tilt_rad or partner.tilt_rad:
                return None
            event = replace(event, other=other, other_begin=partner, other_finish=partner)
            return self._interact(event, pose, partner, rng)
        finish = self._finish(action, pose, actor, length_s, event.turn, rng)
        return None if finish is None else replace(event, finish=finish)

    def add(self, event: Event, pause_s: float) -> None:
        """Take an event into the scene; its actors rest for `pause_s` afterwards."""
        self.events.append(event)
        self.rest[event.actor] = event.finish
        self.free_s[event.actor] = event.end_s + pause_s
        if event.other is not None and event.other_finish is not None:
            self.rest[event.other] = event.other_finish
            self.free_s[event.other] = event.end_s + pause_s

    def _finish(
        self, action: str, pose: Pose, actor: int, length_s: float, turn: int, rng: np.random.Generator
    ) -> Pose | None:
        upright = pose.tilt_rad == 0
        match action:
            case "left" | "right" | "up" | "down":
                return self._move(action, pose, actor, length_s, rng) if upright else None
            case "grow":
                return replace(pose, size=_GROWN) if pose.size < 1.2 else None
            case "shrink":
                return replace(pose, size=_SMALL) if pose.size > 1.2 else None
            case "topple":
                return replace(pose, tilt_rad=turn * _LYING_RAD) if upright else None
            case "stand":
                return None if upright else replace(pose, tilt_rad=0.0)
            case "appear":
                return replace(pose, opacity=1.0)
            case "vanish":
                return replace(pose, opacity=0.0)
            case "loop":
                return pose if upright and pose.y > 0.26 + MARGIN and _central(pose, 0.13) else None
            case "sway":
                return pose if upright and _central(pose, 0.15) else None
            case "jump":
                return pose if upright and pose.y > 0.17 + MARGIN else None
            case _:
                return pose if upright or action == "blink" else None

    def _move(
        self, action: str, pose: Pose, actor: int, length_s: float, rng: np.random.Generator
    ) -> Pose | None:
        dx, dy = _MOVES[action]
        room = {
            "left": pose.x - MARGIN,
            "right": WIDTH - MARGIN - pose.x,
            "up": pose.y - MARGIN,
            "down": 1 - MARGIN - pose.y,
        }[action]
        least, most = max(0.28, 0.085 * length_s), min(room, 0.26 * length_s)
        for _ in range(4 if most > least else 0):
            way = rng.uniform(least, most)
            target = replace(pose, x=pose.x + dx * way, y=pose.y + dy * way)
            if self.clear(target, (actor,)):
                return target
        return None

    def clear(self, pose: Pose, without: tuple[int, ...]) -> bool:
        """Whether no other actor rests near; hidden ones keep their place."""
        return all(
            np.hypot(pose.x - rest.x, pose.y - rest.y) > _ROOM * max(1.0, (pose.size + rest.size) / 2)
            for index, rest in enumerate(self.rest)
            if index not in without
        )

    def _interact(self, event: Event, pose: Pose, other: Pose, rng: np.random.Generator) -> Event | None:
        match event.action:
            case "chase":
                dx, dy = (pose.x - WIDTH / 2) / CHASE_X, (pose.y - 0.5) / CHASE_Y
                return replace(event, phase_rad=float(np.arctan2(dy, dx)))
            case "push":
                return self._push(event, pose, other, rng)
            case "bump":
                side = 1 if pose.x > other.x else -1
                reach = other.x + side * (contact(pose, other) + 0.24)
                room = MARGIN / 2 < reach < WIDTH - MARGIN / 2
                return replace(event, turn=side) if room else None
            case "orbit":
                if not (0.28 < other.y < 0.72 and _central(other, 0.33)):
                    return None
                return replace(event, phase_rad=float(np.arctan2(pose.y - other.y, pose.x - other.x)))
            case _:
                return replace(event, finish=_at(pose, other), other_finish=_at(other, pose))

    def _push(self, event: Event, pose: Pose, other: Pose, rng: np.random.Generator) -> Event | None:
        side = 1 if other.x > pose.x else -1
        room = (WIDTH - MARGIN - other.x) if side > 0 else other.x - MARGIN
        way = min(room, rng.uniform(0.1, 0.2) * event.length_s)
        if way < 0.09 * event.length_s or way < 0.3 or abs(other.x - pose.x) < contact(pose, other):
            return None
        pushed = replace(other, x=other.x + side * way)
        pusher = _at(pose, replace(pushed, x=pushed.x - side * contact(pose, other)))
        assert event.other is not None
        if not self.clear(pushed, (event.actor, event.other)):
            return None
        return replace(event, turn=side, other_finish=pushed, finish=pusher)


def _central(pose: Pose, reach: float) -> bool:
    return MARGIN / 2 + reach < pose.x < WIDTH - MARGIN / 2 - reach


def _at(pose: Pose, place: Pose) -> Pose:
    return replace(pose, x=place.x, y=place.y)
