"""How well queries that occur in their video are told from queries that do not.

Both kinds weigh alike, whatever their numbers.

AUROC    chance that a query that occurs is given a higher probability than one that does not; ties: half.
Rej-F1   F1 of rejecting. A query is rejected where its probability is below one half. With r the share of
         the absent queries that are rejected (recall) and f that of the present ones, the precision is
         r / (r + f) and F1 = 2 r / (1 + r + f). Rejecting everything gives 2/3, nothing 0, a coin 1/2.
ECE      expected calibration error: Guo et al. 2017, eq. 3, over 15 bins of equal weight. A calibrated model
         has an error too, the larger the fewer queries a bin has; `chance_error` says how large.

Shapes   N queries that occur   M that do not   Q both   K bins   S drawn outcomes
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import DataError
from momentkit.metrics.calibration import Bin, Calibration
from momentkit.metrics.overlap import Floats

BINS = 15
REJECT_BELOW = 0.5
DRAWS = 200


@dataclass(frozen=True)
class PresenceScores:
    """What calibrated probabilities are worth; shares lie in [0, 1].

    Attributes:
        there, absent: how many queries of each kind.
        auroc, rejection_f1, rejection_precision, rejection_recall: see the top of this file.
        curve: the bins and ECE.
        chance_error: ECE that probabilities which are exactly right would show with as many queries: the mean
            over drawn outcomes.
    """

    there: int
    absent: int
    auroc: float
    rejection_f1: float
    rejection_precision: float
    rejection_recall: float
    curve: Calibration
    chance_error: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        told = asdict(self)
        curve = told.pop("curve")
        return told | {"ece": curve["error"], "bias": curve["bias"], "bins": curve["bins"]}


def presence_scores(there_N: Floats, absent_M: Floats) -> PresenceScores:
    """Score probabilities that a query occurs, given by a calibration that saw none of these queries.

    Args:
        there_N: of queries that occur, in [0, 1].
        absent_M: of queries that do not.

    Raises:
        DataError: one of the kinds has no query.
    """
    if not (len(there_N) and len(absent_M)):
        raise DataError(
            "presence is scored on queries that occur and queries that do not; one kind is missing"
        )
    recall, wrong = float((absent_M < REJECT_BELOW).mean()), float((there_N < REJECT_BELOW).mean())
    probability_Q = np.concatenate([there_N, absent_M])
    occurs_Q = np.arange(len(probability_Q)) < len(there_N)
    weight_Q = np.where(occurs_Q, 0.5 / len(there_N), 0.5 / len(absent_M))
    index_Q = equal_bins(probability_Q, weight_Q)
    return PresenceScores(
        there=len(there_N),
        absent=len(absent_M),
        auroc=auroc(there_N, absent_M),
        rejection_f1=2 * recall / (1 + recall + wrong),
        rejection_precision=recall / (recall + wrong) if recall else 0.0,
        rejection_recall=recall,
        curve=_curve(probability_Q, occurs_Q, weight_Q, index_Q),
        chance_error=_chance_error(probability_Q, index_Q, len(there_N), len(absent_M)),
    )


def auroc(there_N: Floats, absent_M: Floats) -> float:
    """Chance that a query that occurs scores above one that does not; ties count half."""
    order_M = np.sort(absent_M)
    below_N = np.searchsorted(order_M, there_N, "left") + np.searchsorted(order_M, there_N, "right")
    return float(below_N.mean() / (2 * len(absent_M)))


def equal_bins(probability_Q: Floats, weight_Q: Floats) -> NDArray[np.int64]:
    """The bin of each query, 0 to 14: of equal weight as far as equal probabilities allow: they share one."""
    _, group_Q = np.unique(probability_Q, return_inverse=True)
    weight_G = np.bincount(group_Q, weight_Q)
    middle_G = (weight_G.cumsum() - weight_G / 2) / weight_G.sum()
    return np.minimum((BINS * middle_G).astype(np.int64), BINS - 1)[group_Q]


def _curve(
    probability_Q: Floats, occurs_Q: NDArray[np.bool_], weight_Q: Floats, index_Q: NDArray[np.int64]
) -> Calibration:
    weight_K, said_K, true_K = _shares(probability_Q, occurs_Q, weight_Q, index_Q)
    bins = []
    for number in np.unique(index_Q):
        inside_Q = probability_Q[index_Q == number]
        said, true = float(said_K[number] / weight_K[number]), float(true_K[number] / weight_K[number])
        bins.append(Bin(float(inside_Q.min()), float(inside_Q.max()), len(inside_Q), said, true))
    error, bias = float(np.abs(true_K - said_K).sum()), float(said_K.sum() - true_K.sum())
    return Calibration(REJECT_BELOW, tuple(bins), error, bias)


def _shares(
    probability_Q: Floats, occurs_Q: NDArray[np.bool_], weight_Q: Floats, index_Q: NDArray[np.int64]
) -> tuple[Floats, Floats, Floats]:
    """Of each bin the weight, and of that what is said to occur and what does."""
    parts = (weight_Q, weight_Q * probability_Q, weight_Q * occurs_Q)
    weight_K, said_K, true_K = (np.bincount(index_Q, part, BINS).astype(np.float64) for part in parts)
    return weight_K, said_K, true_K


def _chance_error(probability_Q: Floats, index_Q: NDArray[np.int64], there: int, absent: int) -> float:
    """Mean ECE where each query occurs with just the probability given, the kinds weighted as they are."""
    odds_Q = probability_Q / np.maximum(1 - probability_Q, 1e-12) * there / absent
    chance_Q, generator, errors = odds_Q / (1 + odds_Q), np.random.default_rng(0), []
    for _ in range(DRAWS):
        occurs_Q = generator.random(len(chance_Q)) < chance_Q
        weight_Q = np.where(occurs_Q, 0.5 / there, 0.5 / absent)
        weight_K, said_K, true_K = _shares(probability_Q, occurs_Q, weight_Q, index_Q)
        errors.append(np.abs(true_K - said_K).sum() / weight_K.sum())
    return float(np.mean(errors))
