"""Clips with everything that is to be read in them: what the bundled frame encoder is trained on.

Shapes   N clips   A actors of one clip, at most `ACTORS`   R roles
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from momentkit.data.synthetic.concepts import COLOURS, ROLES, SHAPES
from momentkit.data.synthetic.descriptor import SAMPLE_OFFSETS_S, clip_count, roles
from momentkit.data.synthetic.draw import Renderer
from momentkit.data.synthetic.motion import OPACITY, X, Y, poses
from momentkit.data.synthetic.world import WIDTH, Film

ACTORS = 5


@dataclass(frozen=True, kw_only=True)
class ClipSamples:
    """Clips and what is in them.

    Attributes:
        frames_N: (N, 4, H, W, 3) uint8.
        there_NA: mean opacity of each actor, 0 where there is none.
        place_NA2: x, y of each actor's mean place, as fractions of the picture.
        colour_NA, shape_NA: positions in `COLOURS` and `SHAPES`.
        role_NAR: share of the clip spent in each role.
        event_NA: number of the event (or rest) of the film an actor is in, to tell spreads apart.
    """

    frames_N: NDArray[np.uint8]
    there_NA: NDArray[np.float32]
    place_NA2: NDArray[np.float32]
    colour_NA: NDArray[np.int64]
    shape_NA: NDArray[np.int64]
    role_NAR: NDArray[np.float32]
    event_NA: NDArray[np.int64]


def read_film(film: Film, clips: NDArray[np.int64], height: int, width: int) -> ClipSamples:
    """Draw some clips of a film and say what is in them; with a cut inside a clip, what its middle shows.

    Args:
        film: the film.
        clips: N clip indices, clips of 1 s.
        height, width: pixels.
    """
    times_N4 = clips[:, None] + np.array(SAMPLE_OFFSETS_S)
    frames_N = Renderer(film, height, width).frames(times_N4.ravel()).reshape(-1, 4, height, width, 3)
    return describe(film, clips, frames_N)


def describe(film: Film, clips: NDArray[np.int64], frames_N: NDArray[np.uint8]) -> ClipSamples:
    """What is in some clips of a film, beside frames of them that exist already."""
    count, every = len(clips), clip_count(film, 1.0)
    there_NA, place_NA2 = np.zeros((count, ACTORS), np.float32), np.zeros((count, ACTORS, 2), np.float32)
    colour_NA, shape_NA = np.zeros((count, ACTORS), np.int64), np.zeros((count, ACTORS), np.int64)
    role_NAR, event_NA = (
        np.zeros((count, ACTORS, len(ROLES)), np.float32),
        np.zeros((count, ACTORS), np.int64),
    )
    times_N4 = clips[:, None] + np.array(SAMPLE_OFFSETS_S)
    for number, scene in enumerate(film.scenes):
        rows = np.flatnonzero((clips + 0.5 >= scene.start_s) & (clips + 0.5 < scene.end_s))
        poses_ANP6 = poses(scene, times_N4[rows].ravel()).reshape(len(scene.cast), len(rows), 4, 6)
        for index, actor in enumerate(scene.cast):
            share_TR = roles(film.facts(), scene, index, every, 1.0)
            stretch_T = np.cumsum(np.any(np.diff(share_TR, axis=0, prepend=share_TR[:1]) != 0, 1))
            pose_N6 = poses_ANP6[index].mean(1)
            there_NA[rows, index] = pose_N6[:, OPACITY]
            place_NA2[rows, index] = pose_N6[:, [X, Y]] / (WIDTH, 1)
            colour_NA[rows, index], shape_NA[rows, index] = (
                COLOURS.index(actor.colour),
                SHAPES.index(actor.shape),
            )
            role_NAR[rows, index] = share_TR[clips[rows], :-1]
            event_NA[rows, index] = (number * ACTORS + index) * 10_000 + stretch_T[clips[rows]]
    return ClipSamples(
        frames_N=frames_N,
        there_NA=there_NA,
        place_NA2=place_NA2,
        colour_NA=colour_NA,
        shape_NA=shape_NA,
        role_NAR=role_NAR,
        event_NA=event_NA,
    )
