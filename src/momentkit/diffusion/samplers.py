"""From noise to signal: DDIM, for any network and any shape; and the noise that it starts from.

A network estimates, from a noisy signal x at step t, either the clean signal or the noise. Each step takes
the estimate, goes back to the noise level of the next step, and adds fresh noise by `eta`: 0 = none, 1 = as
much as the ancestral sampler. The answer is the estimate of the last step: x is never noised to level -1.

All coefficients are float64 numbers: in float32 the root below turns NaN at the first step of the cosine
schedule (1 - share' - sigma^2 is 5.6e-9 there for three steps).

A sample's noise follows from the seed and the sample's key alone (without keys all samples share theirs),
and more rows leave the first as they are: same seed, same answer, whatever the batch, its order, its padding.

Shapes   B samples   T steps of the schedule   N rows of a sample (spans, clips, cells)
Source   Song et al., "Denoising Diffusion Implicit Models", ICLR 2021, eq. 12 and 16
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from momentkit.core.errors import ConfigError
from momentkit.diffusion.schedules import step_times

Aside = TypeVar("Aside")  # whatever a network gives beside its estimate: logits, spans of every layer, None
Denoiser = Callable[[Tensor, int], tuple[Tensor, Aside]]
ROWS = 16  # rows of noise drawn at once


class Coefficients(NamedTuple):
    """x' = signal * estimate + noise * implied noise + fresh * new noise."""

    signal: float
    noise: float
    fresh: float


@dataclass(frozen=True)
class Step(Generic[Aside]):
    """One call of the network.

    Attributes:
        time: step of the schedule.
        x: what it was given.
        start: the clean signal it estimates.
        noise: the noise that, with `start`, makes `x`.
        aside: what else it gave.
    """

    time: int
    x: Tensor
    start: Tensor
    noise: Tensor
    aside: Aside


def ddim_coefficients(share_T: Tensor, time: int, following: int, eta: float) -> Coefficients:
    """Coefficients of the update from step `time` to the less noisy step `following` >= 0."""
    share, after = float(share_T[time]), float(share_T[following])
    fresh = eta * max(0.0, (1 - after) / (1 - share) * (1 - share / after)) ** 0.5  # eq. 16
    return Coefficients(after**0.5, max(0.0, 1 - after - fresh**2) ** 0.5, fresh)  # eq. 12


def ddim(
    denoise: Denoiser[Aside],
    start: Tensor,
    share_T: Tensor,
    steps: int | Sequence[int],
    *,
    eta: float = 1.0,
    estimates: Literal["signal", "noise"] = "signal",
    generator: torch.Generator | None = None,
    keys: Sequence[int] = (),
    fresh: Sequence[Tensor] | None = None,
) -> tuple[Tensor, tuple[Step[Aside], ...]]:
    """Denoise.

    Args:
        denoise: (x, t) -> estimate of the shape of x, and anything else that the trace shall hold. It is
            called once a step, with the same t for the whole batch.
        start: (B, N, ...) pure noise, at step `times[0]`; not written to. The state keeps its type.
        share_T: float64 table, see `schedules`.
        steps: how many, 1..T, evenly spaced; or the steps themselves, falling.
        eta: 0 = no fresh noise, 1 = ancestral.
        estimates: what `denoise` estimates.
        generator, keys: of fresh noise, see `noise_like`.
        fresh: fresh noise of each step in place of drawn, for stored runs; the last is not used.

    Returns:
        The signal that the last step estimates, and all steps.

    Raises:
        ConfigError: a number of steps or an eta that cannot be.
    """
    total = len(share_T)
    times = step_times(total, steps)[:-1] if isinstance(steps, int) else list(steps)
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta lies in 0..1, got {eta}")
    if not times or not all(total > a > b for a, b in zip(times, [*times[1:], -1], strict=True)):
        raise ConfigError(f"the steps of a sampler fall from below {total} to 0 or more, got {times}")
    x, trace = start, list[Step[Aside]]()
    for index, time in enumerate(times):
        estimate, aside = denoise(x, time)
        signal, noise = both(x, estimate.to(x.dtype), float(share_T[time]), estimates)
        trace.append(Step(time, x, signal, noise, aside))
        if index + 1 < len(times):
            by = ddim_coefficients(share_T, time, times[index + 1], eta)
            x = by.signal * signal + by.noise * noise
            if by.fresh > 0:
                drawn = noise_like(start, generator, keys) if fresh is None else fresh[index].to(x)
                x = x + by.fresh * drawn
    return trace[-1].start, tuple(trace)


def both(
    x: Tensor, estimate: Tensor, share: float, estimates: Literal["signal", "noise"]
) -> tuple[Tensor, Tensor]:
    """Signal and noise, from x and an estimate of one: x = sqrt(share) signal + sqrt(1 - share) noise."""
    if estimates == "noise":
        return (x - (1 - share) ** 0.5 * estimate) / share**0.5, estimate
    return estimate, (x - share**0.5 * estimate) / (1 - share) ** 0.5


def add_noise(signal: Tensor, noise: Tensor, share_T: Tensor, time_B: Tensor) -> Tensor:
    """The noisy signal at a step of its own for each sample: sqrt(share) signal + sqrt(1 - share) noise.

    Args:
        signal, noise: (B, ...).
        share_T: float64 table.
        time_B: whole numbers, 0..T-1.
    """
    share = share_T[time_B.cpu()].view(-1, *[1] * (signal.ndim - 1))
    return share.sqrt().to(signal) * signal + (1 - share).sqrt().to(signal) * noise


def noise_like(like: Tensor, generator: torch.Generator | None = None, keys: Sequence[int] = ()) -> Tensor:
    """Standard normal noise: each sample's own where there are keys, else the same for every sample.

    The generator gives one seed a call, whatever the shape; seed and key together give a sample's noise.

    Args:
        like: (B, N, ...), for shape, type and device.
        generator: gives the seed. One on the CPU gives the same noise whatever the device of `like`.
            None = torch's own.
        keys: B whole numbers >= 0, such as `Batch.noise_keys`; equal keys, equal noise. Empty: all alike.
    """
    at = generator.device if generator is not None else "cpu"
    seed = int(torch.randint(2**62, (), generator=generator, device=at))
    if not keys:
        return _rows(seed, like.shape[1:]).to(like).expand(like.shape).contiguous()
    seeds = (int(np.random.SeedSequence((seed, key)).generate_state(1, np.uint64)[0] >> 2) for key in keys)
    return torch.stack([_rows(own, like.shape[1:]) for own in seeds]).to(like)


def _rows(seed: int, shape: torch.Size) -> Tensor:
    """Noise of one sample (N, ...), a fixed number of rows at a time: more leave the first as they are."""
    own = torch.Generator().manual_seed(seed)
    blocks = [torch.randn(ROWS, *shape[1:], generator=own) for _ in range(-(-shape[0] // ROWS))]
    return torch.cat(blocks)[: shape[0]] if blocks else torch.empty(shape)
