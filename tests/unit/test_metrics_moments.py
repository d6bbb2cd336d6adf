"""Moment metrics on cases that can be worked out by hand."""

import numpy as np
import pytest

from momentkit.metrics import arrays
from momentkit.metrics.arrays import blocks, pad_rows, percent
from momentkit.metrics.moments import (
    MAP_THRESHOLDS,
    WindowTable,
    average_precision,
    first_window_iou,
    undefined_overlaps,
)
from momentkit.metrics.overlap import iou_cross, iou_paired


def table(*rows):
    return WindowTable(*pad_rows([np.array(row, dtype=np.float64) for row in rows]))


def ap_at_half(predicted, true, **options):
    return average_precision(table(predicted), table(true), (0.5,), **options)[0, 0]


def test_thresholds_are_parsed_decimals_not_sums_of_steps():
    assert MAP_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@pytest.mark.parametrize(
    ("fraction", "printed"), [(0.03125, 3.12), (0.09375, 9.38), (0.00625, 0.62), (1.0, 100.0)]
)
def test_figures_round_half_to_even(fraction, printed):
    assert percent(fraction) == printed


def test_an_overlap_equal_to_the_threshold_is_a_hit():
    assert ap_at_half([[0, 5, 1.0]], [[0, 10]]) == 1
    assert ap_at_half([[0, 4.999, 1.0]], [[0, 10]]) == 0


def test_a_repeated_window_is_a_false_positive_once_its_truth_is_taken():
    predicted = [[0, 10, 0.9], [0, 10, 0.8], [20, 30, 0.7]]
    assert ap_at_half(predicted, [[0, 10], [20, 30]]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_equal_scores_keep_file_order():
    right, wrong = [0, 10, 0.5], [50, 60, 0.5]
    assert ap_at_half([right, wrong], [[0, 10]]) == 1
    assert ap_at_half([wrong, right], [[0, 10]]) == 0.5


def test_precision_is_interpolated_from_the_right():
    predicted = [[50, 60, 0.9], [0, 10, 0.8], [20, 30, 0.7]]
    assert ap_at_half(predicted, [[0, 10], [20, 30]]) == pytest.approx(2 / 3)  # not (1/2 + 2/3) / 2


def test_ties_of_overlap_follow_the_asked_order():
    predicted = [[5, 15, 0.9], [0, 10, 0.8]]  # the first fits both true windows equally
    touching = [[0, 10], [10, 20]]
    assert iou_cross(np.array([[5.0, 15.0]]), np.array(touching, dtype=float)).tolist() == [[1 / 3, 1 / 3]]
    first, second = (
        average_precision(table(predicted), table(touching), (0.3,), tie_order=order)[0, 0]
        for order in ("highest", "lowest")
    )
    assert (first, second) == (1.0, 0.5)  # taking the first true window leaves none for [0, 10]


def test_an_undefined_overlap_counts_as_a_hit_and_is_counted():
    nothing = [[5, 5, 1.0]], [[7, 7]]
    assert ap_at_half(*nothing) == 1
    assert undefined_overlaps(*map(table, nothing)) == 1


def test_a_reversed_window_has_no_overlap():
    assert iou_cross(np.array([[8.0, 2.0]]), np.array([[0.0, 10.0]]))[0, 0] == 0
    assert iou_paired(np.array([8.0, 2.0]), np.array([0.0, 10.0])) == 0


def test_the_first_window_is_scored_whatever_its_score():
    first = np.array([[0.0, 10.0]])
    assert first_window_iou(first, table([[90, 95], [5, 10], [0, 20]])).tolist() == [0.5]


def test_padding_never_changes_a_query():
    alone = average_precision(table([[0, 10, 0.5]]), table([[0, 8]]))
    beside = average_precision(
        table([[0, 10, 0.5]], [[i, i + 1, 0.1] for i in range(9)]), table([[0, 8]], [[1, 2], [3, 4], [5, 9]])
    )
    np.testing.assert_array_equal(beside[0], alone[0])


def test_blocks_give_the_same_as_one_piece(monkeypatch):
    random = np.random.default_rng(0)
    start = random.integers(0, 20, (30, 10, 1)).astype(float)
    windows = np.concatenate([start, start + 5, random.random((30, 10, 1))], axis=2)
    predicted = WindowTable(windows, np.ones((30, 10), dtype=bool))
    truth = WindowTable(windows[:, :3, :2] + 1, np.ones((30, 3), dtype=bool))
    whole = average_precision(predicted, truth)
    monkeypatch.setattr(arrays, "BLOCK_ENTRIES", 200)
    np.testing.assert_array_equal(average_precision(predicted, truth), whole)
    assert list(blocks(5, 100)) == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_inputs_are_not_written_to():
    predicted, truth = table([[0, 10, 0.2], [3, 9, 0.7]]), table([[0, 8], [2, 4]])
    before = predicted.windows.copy(), truth.windows.copy()
    average_precision(predicted, truth)
    np.testing.assert_array_equal(predicted.windows, before[0])
    np.testing.assert_array_equal(truth.windows, before[1])
