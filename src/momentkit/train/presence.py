"""Is it in this video at all? The best score of a query, calibrated to a probability.

Platt scaling on held-out queries: half occur in their video, half do not.

Shapes   N queries that occur   M that do not
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from momentkit.core.errors import DataError
from momentkit.core.weights import Presence


def score_logits(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits of scores in [0, 1], as the grounder takes them."""
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


def fit_presence(there_N: NDArray[np.float64], absent_M: NDArray[np.float64], fitted_on: str) -> Presence:
    """Slope and offset of the probability that a query occurs: maximum likelihood, both kinds weighted alike.

    Args:
        there_N: best score of each query that occurs, in [0, 1].
        absent_M: best score of each query that does not.
        fitted_on: what the queries are.

    Raises:
        DataError: one of the kinds has no query.
    """
    if not (len(there_N) and len(absent_M)):
        raise DataError(
            "presence is fitted on queries that occur and queries that do not; one kind is missing"
        )
    there, absent = score_logits(there_N), score_logits(absent_M)

    def loss(parameters: NDArray[np.float64]) -> float:
        slope, offset = parameters
        said_no = np.logaddexp(0, -(slope * there + offset)).mean()
        said_yes = np.logaddexp(0, slope * absent + offset).mean()
        return float(said_no + said_yes)

    slope, offset = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
    return Presence(slope=float(slope), offset=float(offset), fitted_on=fitted_on)


def auroc(there_N: NDArray[np.float64], absent_M: NDArray[np.float64]) -> float:
    """Chance that a query that occurs scores above one that does not; ties count half."""
    above = (there_N[:, None] > absent_M[None]).mean()
    return float(above + (there_N[:, None] == absent_M[None]).mean() / 2)
