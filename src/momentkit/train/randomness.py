"""Randomness of a step as a pure function of its place in the run."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(device: torch.device, *place: int) -> Iterator[torch.Generator]:
    """Inside, torch's random state, which dropout reads, follows from `place` alone; outside it is untouched.

    So a resumed run needs no stored random state, and an evaluation in between changes nothing.

    Args:
        device: whose state.
        *place: such as (seed, step, process).

    Yields:
        A generator on the device, for models that draw noise.
    """
    first, second = (int(word) for word in np.random.SeedSequence(place).generate_state(2, np.uint64) >> 1)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(first)
        yield torch.Generator(device).manual_seed(second)
