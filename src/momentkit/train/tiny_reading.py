"""How the bundled frame encoder reads films it never saw: figures, and what direct features are dealt from.

Films are written as mp4 and decoded before they are read: what is measured is the way of a user's file.

Shapes   N clips   A actors   P places   M readings of one actor in one clip   O what is said of it:
         presence (1), K colours, S shapes, R roles
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from momentkit.data.synthetic.concepts import COLOURS, ROLES, SHAPES
from momentkit.data.synthetic.descriptor import FAINTEST, SAMPLE_OFFSETS_S
from momentkit.data.synthetic.film import write_film
from momentkit.data.synthetic.plan import make_film
from momentkit.data.synthetic.reading import REST, STEP, Reading
from momentkit.data.synthetic.samples import ACTORS, ClipSamples, describe
from momentkit.data.synthetic.world import Film
from momentkit.features.tiny import FRAME_SIZE, FrameNet, as_input

Array = NDArray[np.float32]
_FPS = 12
_REST_STRIDE = 3  # actors rest most of the time: every third stretch of it is enough


@dataclass(frozen=True, kw_only=True)
class ActorReadings:
    """What the encoder said of M actors in clips, beside the truth.

    Attributes:
        said_MO: probabilities at the actor's place: presence (1), colours (K), shapes (S), roles (R).
        near_MO: the strongest within one step of it, each times the presence there over that at the place.
        colour_M, shape_M: the truth, positions.
        role_MR: share of the clip.
        stretch_M: number of the event or rest, unique over films.
    """

    said_MO: Array
    near_MO: Array
    colour_M: NDArray[np.int64]
    shape_M: NDArray[np.int64]
    role_MR: Array
    stretch_M: NDArray[np.int64]

    @property
    def properties(self) -> tuple[Array, Array, Array]:
        """Probabilities of colours (M, K), shapes (M, S) and roles (M, R)."""
        edges = 1 + len(COLOURS), 1 + len(COLOURS) + len(SHAPES)
        return (
            self.said_MO[:, 1 : edges[0]],
            self.said_MO[:, edges[0] : edges[1]],
            self.said_MO[:, edges[1] :],
        )


def read_films(net: FrameNet, seeds: Iterable[int]) -> ActorReadings:
    """Write, decode and read the films of some seeds."""
    parts = []
    net.eval()
    for number, seed in enumerate(seeds):
        film = make_film(seed)
        clips = np.arange(film.duration_s)
        samples = describe(film, clips, decoded_frames(film, clips))
        with torch.inference_mode():
            logits_N = net(as_input(samples.frames_N.reshape(-1, *FRAME_SIZE, 3)))
        parts.append(_of_actors(net, logits_N, samples, number))
    return ActorReadings(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(ActorReadings)
        }
    )


def decoded_frames(film: Film, clips: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Frames of clips after H.264, (N, 4, 72, 128, 3)."""
    import av

    wanted = np.floor((clips[:, None] + np.array(SAMPLE_OFFSETS_S)) * _FPS + 1e-6).astype(int).ravel()
    numbers = set(wanted.tolist())
    with tempfile.TemporaryDirectory() as folder:
        path = write_film(film, Path(folder) / "film.mp4", fps=_FPS)
        with av.open(str(path)) as container:
            height, width = FRAME_SIZE
            kept = {
                number: frame.to_ndarray(width=width, height=height, format="rgb24", interpolation="AREA")
                for number, frame in enumerate(container.decode(video=0))
                if number in numbers
            }
    frames: NDArray[np.uint8] = np.stack([kept[number] for number in wanted])
    return frames.reshape(len(clips), -1, *FRAME_SIZE, 3)


def _of_actors(net: FrameNet, logits_N: torch.Tensor, samples: ClipSamples, film: int) -> ActorReadings:
    """The reading at the most certain place within one step of each visible actor."""
    rows, columns = logits_N.shape[-2:]
    there, *others = net.readings(logits_N)
    said_NPO = torch.cat([there[..., None], *others], -1).numpy()
    clip_M, actor_M = np.nonzero(samples.there_NA > FAINTEST)
    place_M2 = samples.place_NA2[clip_M, actor_M] * (columns, rows)
    steps = np.array([(across, down) for down in (-1, 0, 1) for across in (-1, 0, 1)])
    near_M92 = np.clip(place_M2.astype(int)[:, None] + steps, 0, (columns - 1, rows - 1))
    place_M9 = near_M92[..., 1] * columns + near_M92[..., 0]
    said_M9O = said_NPO[clip_M[:, None], place_M9]
    best_M = said_M9O[..., 0].argmax(1)
    said_MO = said_M9O[np.arange(len(clip_M)), best_M]
    near_MO = (said_M9O[..., :1] * said_M9O).max(1) / said_MO[:, :1]
    near_MO[:, 0] = said_MO[:, 0]
    return ActorReadings(
        said_MO=said_MO,
        near_MO=near_MO,
        colour_M=samples.colour_NA[clip_M, actor_M],
        shape_M=samples.shape_NA[clip_M, actor_M],
        role_MR=samples.role_NAR[clip_M, actor_M],
        stretch_M=samples.event_NA[clip_M, actor_M] + film * ACTORS * 100_000,
    )


def accuracies(seen: ActorReadings) -> dict[str, float]:
    """Shares of right readings; roles where the whole clip is of one role, rest where it is of none."""
    colour_MK, shape_MS, said_MR = seen.properties
    full_M, rest_M = seen.role_MR.max(1) > 0.99, seen.role_MR.max(1) < 0.01
    named_M = said_MR.argmax(1) == seen.role_MR.argmax(1)
    figures = {
        "presence": (seen.said_MO[:, 0] > 0.5).mean(),
        "colour accuracy": (colour_MK.argmax(1) == seen.colour_M).mean(),
        "shape accuracy": (shape_MS.argmax(1) == seen.shape_M).mean(),
        "role accuracy": named_M[full_M].mean(),
        "role found": (named_M & (said_MR.max(1) > 0.5))[full_M].mean(),
        "rest accuracy": (said_MR.max(1) < 0.5)[rest_M].mean(),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def role_accuracies(seen: ActorReadings) -> dict[str, float]:
    """Share of full clips of each role that are read as that role."""
    full_M, true_M = seen.role_MR.max(1) > 0.99, seen.role_MR.argmax(1)
    named_M = seen.properties[2].argmax(1) == true_M
    return {
        role: round(float(named_M[full_M & (true_M == i)].mean()), 3)
        for i, role in enumerate(ROLES)
        if (full_M & (true_M == i)).any()
    }


def measure(seen: ActorReadings) -> Reading:
    """Keep readings of whole clips in one state: all of roles, a share of those at rest.

    A concept takes its strongest place. What is true of an actor is said at several places around it; what
    is true of its neighbour is said elsewhere. So true properties are kept as the strongest near the actor,
    false ones as read at its place.
    """
    full_M, rest_M = seen.role_MR.max(1) > 0.99, seen.role_MR.max(1) < 0.01
    state_M = np.where(full_M, seen.role_MR.argmax(1), REST)
    kept_M = full_M | (rest_M & (seen.stretch_M % _REST_STRIDE == 0))
    order = np.flatnonzero(kept_M)[np.argsort(seen.stretch_M[kept_M], kind="stable")]
    chance_MO, near_MO = seen.said_MO[order].astype(np.float64), seen.near_MO[order]
    every = np.arange(len(order))
    first_role = 1 + len(COLOURS) + len(SHAPES)
    for column_M in (1 + seen.colour_M[order], 1 + len(COLOURS) + seen.shape_M[order]):
        chance_MO[every, column_M] = near_MO[every, column_M]
    active = np.flatnonzero(state_M[order] < REST)
    role_M = first_role + state_M[order][active]
    chance_MO[active, role_M] = near_MO[active, role_M]
    chance_MO = np.clip(chance_MO, 1e-9, 1 - 1e-7)
    steps_MO = np.log(chance_MO / (1 - chance_MO)) / STEP
    return Reading(
        said_MO=np.clip(np.rint(steps_MO), -127, 127).astype(np.int8),
        state_M=state_M[order].astype(np.int8),
        colour_M=seen.colour_M[order].astype(np.int8),
        shape_M=seen.shape_M[order].astype(np.int8),
        stretch_M=np.unique(seen.stretch_M[order], return_inverse=True)[1].astype(np.int32),
    )
