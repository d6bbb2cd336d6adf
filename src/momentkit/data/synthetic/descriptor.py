"""What a perfect encoder would say of a clip, and what the bundled one would, without drawing a picture.

Shapes   T clips   C concepts (`concepts.CONCEPTS`)   A actors   R roles   K colours   S shapes
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from momentkit.data.synthetic.concepts import (
    COLOUR_ROLE,
    COLOUR_SHAPE,
    COLOURS,
    CONCEPTS,
    ROLES,
    SHAPE_ROLE,
    SHAPES,
)
from momentkit.data.synthetic.motion import OPACITY, poses
from momentkit.data.synthetic.reading import Reading
from momentkit.data.synthetic.world import Fact, Film, Scene

Array = NDArray[np.float32]
SAMPLE_OFFSETS_S = (0.125, 0.375, 0.625, 0.875)
"""Times within a clip at which an actor's opacity is looked at: those of the bundled frame encoder."""
FAINTEST = 0.08
"""Mean opacity in a clip from which on an actor counts as there."""


def descriptor(film: Film, clip_length_s: float = 1.0) -> Array:
    """The truth: which share of each clip each concept holds.

    Returns:
        (T, C) in [0, 1], T = duration / clip length, rounded up.
    """
    count, facts = clip_count(film, clip_length_s), film.facts()
    actors = []
    for scene in film.scenes:
        shown_T = cover(scene, count, clip_length_s)
        for index, actor in enumerate(scene.cast):
            seen_T = (visible(scene, index, count, clip_length_s) > FAINTEST) * shown_T
            share_TR = roles(facts, scene, index, count, clip_length_s)[:, :-1]
            colour_K = np.array([actor.colour == colour for colour in COLOURS], np.float32)
            shape_S = np.array([actor.shape == shape for shape in SHAPES], np.float32)
            colour_TK, shape_TS = np.tile(colour_K, (count, 1)), np.tile(shape_S, (count, 1))
            actors.append((seen_T, colour_TK, shape_TS, share_TR))
    return merge(actors, count)


def direct_features(
    film: Film, rng: np.random.Generator, clip_length_s: float = 1.0, reading: Reading | None = None
) -> Array:
    """What the bundled frame encoder would say of a film, dealt from what it said of others.

    No picture is drawn: some milliseconds a film.

    Args:
        film: the film.
        rng: which readings are dealt.
        clip_length_s: seconds.
        reading: the readings to deal from; the bundled encoder's where None.

    Returns:
        (T, C) in [0, 1].
    """
    reading = reading or Reading.bundled()
    count, facts = clip_count(film, clip_length_s), film.facts()
    actors = []
    for scene in film.scenes:
        shown_T = cover(scene, count, clip_length_s)
        for index, actor in enumerate(scene.cast):
            share_TR = roles(facts, scene, index, count, clip_length_s)
            seen_T = (visible(scene, index, count, clip_length_s) > FAINTEST) * shown_T
            said_TO = np.zeros((count, reading.said_MO.shape[1]), np.float32)
            for clips in _stretches(share_TR):
                if seen_T[clips].any():
                    kind = COLOURS.index(actor.colour), SHAPES.index(actor.shape)
                    said_TO[clips] = _say(share_TR[clips], kind, reading, rng)
            there_TO, colour_TK, shape_TS, role_TR = np.split(
                said_TO, (1, 1 + len(COLOURS), 1 + len(COLOURS) + len(SHAPES)), axis=1
            )
            actors.append((there_TO[:, 0] * seen_T, colour_TK, shape_TS, role_TR))
    return merge(actors, count)


def clip_count(film: Film, clip_length_s: float) -> int:
    """Clips of a film, the last one maybe not full."""
    return int(np.ceil(film.duration_s / clip_length_s - 1e-6))


def visible(scene: Scene, actor: int, clips: int, clip_length_s: float) -> Array:
    """Mean opacity of an actor in each clip of the film, (T,); of no meaning outside its scene."""
    times_s = (np.arange(clips)[:, None] + np.array(SAMPLE_OFFSETS_S)) * clip_length_s
    opacity = poses(scene, times_s.ravel())[actor, :, OPACITY]
    return opacity.reshape(clips, -1).mean(1).astype(np.float32)


def roles(facts: tuple[Fact, ...], scene: Scene, actor: int, clips: int, clip_length_s: float) -> Array:
    """Share of each clip that an actor of a scene spends in each role, (T, R + 1); the last: at rest."""
    share_TR = np.zeros((clips, len(ROLES) + 1), np.float32)
    starts_s = np.arange(clips) * clip_length_s
    for fact in facts:
        inside = scene.start_s <= fact.start_s < scene.end_s
        if fact.certain and inside and fact.actor == scene.cast[actor]:
            overlap_s = np.minimum(starts_s + clip_length_s, fact.end_s) - np.maximum(starts_s, fact.start_s)
            share_TR[:, ROLES.index(fact.role)] += np.clip(overlap_s, 0, None) / clip_length_s
    share_TR[:, -1] = 1 - share_TR[:, :-1].sum(1)
    return share_TR


def cover(scene: Scene, clips: int, clip_length_s: float) -> Array:
    """Share of each clip of the film that shows a scene, (T,)."""
    starts_s = np.arange(clips) * clip_length_s
    overlap_s = np.minimum(starts_s + clip_length_s, scene.end_s) - np.maximum(starts_s, scene.start_s)
    return (np.clip(overlap_s, 0, None) / clip_length_s).astype(np.float32)


def merge(actors: Sequence[tuple[Array, Array, Array, Array]], clips: int) -> Array:
    """Actors -> concepts: products of one actor's properties, the strongest actor counts.

    Args:
        actors: presence (T,), colours (T, K), shapes (T, S) and roles (T, R) of each, in [0, 1].
        clips: T.

    Returns:
        (T, C) in [0, 1].
    """
    result_TC = np.zeros((clips, CONCEPTS), np.float32)
    for there_T, colour_TK, shape_TS, role_TR in actors:
        colour_TK1 = (there_T[:, None] * colour_TK)[:, :, None]
        shape_TS1 = (there_T[:, None] * shape_TS)[:, :, None]
        for part, product in (
            (COLOUR_ROLE, colour_TK1 * role_TR[:, None]),
            (SHAPE_ROLE, shape_TS1 * role_TR[:, None]),
            (COLOUR_SHAPE, colour_TK1 * shape_TS[:, None]),
        ):
            np.maximum(result_TC[:, part], product.reshape(clips, -1), out=result_TC[:, part])
    return result_TC


def _stretches(share_TR: Array) -> list[slice]:
    """Runs of clips in which an actor does the same."""
    changes = np.flatnonzero(np.any(np.diff(share_TR, axis=0) != 0, 1)) + 1
    edges = [0, *changes.tolist(), len(share_TR)]
    return [slice(start, end) for start, end in pairwise(edges)]


def _say(share_TR: Array, kind: tuple[int, int], reading: Reading, rng: np.random.Generator) -> Array:
    """Readings for one stretch; a clip half in a role is read half so."""
    parts = [
        share_TR[0, state] * reading.draw(int(state), *kind, len(share_TR), rng)
        for state in np.flatnonzero(share_TR[0])
    ]
    return np.sum(parts, axis=0)
