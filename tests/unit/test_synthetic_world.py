"""Films: same seed same film, events fit their scene, motion has no jumps, every role occurs."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from momentkit.core.errors import ConfigError
from momentkit.data.synthetic.concepts import (
    COLOURS,
    CONCEPTS,
    ROLES,
    SHAPES,
    colour_role,
    colour_shape,
    shape_role,
)
from momentkit.data.synthetic.demo import DURATION_S, demo_film
from momentkit.data.synthetic.motion import OPACITY, SIZE, X, Y, poses
from momentkit.data.synthetic.plan import FilmOptions, make_film
from momentkit.data.synthetic.world import WIDTH

FILMS = [make_film(seed) for seed in range(120)]
SCENES = [scene for film in FILMS for scene in film.scenes]


def test_one_seed_makes_one_film_and_another_seed_another() -> None:
    assert make_film(7) == make_film(7)
    assert replace(make_film(7), seed=8, vid="film8") != make_film(8)


def test_making_a_film_leaves_the_global_random_state_alone() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    make_film(1)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]


def test_scenes_cover_the_film_without_gaps() -> None:
    for film in FILMS:
        borders = [(scene.start_s, scene.end_s) for scene in film.scenes]
        assert borders[0][0] == 0 and borders[-1][1] == film.duration_s
        assert all(one[1] == two[0] for one, two in itertools.pairwise(borders))
        assert 30 <= film.duration_s <= 90


def test_events_lie_inside_their_scene_on_the_half_second_grid() -> None:
    for scene in SCENES:
        for event in scene.events:
            assert scene.start_s < event.start_s < event.end_s < scene.end_s
            assert event.start_s * 2 == round(event.start_s * 2) and event.end_s * 2 == round(event.end_s * 2)
            assert 2 <= event.length_s <= 25


def test_no_actor_does_two_things_at_once() -> None:
    for scene in SCENES:
        for actor in range(len(scene.cast)):
            mine = [event for event in scene.events if actor in (event.actor, event.other)]
            assert all(one.end_s + 2 <= two.start_s for one, two in itertools.pairwise(mine))


def test_nobody_jumps_from_one_frame_to_the_next() -> None:
    for scene in SCENES[:80]:
        times_s = np.arange(scene.start_s, scene.end_s, 1 / 60)
        poses_AN6 = poses(scene, times_s)
        seen_AN = poses_AN6[..., OPACITY] > 0
        step_AN = np.hypot(*np.moveaxis(np.diff(poses_AN6[..., [X, Y]], axis=1), -1, 0))
        assert (step_AN[seen_AN[:, 1:]] < 0.06).all()
        assert (np.abs(np.diff(poses_AN6[..., SIZE], axis=1)) < 0.02).all()


def test_actors_stay_in_the_picture() -> None:
    for scene in SCENES[:80]:
        poses_AN6 = poses(scene, np.arange(scene.start_s, scene.end_s, 0.1))
        assert (poses_AN6[..., X] > 0).all() and (poses_AN6[..., X] < WIDTH).all()
        assert (poses_AN6[..., Y] > 0).all() and (poses_AN6[..., Y] < 1).all()


def test_every_role_colour_and_shape_occurs() -> None:
    facts = [fact for film in FILMS for fact in film.facts()]
    assert {fact.role for fact in facts} == set(ROLES)
    assert {fact.actor.colour for fact in facts} == set(COLOURS)
    assert {fact.actor.shape for fact in facts} == set(SHAPES)


def test_an_action_often_comes_back_with_another_actor() -> None:
    """Otherwise a model could do without reading colours and shapes."""
    again = 0
    for film in FILMS:
        doers = {}
        for fact in film.facts():
            if fact.certain:
                doers.setdefault(fact.role, set()).add(fact.actor)
        again += any(len(actors) > 1 for actors in doers.values())
    assert again > 0.8 * len(FILMS)


def test_concepts_are_numbered_without_gap_or_overlap() -> None:
    numbers = [colour_role(colour, role) for colour in COLOURS for role in ROLES]
    numbers += [shape_role(shape, role) for shape in SHAPES for role in ROLES]
    numbers += [colour_shape(colour, shape) for colour in COLOURS for shape in SHAPES]
    assert numbers == list(range(CONCEPTS))


def test_the_demo_lasts_a_minute_and_asks_one_thing_that_does_not_happen() -> None:
    for seed in (0, 1, 2):
        demo = demo_film(seed)
        assert demo.film.duration_s == DURATION_S == 60
        assert [bool(question.windows_s) for question in demo.questions] == [True] * 8 + [False]
    assert len(demo_film(0).questions[0].windows_s) == 2
    assert demo_film(0) == demo_film(0)


@pytest.mark.parametrize(
    "wrong", [{"shortest_s": 5}, {"grid_s": float("nan")}, {"gap_s": (3.0, 1.0)}, {"echo": float("nan")}]
)
def test_options_that_make_no_film_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        FilmOptions(**wrong)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="-1"):
        make_film(-1)
