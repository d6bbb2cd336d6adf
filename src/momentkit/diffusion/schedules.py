"""How much of the signal is left at each step of noising, and which steps a sampler visits.

A schedule is one float64 table: share_T[t], the cumulative product of 1 - beta up to step t (alpha-bar in the
papers). A noisy signal is sqrt(share) signal + sqrt(1 - share) noise; step 0 is the cleanest.

Shapes   T steps of the schedule
Source   cosine: Nichol and Dhariwal 2021, eq. 17; linear: Ho et al. 2020, section 4
"""

from math import pi
from typing import Literal

import torch
from torch import Tensor

from momentkit.core.errors import ConfigError

Schedule = Literal["cosine", "linear"]
LARGEST_BETA = 0.999  # the cosine's last step would be 1: no signal at all, and a division by zero


def cosine_betas(steps: int = 1000, offset: float = 0.008) -> Tensor:
    """Variance that each step adds, (T,) float64, so that the share falls like a squared cosine.

    Args:
        steps: T.
        offset: keeps the first steps from adding next to nothing.
    """
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    curve = torch.cos((time + offset) / (1 + offset) * pi / 2) ** 2
    return (1 - curve[1:] / curve[:-1]).clamp(0, LARGEST_BETA)


def linear_betas(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """Variance that each step adds, (T,) float64, evenly rising.

    Args:
        steps: T; `first` and `last` hold for 1000 and are scaled for another number.
        first, last: of the first and the last step.
    """
    return torch.linspace(first, last, steps, dtype=torch.float64) * (1000 / steps)


def signal_share(betas_T: Tensor) -> Tensor:
    """Share of the signal's variance that is left after each step, (T,) float64."""
    return (1 - betas_T).cumprod(0)


def schedule(name: Schedule, steps: int = 1000) -> Tensor:
    """share_T of a schedule by name.

    Raises:
        ConfigError: no such schedule.
    """
    if name not in ("cosine", "linear"):
        raise ConfigError(f"there is no schedule {name!r}; there are cosine, linear")
    return signal_share(cosine_betas(steps) if name == "cosine" else linear_betas(steps))


def step_times(total: int, steps: int) -> list[int]:
    """Steps that a sampler visits, from total - 1 down, and -1 (no noise) behind the last.

    Evenly spaced in whole numbers. The published float32 arithmetic gives the same but for 84 of the 1000
    step counts of T = 1000 (26, 52, 60, ...; not 1 to 25, 50, 100), where it lands one step lower.

    Raises:
        ConfigError: `steps` is not within 1..total.

    >>> step_times(1000, 3)
    [999, 665, 332, -1]
    """
    if not 1 <= steps <= total:
        raise ConfigError(f"a sampler takes 1 to {total} steps, got {steps}")
    return [index * total // steps - 1 for index in range(steps, -1, -1)]
