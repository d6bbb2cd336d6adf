"""What a comparison with stored outputs says: a line a case, the largest difference a stage."""

from dataclasses import dataclass
from math import inf, isnan

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class StageResult:
    """The largest difference of one stage against what may be asked for."""

    stage: str
    difference: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """A NaN difference is a failure."""
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class CaseResult:
    """A stored case: its stages, or a note why it did not run.

    A case without stages did not run and counts as a failure: nothing is skipped in silence.
    """

    case: str
    stages: tuple[StageResult, ...] = ()
    note: str = ""

    @property
    def ok(self) -> bool:
        return bool(self.stages) and all(stage.ok for stage in self.stages)


def compare(stage: str, ours: ArrayLike, stored: ArrayLike, tolerance: float) -> StageResult:
    """Largest absolute difference of two arrays; infinite where shapes or NaN places differ."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(stored, dtype=np.float64)
    if a.shape != b.shape:
        return StageResult(f"{stage} shape {a.shape} against {b.shape}", inf, tolerance)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):  # equal infinities are equal; their difference is never used
        difference = np.where(same, 0.0, np.abs(a - b))
    largest = float(difference.max(initial=0.0))
    return StageResult(stage, inf if isnan(largest) else largest, tolerance)


def compare_relative(
    stage: str, ours: float, stored: float, tolerance: float, floor: float = 0.0
) -> StageResult:
    """Difference of two numbers over (|stored| + floor)."""
    scale = abs(stored) + floor
    difference = abs(ours - stored) / scale if scale else abs(ours - stored)
    return StageResult(stage, inf if isnan(difference) else difference, tolerance)
