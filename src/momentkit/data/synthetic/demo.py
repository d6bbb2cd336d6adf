"""The film of `momentkit demo`: a minute in three scenes, with the questions it is asked.

The story is fixed; the seed deals colours and shapes anew (seed 0 as written here) and places hills and dust.
"""

from dataclasses import dataclass

import numpy as np

from momentkit.core.errors import ConfigError
from momentkit.data.synthetic.concepts import COLOURS, PASSIVE, SHAPES
from momentkit.data.synthetic.grammar import Ask
from momentkit.data.synthetic.questions import Question, windows_of
from momentkit.data.synthetic.stage import Stage
from momentkit.data.synthetic.world import Actor, Film, Pose, Scene

DURATION_S = 60


@dataclass(frozen=True, kw_only=True)
class DemoFilm:
    """A film and what to ask it.

    Attributes:
        film: a minute.
        questions: sentences with their windows; the last one's answer is not in the film.
    """

    film: Film
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class _Shot:
    """A scene as written: start, backdrop, places of the cast by name, and (action, who, whom, from, to)."""

    start_s: float
    backdrop: int
    places: dict[str, tuple[float, float]]
    hidden: tuple[str, ...]
    events: tuple[tuple[str, str, str, float, float], ...]


_CAST = {
    "ruby": ("red", "circle"),
    "sky": ("blue", "square"),
    "sunny": ("yellow", "star"),
    "plum": ("purple", "heart"),
    "amber": ("orange", "triangle"),
    "snow": ("white", "circle"),
}
_STORY = (
    _Shot(
        0.0,
        0,
        {"ruby": (0.86, 0.46), "sky": (0.27, 0.72), "sunny": (1.40, 0.62)},
        (),
        (
            ("jump", "ruby", "", 2.0, 7.0),
            ("spin", "sky", "", 5.0, 10.5),
            ("orbit", "sunny", "ruby", 11.5, 18.5),
        ),
    ),
    _Shot(
        20.0,
        4,
        {"plum": (1.42, 0.40), "amber": (0.40, 0.62), "ruby": (0.89, 0.50)},
        ("plum",),
        (
            ("appear", "plum", "", 21.5, 24.5),
            ("chase", "amber", "plum", 25.5, 34.0),
            ("jump", "ruby", "", 35.5, 39.5),
        ),
    ),
    _Shot(
        41.0,
        5,
        {"snow": (0.28, 0.68), "sky": (0.70, 0.68), "sunny": (1.30, 0.33), "plum": (0.62, 0.30)},
        (),
        (
            ("push", "snow", "sky", 42.5, 47.5),
            ("grow", "sunny", "", 46.0, 49.0),
            ("topple", "plum", "", 50.5, 53.0),
            ("shake", "sky", "", 53.5, 58.5),
        ),
    ),
)
# wording ({0} who, {1} whom), role, who, whom; the last one does not happen
_ASKED = (
    ("the {0} jumps", "jump", "ruby", ""),
    ("a {0} spins around", "spin", "sky", ""),
    ("the {0} circles around the {1}", "orbit", "sunny", "ruby"),
    ("a {0} fades in", "appear", "plum", ""),
    ("the {0} is chased by the {1}", "chased", "plum", "amber"),
    ("the {0} pushes the {1}", "push", "snow", "sky"),
    ("the {0} gets bigger", "grow", "sunny", ""),
    ("there is the {0} falling over", "topple", "plum", ""),
    ("the {0} jumps", "jump", "sky", ""),
)


def demo_film(seed: int = 0) -> DemoFilm:
    """The film of a seed; the same story each time.

    Args:
        seed: 0 or more.
    """
    if seed < 0:
        raise ConfigError(f"a seed is a number from 0 on, got {seed}")
    cast = _dealt(seed)
    ends = [shot.start_s for shot in _STORY[1:]] + [float(DURATION_S)]
    scenes = tuple(_scene(shot, end_s, cast, seed) for shot, end_s in zip(_STORY, ends, strict=True))
    film = Film(vid=f"demo{seed}", seed=seed, duration_s=DURATION_S, scenes=scenes)
    return DemoFilm(film=film, questions=tuple(_question(film, cast, *asked) for asked in _ASKED))


def _dealt(seed: int) -> dict[str, Actor]:
    if seed == 0:
        return {name: Actor(colour=colour, shape=shape) for name, (colour, shape) in _CAST.items()}
    rng = np.random.default_rng([seed, 7])
    colours, shapes = rng.permutation(COLOURS), rng.permutation(SHAPES)
    return {
        name: Actor(colour=str(colours[COLOURS.index(colour)]), shape=str(shapes[SHAPES.index(shape)]))
        for name, (colour, shape) in _CAST.items()
    }


def _scene(shot: _Shot, end_s: float, cast: dict[str, Actor], seed: int) -> Scene:
    names = list(shot.places)
    entry = [Pose(x=x, y=y, opacity=float(name not in shot.hidden)) for name, (x, y) in shot.places.items()]
    stage = Stage(
        cast=tuple(cast[name] for name in names), rest=list(entry), free_s=[shot.start_s] * len(names)
    )
    rng = np.random.default_rng(5)  # not the seed's: the story was arranged for these draws
    for action, who, whom, start_s, stop_s in shot.events:
        other = names.index(whom) if action in PASSIVE else None
        event = stage.plan(action, names.index(who), other, start_s, stop_s - start_s, rng)
        assert event is not None, f"no room for {who} to {action}"
        stage.add(event, 0.0)
    return Scene(
        start_s=shot.start_s,
        end_s=end_s,
        backdrop=shot.backdrop,
        seed=100 * seed + int(shot.start_s),
        cast=stage.cast,
        entry=tuple(entry),
        events=tuple(stage.events),
    )


def _question(film: Film, cast: dict[str, Actor], wording: str, role: str, who: str, whom: str) -> Question:
    actor, other = cast[who], cast.get(whom)
    ask = Ask(
        role=role,
        colour=actor.colour,
        shape=actor.shape,
        other_colour=other.colour if other else None,
        other_shape=other.shape if other else None,
    )
    names = [f"{each.colour} {each.shape}" for each in (actor, other) if each]
    text = wording.format(*names).replace("a orange", "an orange")
    windows_s = windows_of(ask, film.facts())
    assert windows_s is not None, f"{text!r} cannot be answered with certainty"
    return Question(text=text, ask=ask, windows_s=windows_s)
