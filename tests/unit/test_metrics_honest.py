"""Parts of the queries, calibration and the paired bootstrap, against their definitions."""

import numpy as np
import pytest

from momentkit.metrics.bootstrap import paired_bootstrap
from momentkit.metrics.breakdown import (
    LENGTH,
    MOMENTS,
    POSITION,
    WORDS,
    breakdown,
    moment_properties,
    part_figures,
)
from momentkit.metrics.calibration import calibration


def test_the_longest_moment_speaks_for_its_query() -> None:
    found = moment_properties([[(0.0, 4.0), (20.0, 30.0)], [(1.0, 3.0)]], [40.0, 4.0], ["a b c", "one"])
    assert found[LENGTH].tolist() == [10.0, 2.0] and found[POSITION].tolist() == [0.625, 0.5]
    assert found[WORDS].tolist() == [3, 1] and found[MOMENTS].tolist() == [2, 1]


@pytest.mark.parametrize("scale", [LENGTH, POSITION, WORDS, MOMENTS], ids=lambda scale: scale.name)
def test_each_query_is_in_one_part_and_a_border_belongs_to_the_upper_one(scale) -> None:
    first = scale.borders[0]
    values = np.array([max(first, each) for each in (0.1, 0.5, 1, 2, 4.999, 5, 7, 10, 29.9, 30, 1e6)])
    parts = scale.parts(values)
    assert tuple(parts) == scale.labels
    assert (np.sum(list(parts.values()), axis=0) == 1).all()
    on_borders = scale.parts(np.array(scale.borders[:-1], dtype=float))
    assert [member.tolist() for member in on_borders.values()] == np.eye(
        len(scale.labels), dtype=bool
    ).tolist()


def test_figures_of_a_part_are_those_of_its_queries_and_all_parts_make_up_the_whole() -> None:
    generator = np.random.default_rng(0)
    iou, ap = generator.random(40), generator.random((40, 10))
    length = generator.random(40) * 60
    parts = breakdown(iou, ap, {LENGTH: length})[LENGTH.name]
    inside = (length >= 5) & (length < 10)
    assert parts["5 to 10 s"]["R1@0.5"] == pytest.approx(100 * np.mean([each >= 0.5 for each in iou[inside]]))
    assert parts["5 to 10 s"]["mAP"] == pytest.approx(100 * ap[inside].mean())
    for name in ("R1@0.5", "R1@0.7", "mIoU", "mAP"):
        filled = [part for part in parts.values() if part["queries"]]
        whole = sum(part[name] * part["queries"] for part in filled) / 40
        assert whole == pytest.approx(part_figures(iou, ap, np.ones(40, bool))[name])
    assert part_figures(iou, ap, np.zeros(40, bool)) == {"queries": 0}


def test_the_calibration_error_is_that_of_its_definition() -> None:
    generator = np.random.default_rng(1)
    confidence = generator.random(500)
    confidence[:3] = (0.0, 0.1, 1.0)  # borders
    right = generator.random(500) < confidence**2
    curve = calibration(confidence, right, 0.5)
    assert curve is not None
    expected, counted = 0.0, 0
    for number in range(10):
        low, high = number / 10, (number + 1) / 10
        member = [i for i, c in enumerate(confidence) if low < c <= high + 1e-12 or (number == 0 and c == 0)]
        counted += len(member)
        expected += abs(sum(right[i] for i in member) - sum(confidence[i] for i in member)) / 500
    assert counted == 500 and curve.error == pytest.approx(expected)
    assert sum(part.answers for part in curve.bins) == 500
    assert curve.bias == pytest.approx(confidence.mean() - right.mean()) and curve.bias > 0.1


def test_answers_that_are_as_often_right_as_they_say_have_no_error() -> None:
    confidence, right = np.repeat([0.25, 0.75], 400), np.tile([True, False, False, False], 100)
    right = np.concatenate([right, ~right])
    curve = calibration(confidence, right, 0.5)
    assert curve is not None and curve.error == 0 and curve.bias == 0
    sure = calibration(np.ones(800), right, 0.5)
    assert sure is not None and sure.error == pytest.approx(0.5) == sure.bias


@pytest.mark.parametrize("score", [1.2, -0.1, float("nan")])
def test_scores_that_are_no_confidences_have_no_curve(score: float) -> None:
    assert calibration(np.array([0.5, score]), np.array([True, True]), 0.5) is None
    assert calibration(np.array([]), np.array([], dtype=bool), 0.5) is None


def test_the_bootstrap_finds_the_interval_of_theory() -> None:
    generator = np.random.default_rng(2)
    first = generator.random(400)
    second = first + 0.1 + generator.normal(0, 0.5, 400)
    found = paired_bootstrap(first, second, list(range(400)))
    gap = second - first
    half = 1.96 * gap.std(ddof=1) / 20
    assert found.difference == pytest.approx(gap.mean()) == found.second - found.first
    assert found.low == pytest.approx(gap.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(gap.mean() + half, abs=0.1 * half)
    assert found.sure and found == paired_bootstrap(first, second, list(range(400)))


def test_queries_of_one_video_count_as_one_draw() -> None:
    generator = np.random.default_rng(3)
    gap = generator.normal(0.3, 1, 50)
    single = paired_bootstrap(np.zeros(50), gap, [f"v{i}" for i in range(50)])
    copied = paired_bootstrap(np.zeros(500), np.repeat(gap, 10), [f"v{i // 10}" for i in range(500)])
    alone = paired_bootstrap(np.zeros(500), np.repeat(gap, 10), list(range(500)))
    assert (copied.low, copied.high) == pytest.approx((single.low, single.high))
    assert alone.high - alone.low < 0.5 * (copied.high - copied.low)


def test_a_system_is_not_surely_better_than_itself_or_than_chance() -> None:
    values = np.random.default_rng(4).random(60)
    same = paired_bootstrap(values, values, list(range(60)), draws=500)
    assert (same.difference, same.low, same.high, same.sure) == (0, 0, 0, False)
    there = paired_bootstrap(values, values[::-1], list(range(60)), draws=2000)
    back = paired_bootstrap(values[::-1], values, list(range(60)), draws=2000)
    assert not there.sure and there.low == pytest.approx(-back.high) and there.not_better == back.not_better


def test_nineteen_of_twenty_intervals_hold_the_true_difference() -> None:
    generator = np.random.default_rng(5)
    held = 0
    for trial in range(200):
        gap = generator.normal(0.2, 1.0, 80)
        found = paired_bootstrap(np.zeros(80), gap, list(range(80)), draws=400, seed=trial)
        held += found.low <= 0.2 <= found.high
    assert 180 <= held <= 198
