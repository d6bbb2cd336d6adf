"""How the bundled frame encoder reads actors, kept as examples.

Errors of an encoder are neither small nor even nor independent from clip to clip: an actor half hidden by
another is misread for as long as it is hidden. So nothing is fitted: what was said of actors in drawn films
is kept, and `descriptor.direct_features` deals it out again.

Shapes   M kept readings   R roles   K colours   S shapes   O = 1 + K + S + R
"""

from dataclasses import dataclass, fields
from functools import cache, cached_property
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import DataError
from momentkit.core.files import atomic_write
from momentkit.data.synthetic.concepts import COLOURS, ROLES

Array = NDArray[np.float32]
Codes = NDArray[np.int8]
STEP = 0.1
"""Logits are kept as multiples of this, up to 12.7 either way."""
REST = len(ROLES)
"""State of an actor that plays no role."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the encoder said of actors, one row a clip; rows of one stretch of one actor stand together.

    Attributes:
        said_MO: logits in steps of `STEP`: presence (1), colours (K), shapes (S), roles (R).
        state_M: the role the actor was in for the whole clip, or `REST`.
        colour_M, shape_M: what it is.
        stretch_M: number of the stretch, rising.
    """

    said_MO: Codes
    state_M: Codes
    colour_M: Codes
    shape_M: Codes
    stretch_M: NDArray[np.int32]

    @staticmethod
    @cache
    def bundled() -> "Reading":
        """The readings shipped with the bundled encoder."""
        with resources.as_file(resources.files("momentkit") / "assets" / "tiny_reading.npz") as path:
            return Reading.read(path)

    @staticmethod
    def read(path: Path) -> "Reading":
        """Readings as `save` wrote them.

        Raises:
            DataError: not such a file.
        """
        with np.load(path, allow_pickle=False) as file:
            if missing := sorted({field.name for field in fields(Reading)} - set(file.files)):
                raise DataError(f"{path} lacks {missing[0]}; make it anew with the encoders' training recipe")
            return Reading(**{field.name: file[field.name] for field in fields(Reading)})

    def save(self, path: Path) -> None:
        """Write an npz file."""
        arrays = {field.name: getattr(self, field.name) for field in fields(Reading)}

        def write(temporary: Path) -> None:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)

        atomic_write(path, write)

    @cached_property
    def chances_MO(self) -> Array:
        """The logits as probabilities."""
        return (1 / (1 + np.exp(-self.said_MO.astype(np.float32) * STEP))).astype(np.float32)

    @cached_property
    def stretches(self) -> list[NDArray[np.int64]]:
        """First row and length, (N, 2), of the stretches of each state."""
        first = np.flatnonzero(np.diff(self.stretch_M, prepend=-1))
        rows_N2 = np.stack([first, np.diff(np.append(first, len(self.stretch_M)))], 1)
        found = [rows_N2[self.state_M[first] == state] for state in range(REST + 1)]
        if empty := [state for state, rows in enumerate(found) if not len(rows)]:
            raise DataError(f"no reading has state {(*ROLES, 'rest')[empty[0]]}; measure more films")
        return found

    def draw(self, state: int, colour: int, shape: int, clips: int, rng: np.random.Generator) -> Array:
        """What was said over some clips on end of an actor in a state, told of one of another kind.

        Args:
            state: position in `ROLES`, or `REST`.
            colour, shape: of the actor it is told of; they trade places with those of the one it was said of.
            clips: how many.
            rng: which stretch.

        Returns:
            (clips, 1 + K + S + R) probabilities.
        """
        choices = self.stretches[state]
        first, length = choices[int(rng.integers(len(choices)))]
        rows_TO = self.chances_MO[first + (int(rng.integers(length)) + np.arange(clips)) % length]
        for start, was, now in ((1, self.colour_M, colour), (1 + len(COLOURS), self.shape_M, shape)):
            pair = [start + int(was[first]), start + now]
            rows_TO[:, pair] = rows_TO[:, pair[::-1]]
        return rows_TO
