"""Paired bootstrap: how sure the difference of two systems on the same queries is.

Queries of one video are alike, so videos are drawn, each with all its queries.

Source   Efron and Tibshirani 1993, chapters 6, 8.6 and 13 (percentile interval)
Shapes   Q queries   V videos   R draws
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from momentkit.metrics.arrays import blocks
from momentkit.metrics.overlap import Floats


@dataclass(frozen=True)
class Difference:
    """Second system minus first, in the unit of the values.

    Attributes:
        first, second: mean of each system over the queries.
        difference: of the means.
        low, high: borders of the confidence interval of the difference.
        not_better: share of the draws in which the difference has the other sign or is 0, of the rarer side.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    not_better: float

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"sure": self.sure}


def paired_bootstrap(
    first_Q: Floats,
    second_Q: Floats,
    groups: Sequence[Hashable],
    *,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Confidence interval of the difference of two means over the same queries.

    Args:
        first_Q, second_Q: a value a query, of the one and the other system.
        groups: video of each query.
        draws: R.
        level: of the interval.
        seed: of the draws.
    """
    names, index_Q = np.unique(np.array([str(group) for group in groups]), return_inverse=True)
    videos = len(names)
    sum_V = np.bincount(index_Q, weights=second_Q - first_Q, minlength=videos)
    count_V = np.bincount(index_Q, minlength=videos).astype(np.float64)
    generator = np.random.default_rng(seed)
    drawn_R = np.empty(draws)
    for rows in blocks(draws, videos):
        times_RV = generator.multinomial(videos, np.full(videos, 1 / videos), size=len(drawn_R[rows]))
        drawn_R[rows] = (times_RV @ sum_V) / (times_RV @ count_V)
    low, high = np.quantile(drawn_R, [(1 - level) / 2, (1 + level) / 2])
    other_side = min(float((drawn_R <= 0).mean()), float((drawn_R >= 0).mean()))
    first, second = float(first_Q.mean()), float(second_Q.mean())
    return Difference(first, second, second - first, float(low), float(high), other_side)
