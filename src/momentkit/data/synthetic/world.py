"""What a synthetic film is: scenes between cuts, a cast, and events planted on the time line.

Lengths are in heights of the picture: x runs from 0 (left) to 16/9, y from 0 (top) to 1. Times are seconds
from the start of the film.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from momentkit.data.synthetic.concepts import PASSIVE

WIDTH = 16 / 9
RADIUS = 0.12
"""Radius of an actor of size 1, in heights."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """What an actor is.

    Attributes:
        colour, shape: of `concepts.COLOURS` and `concepts.SHAPES`.
    """

    colour: str
    shape: str


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where and how an actor rests.

    Attributes:
        x, y: centre, in heights.
        size: factor on `RADIUS`.
        tilt_rad: 0 upright.
        opacity: 0 hidden, 1 shown.
    """

    x: float
    y: float
    size: float = 1.0
    tilt_rad: float = 0.0
    opacity: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """One action, from its first moving frame to its last.

    Attributes:
        action: of `concepts.SOLO`, or a key of `concepts.PASSIVE`.
        start_s, end_s: planted borders.
        actor, other: positions in the scene's cast; `other` only in interactions.
        begin, finish: the actor's rest before and after.
        other_begin, other_finish: the same of the other.
        cycles: repetitions of a periodic action.
        turn: +1 or -1, the sense of a rotation or the side of a push.
        phase_rad: where on its path a chase starts.
    """

    action: str
    start_s: float
    end_s: float
    actor: int
    begin: Pose
    finish: Pose
    other: int | None = None
    other_begin: Pose | None = None
    other_finish: Pose | None = None
    cycles: int = 1
    turn: int = 1
    phase_rad: float = 0.0

    @property
    def length_s(self) -> float:
        """Seconds from start to end."""
        return self.end_s - self.start_s


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is shown between two cuts.

    Attributes:
        start_s, end_s: the cuts.
        backdrop: position in `draw.BACKDROPS`.
        seed: of hills, dust and the camera's sway.
        cast: actors, no two alike.
        entry: their poses at the start.
        events: sorted by start.
    """

    start_s: float
    end_s: float
    backdrop: int
    seed: int
    cast: tuple[Actor, ...]
    entry: tuple[Pose, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One actor in one role from `start_s` to `end_s`: what sentences are true of.

    Attributes:
        actor: who.
        role: of `concepts.ROLES`.
        other: the other side of an interaction.
        certain: False where the motion could also be described so, such as a push to the left as moving
            left; no question is asked about what is uncertain.
    """

    actor: Actor
    role: str
    start_s: float
    end_s: float
    other: Actor | None = None
    certain: bool = True


@dataclass(frozen=True, kw_only=True)
class Film:
    """A film, before it is drawn.

    Attributes:
        vid: name of its files.
        seed: what it was made from.
        duration_s: whole seconds.
        scenes: in order, without gaps.
    """

    vid: str
    seed: int
    duration_s: int
    scenes: tuple[Scene, ...]

    def facts(self) -> tuple[Fact, ...]:
        """All facts in order of start."""
        found = [fact for scene in self.scenes for event in scene.events for fact in _facts(scene, event)]
        return tuple(sorted(found, key=lambda fact: (fact.start_s, fact.role)))

    def cast(self) -> tuple[Actor, ...]:
        """Every actor of any scene, once, in order of first scene."""
        return tuple(dict.fromkeys(actor for scene in self.scenes for actor in scene.cast))


def _facts(scene: Scene, event: Event) -> Iterator[Fact]:
    actor, start_s, end_s = scene.cast[event.actor], event.start_s, event.end_s
    if event.other is None:
        yield Fact(actor=actor, role=event.action, start_s=start_s, end_s=end_s)
        return
    other = scene.cast[event.other]
    yield Fact(actor=actor, role=event.action, start_s=start_s, end_s=end_s, other=other)
    yield Fact(actor=other, role=PASSIVE[event.action], start_s=start_s, end_s=end_s, other=actor)
    for who in (actor, other):
        for role in _ALSO[event.action]:
            yield Fact(actor=who, role=role, start_s=start_s, end_s=end_s, certain=False)


_ALSO = {  # how a viewer might also describe one side of an interaction
    "push": ("left", "right"),
    "chase": ("left", "right", "up", "down", "loop", "sway"),
    "bump": ("left", "right", "sway", "shake", "push", "pushed"),
    "orbit": ("loop", "chase", "chased"),
    "swap": ("left", "right", "up", "down", "loop"),
}
