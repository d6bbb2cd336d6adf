"""Presence: a calibrated chance that the query occurs."""

import numpy as np
import pytest

from momentkit.core.errors import DataError
from momentkit.train.presence import auroc, fit_presence, score_logits


def test_calibration_recovers_how_scores_were_made() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20_000)
    occurs = rng.random(20_000) < 1 / (1 + np.exp(-(1.5 * logits - 1)))
    scores = 1 / (1 + np.exp(-logits))
    presence = fit_presence(scores[occurs], scores[~occurs], "made")
    assert abs(presence.slope - 1.5) < 0.1
    said = 1 / (1 + np.exp(-(presence.slope * score_logits(scores) + presence.offset)))
    weights = np.where(occurs, 0.5 / occurs.mean(), 0.5 / (~occurs).mean())
    for low in (0.2, 0.5, 0.8):
        inside = (said >= low) & (said < low + 0.1)
        assert abs(np.average(occurs[inside], weights=weights[inside]) - said[inside].mean()) < 0.05


def test_auroc_by_definition() -> None:
    assert auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == (1 + 1 + 0.5 + 1) / 4


def test_one_kind_alone_cannot_be_calibrated() -> None:
    with pytest.raises(DataError, match="one kind is missing"):
        fit_presence(np.array([0.5]), np.array([]), "nothing")
