"""Whether a confidence means what it says: the reliability curve and the expected calibration error.

A calibrated model is right in 70 % of the answers to which it gives the confidence 0.7.

Source   Guo et al. 2017, eq. 2 and 3, bins of equal width
Shapes   Q queries   K bins
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from momentkit.metrics.overlap import Floats

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies between two borders.

    Attributes:
        low, high: borders; the upper one belongs to the bin.
        answers: how many.
        confidence: their mean, in [0, 1].
        right: share of them that is right, in [0, 1].
    """

    low: float
    high: float
    answers: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """The curve and what it comes to.

    Attributes:
        threshold: overlap from which an answer is right.
        bins: those with answers, in order.
        error: expected calibration error, eq. 3, in [0, 1].
        bias: mean confidence minus the share that is right; above 0 = too sure.
    """

    threshold: float
    bins: tuple[Bin, ...]
    error: float
    bias: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def calibration(confidence_Q: Floats, right_Q: NDArray[np.bool_], threshold: float) -> Calibration | None:
    """The reliability curve of answers; None where a confidence is none, that is outside [0, 1].

    Args:
        confidence_Q: of the first window of each query.
        right_Q: whether that window is right.
        threshold: overlap that made it so.
    """
    if not len(confidence_Q) or not ((confidence_Q >= 0) & (confidence_Q <= 1)).all():
        return None
    borders = np.linspace(0, 1, BINS + 1)
    index_Q = np.clip(np.searchsorted(borders, confidence_Q, side="left") - 1, 0, BINS - 1)
    bins = [
        Bin(
            float(borders[k]),
            float(borders[k + 1]),
            int((index_Q == k).sum()),
            float(confidence_Q[index_Q == k].mean()),
            float(right_Q[index_Q == k].mean()),
        )
        for k in range(BINS)
        if (index_Q == k).any()
    ]
    total = len(confidence_Q)
    error = sum(part.answers / total * abs(part.right - part.confidence) for part in bins)
    return Calibration(threshold, tuple(bins), error, float(confidence_Q.mean() - right_Q.mean()))
