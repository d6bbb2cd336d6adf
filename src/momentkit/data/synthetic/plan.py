"""Films from seeds: scenes, casts and events drawn at random, within what fits the picture.

A film's cast comes from few colours and few shapes, and actions come back with other actors: colour, shape
and action all matter to tell its events apart.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from momentkit.core.errors import ConfigError
from momentkit.data.synthetic.concepts import COLOURS, PASSIVE, SHAPES, SOLO
from momentkit.data.synthetic.stage import Stage
from momentkit.data.synthetic.world import WIDTH, Actor, Event, Film, Pose, Scene

BACKDROPS = 6
_MOVES = ("left", "right", "up", "down")
_ONCE = ("grow", "shrink", "topple", "stand", "appear", "vanish")
_LAST_S = 0.5  # rest before a cut
# Chances make up for how often the stage refuses an action, so that all are about equally frequent.
_CHANCE = {"spin": 0.7, "blink": 0.5, "shake": 0.6, "jump": 0.8, "sway": 1.5, "loop": 3.0, "grow": 0.8}
_CHANCE |= {"left": 2.2, "right": 2.2, "up": 4.0, "down": 4.0, "vanish": 0.5, "topple": 0.8, "appear": 4.0}
_CHANCE |= {"shrink": 8.0, "stand": 8.0, "chase": 1.0, "push": 3.5, "bump": 1.2, "orbit": 3.5, "swap": 1.0}


@dataclass(frozen=True, kw_only=True)
class FilmOptions:
    """What films are like.

    Attributes:
        shortest_s, longest_s: whole seconds.
        grid_s: event borders and cuts are multiples of it. 0.5 puts half of them off the 1 s clip grid.
        pause_s: least rest of an actor between two of its events.
        gap_s: shortest and longest time from one event's start to the next one's.
        echo: share of events that repeat an earlier action, by the same actor or by another.
    """

    shortest_s: int = 30
    longest_s: int = 90
    grid_s: float = 0.5
    pause_s: float = 2.0
    gap_s: tuple[float, float] = (1.5, 6.0)
    echo: float = 0.45

    def __post_init__(self) -> None:
        if not 12 <= self.shortest_s <= self.longest_s <= 3600:
            raise ConfigError(f"films last 12 to 3600 s, got {self.shortest_s} to {self.longest_s}")
        if not 0 < self.grid_s <= 1:
            raise ConfigError(f"grid_s lies in (0, 1], got {self.grid_s}")
        if not 0 < self.gap_s[0] <= self.gap_s[1]:
            raise ConfigError(f"gap_s is (shortest, longest), both above 0, got {self.gap_s}")
        if not (self.pause_s >= 0 and 0 <= self.echo <= 1):
            raise ConfigError("pause_s must not be negative and echo must lie in [0, 1]")


def make_film(seed: int, options: FilmOptions | None = None, *, vid: str = "") -> Film:
    """The film of a seed; equal arguments give equal films.

    Args:
        seed: any non-negative number.
        options: what films are like.
        vid: its name; "film<seed>" where empty.
    """
    if seed < 0:
        raise ConfigError(f"a seed is a number from 0 on, got {seed}")
    options = options or FilmOptions()
    rng = np.random.default_rng([seed, 1])
    duration_s = int(rng.integers(options.shortest_s, options.longest_s + 1))
    cuts = _cuts(duration_s, options.grid_s, rng)
    pool = _pool(rng)
    backdrops = rng.permutation(BACKDROPS)
    past: list[tuple[str, Actor]] = []
    scenes = []
    for number, (start_s, end_s) in enumerate(pairwise(cuts)):
        size = int(rng.integers(3, 6))
        cast = tuple(pool[index] for index in rng.permutation(len(pool))[:size])
        backdrop = int(backdrops[number % BACKDROPS])
        scenes.append(_scene(start_s, end_s, cast, backdrop, options, past, rng))
    return Film(vid=vid or f"film{seed}", seed=seed, duration_s=duration_s, scenes=tuple(scenes))


def _cuts(duration_s: int, grid_s: float, rng: np.random.Generator) -> list[float]:
    """Borders of one to five scenes of at least 10 s."""
    count = int(rng.integers(1, max(2, min(5, duration_s // 16) + 1)))
    spare = duration_s - 10.0 * count
    shares = np.sort(rng.random(count - 1)) * spare
    inner = [round((10 * (i + 1) + share) / grid_s) * grid_s for i, share in enumerate(shares)]
    return [0.0, *inner, float(duration_s)]


def _pool(rng: np.random.Generator) -> list[Actor]:
    """Six to seven kinds made of three colours and three shapes: near misses of one another."""
    colours, shapes = rng.permutation(COLOURS)[:3], rng.permutation(SHAPES)[:3]
    kinds = [Actor(colour=str(colour), shape=str(shape)) for colour in colours for shape in shapes]
    return [kinds[index] for index in rng.permutation(9)[: int(rng.integers(6, 8))]]


def _entry(size: int, rng: np.random.Generator) -> list[Pose]:
    """Resting places, no two in the same cell; now and then one actor is still hidden."""
    cells = rng.permutation(10)[:size]
    shift = rng.uniform(-0.04, 0.04, (size, 2))
    hidden = rng.random(size) < 0.12
    scale = rng.uniform(0.92, 1.08, size)
    return [
        Pose(
            x=WIDTH / 2 + (cell % 5 - 2) * 0.345 + shift[i, 0],
            y=0.5 + (cell // 5 - 0.5) * 0.32 + shift[i, 1],
            size=float(scale[i]),
            opacity=float(not (hidden[i] and i > 0)),
        )
        for i, cell in enumerate(cells)
    ]


def _scene(
    start_s: float, end_s: float, cast: tuple[Actor, ...], backdrop: int, options: FilmOptions,
    past: list[tuple[str, Actor]], rng: np.random.Generator,
) -> Scene:  # fmt: skip
    entry = _entry(len(cast), rng)
    stage = Stage(cast=cast, rest=list(entry), free_s=[start_s] * len(cast))
    cursor_s = start_s + _on_grid(rng.uniform(0.5, 3), options.grid_s)
    while cursor_s < end_s - _LAST_S - 2:
        if event := _next_event(stage, cursor_s, end_s - _LAST_S - cursor_s, options, past, rng):
            stage.add(event, options.pause_s)
            past.append((event.action, cast[event.actor]))
        cursor_s += _on_grid(rng.uniform(*options.gap_s), options.grid_s)
    events = tuple(sorted(stage.events, key=lambda event: event.start_s))
    seed = int(rng.integers(2**31))
    return Scene(
        start_s=start_s,
        end_s=end_s,
        backdrop=backdrop,
        seed=seed,
        cast=cast,
        entry=tuple(entry),
        events=events,
    )


def _next_event(
    stage: Stage, start_s: float, room_s: float, options: FilmOptions, past: list[tuple[str, Actor]],
    rng: np.random.Generator,
) -> Event | None:  # fmt: skip
    free = [index for index, free_s in enumerate(stage.free_s) if free_s <= start_s]
    busy = sum(event.end_s > start_s for event in stage.events)
    if not free or busy >= 3:
        return None
    for _ in range(8):
        action, actor = _choose(stage, free, options.echo, past, rng)
        others = [index for index in free if index != actor]
        if action in PASSIVE and not others:
            continue
        length_s = min(_on_grid(_length(action, rng), options.grid_s), _floor(room_s, options.grid_s))
        other = int(rng.choice(others)) if action in PASSIVE else None
        shortest_s = 3.0 if action in PASSIVE else 2.0
        if length_s < shortest_s:
            continue
        if event := stage.plan(action, actor, other, start_s, length_s, rng):
            return event
    return None


def _choose(
    stage: Stage, free: list[int], echo: float, past: list[tuple[str, Actor]], rng: np.random.Generator
) -> tuple[str, int]:
    """An action and who does it: new, or an echo of an earlier one by the same or another actor."""
    actor = int(rng.choice(free))
    if past and rng.random() < echo:
        action, who = past[int(rng.integers(len(past)))]
        same = [index for index in free if stage.cast[index] == who]
        return action, same[0] if same and rng.random() < 0.5 else actor
    names = (*SOLO, *PASSIVE)
    weights = np.array([_CHANCE.get(name, 1.0) for name in names])
    return str(rng.choice(names, p=weights / weights.sum())), actor


def _length(action: str, rng: np.random.Generator) -> float:
    """Seconds; what repeats may go on for long, what happens once is over soon."""
    if action in _ONCE:
        return float(rng.uniform(2, 4))
    if action in _MOVES or action == "swap":
        return float(rng.uniform(2, 7))
    if action == "push":
        return float(rng.uniform(3, 7))
    if rng.random() < 0.12:
        return float(rng.uniform(2, 3.5))
    return float(np.exp(rng.uniform(np.log(3.5), np.log(25))))


def _on_grid(time_s: float, grid_s: float) -> float:
    return max(1, round(time_s / grid_s)) * grid_s


def _floor(time_s: float, grid_s: float) -> float:
    return int(time_s / grid_s + 1e-9) * grid_s
