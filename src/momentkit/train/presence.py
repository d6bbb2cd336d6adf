"""Is it in this video at all? What a model says of a query, calibrated to a probability and scored.

The evidence is the logit of the best score and the largest saliency; logistic regression makes a probability
of both. Queries that do not occur are sentences of other videos: near in wording (one data set, one domain),
but nobody has checked that none of them is true by chance ("person opens a door").

Shapes   N queries that occur   M that do not   Q both
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from momentkit.core.errors import DataError
from momentkit.core.weights import Presence, score_logits
from momentkit.metrics.overlap import Floats
from momentkit.metrics.presence import PresenceScores, presence_scores
from momentkit.train.evaluate import Row

FOREIGN = 3  # sentences of other videos that each video is asked
_RIDGE = 1e-3  # keeps weights finite where the kinds do not overlap


@dataclass(frozen=True)
class PresenceReport:
    """How well a model says that something is not in a video.

    Attributes:
        presence: fitted on all these queries; what `momentkit eval --calibrate` keeps.
        scores: each query judged by a calibration fitted on the other half of the videos.
        videos: in both halves together.
    """

    presence: Presence
    scores: PresenceScores
    videos: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"videos": self.videos, **self.scores.to_json(), "calibration": self.presence.model_dump()}


def evidence(rows: Sequence[Row]) -> Floats:
    """(Q, 2): best score, and largest saliency, of answers; 0 where there is no moment or no saliency."""
    found = []
    for row in rows:
        scores = [score for start_s, end_s, score in row["pred_relevant_windows"] if end_s > start_s]
        found.append((scores[0] if scores else 0.0, max(row.get("pred_saliency_scores") or [0.0])))
    return np.array(found, np.float64).reshape(-1, 2)


def fit_presence(there_N2: Floats, absent_M2: Floats, fitted_on: str) -> Presence:
    """The probability that a query occurs: maximum likelihood, both kinds weighted alike.

    More of either evidence never makes it less probable: the two weights are not negative.

    Args:
        there_N2: `evidence` of queries that occur.
        absent_M2: of queries that do not.
        fitted_on: what the queries are.

    Raises:
        DataError: one of the kinds has no query.
    """
    if not (len(there_N2) and len(absent_M2)):
        raise DataError(
            "presence is fitted on queries that occur and queries that do not; one kind is missing"
        )
    x_Q2 = np.concatenate([there_N2, absent_M2]).astype(np.float64)
    x_Q2[:, 0] = score_logits(x_Q2[:, 0])
    centre_2, scale_2 = x_Q2.mean(0), np.maximum(x_Q2.std(0), 1e-6)
    z_Q2 = (x_Q2 - centre_2) / scale_2
    count, sign_Q = len(there_N2), np.where(np.arange(len(x_Q2)) < len(there_N2), 1.0, -1.0)

    def loss(parameters_3: Floats) -> float:
        wrong_Q = np.logaddexp(0, -sign_Q * (z_Q2 @ parameters_3[:2] + parameters_3[2]))
        ridge = _RIDGE * (parameters_3[:2] ** 2).sum()
        return float(wrong_Q[:count].mean() + wrong_Q[count:].mean() + ridge)

    bounds = [(0, None), (0, None), (None, None)]
    weight_3 = minimize(loss, np.array([1.0, 1.0, 0.0]), method="L-BFGS-B", bounds=bounds).x
    slope_2 = weight_3[:2] / scale_2
    return Presence(
        slope=float(slope_2[0]),
        saliency=float(slope_2[1]),
        offset=float(weight_3[2] - slope_2 @ centre_2),
        fitted_on=fitted_on,
    )


def judge_presence(
    there: Sequence[Row], absent: Sequence[Row], fitted_on: str, videos: Sequence[str]
) -> PresenceReport:
    """Calibrate on one half of the videos, judge on the other, and the other way round.

    Args:
        there: answers to queries that occur.
        absent: answers to queries that do not; `vid` says of which video.
        fitted_on: what the queries are.
        videos: for each answer, first of `there`, then of `absent`, the video it is about; queries of one
            video share a half.

    Raises:
        DataError: a half without one of the kinds.
    """
    x_Q2 = evidence([*there, *absent])
    occurs_Q = np.arange(len(x_Q2)) < len(there)
    names, video_Q = np.unique(np.array(videos), return_inverse=True)
    half_Q = (np.random.default_rng(0).permutation(len(names)) % 2)[video_Q]
    probability_Q = np.zeros(len(x_Q2))
    for half in (0, 1):
        judged_Q = half_Q == half
        fitted = fit_presence(x_Q2[~judged_Q & occurs_Q], x_Q2[~judged_Q & ~occurs_Q], fitted_on)
        probability_Q[judged_Q] = fitted.probability(*x_Q2[judged_Q].T)
    whole = fit_presence(x_Q2[occurs_Q], x_Q2[~occurs_Q], fitted_on)
    return PresenceReport(
        whole, presence_scores(probability_Q[occurs_Q], probability_Q[~occurs_Q]), len(names)
    )
