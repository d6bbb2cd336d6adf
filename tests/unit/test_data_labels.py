"""The label rules, each against the sentence that states it."""

import numpy as np
import pytest

from momentkit.data.labels import binary_labels, no_labels, rated_labels, rater_labels, window_labels


def rng(seed=0):
    return np.random.default_rng(seed)


def test_rated_clips_carry_the_sum_of_their_raters():
    labels = rated_labels([1, 3], [[4, 3, 2], [0, 1, 0]], 5, rng())
    np.testing.assert_array_equal(labels.saliency_T, [0, 9, 0, 1, 0])
    assert labels.saliency_T.dtype == np.float32


def test_the_first_pair_is_highest_against_lowest_and_the_second_relevant_against_other():
    seen = set()
    for seed in range(100):
        labels = rated_labels([1, 3, 4], [[1], [4], [0]], 7, rng(seed))
        assert (labels.positive_clip_P[0], labels.negative_clip_P[0]) == (3, 4)
        seen.add((int(labels.positive_clip_P[1]), int(labels.negative_clip_P[1])))
    assert seen == {(positive, negative) for positive in (1, 3, 4) for negative in (0, 2, 5, 6)}


def test_equal_sums_are_decided_by_clip_order():
    for seed in range(30):
        sums = rng(seed).integers(0, 3, 60)
        labels = rated_labels(range(60), sums[:, None], 61, rng())
        assert labels.positive_clip_P[0] == np.flatnonzero(sums == 2)[-1]
        assert labels.negative_clip_P[0] == np.flatnonzero(sums == 0)[0]


def test_where_every_clip_is_relevant_the_second_pair_repeats_the_first():
    labels = rated_labels([0, 1, 2], [[1], [3], [2]], 3, rng())
    assert labels.positive_clip_P.tolist() == [1, 1]
    assert labels.negative_clip_P.tolist() == [0, 0]


def test_relevant_clips_beyond_the_features_are_left_out():
    labels = rated_labels([1, 2, 5, 9], [[1], [2], [4], [0]], 5, rng())
    np.testing.assert_array_equal(labels.saliency_T, [0, 1, 2, 0, 0])
    assert (labels.positive_clip_P[0], labels.negative_clip_P[0]) == (2, 1)
    nothing = rated_labels([5, 9], [[4], [0]], 5, rng())
    np.testing.assert_array_equal(nothing.saliency_T, np.zeros(5))


@pytest.mark.parametrize(
    ("window_s", "first", "last"),
    [
        ((0.0, 10.0), 0, 9),
        ((2.5, 5.0), 2, 4),
        ((2.5, 5.5), 2, 4),  # the clip in which it ends is left out
        ((2.2, 2.9), 1, 1),  # shorter than a clip: one clip all the same, as published
        ((9.9, 10.0), 9, 9),
        ((0.1, 0.2), 0, 0),
        ((12.0, 15.0), 9, 9),
    ],
)
def test_a_window_covers_at_least_one_clip(window_s, first, last):
    expected = np.zeros(10)
    expected[first : last + 1] = 1
    np.testing.assert_array_equal(window_labels([window_s], 10, 1.0, rng()).saliency_T, expected)


def test_several_windows_are_all_positive():
    labels = window_labels([(1, 3), (6, 8)], 10, 1.0, rng())
    np.testing.assert_array_equal(np.flatnonzero(labels.saliency_T), [1, 2, 6, 7])


def test_random_pairs_are_two_different_clips_in_and_two_outside():
    positives, negatives = set(), set()
    for seed in range(200):
        labels = window_labels([(2, 5)], 6, 1.0, rng(seed))
        positives.add(tuple(labels.positive_clip_P.tolist()))
        negatives.add(tuple(labels.negative_clip_P.tolist()))
    assert positives == {(a, b) for a in (2, 3, 4) for b in (2, 3, 4) if a != b}
    assert negatives == {(a, b) for a in (0, 1, 5) for b in (0, 1, 5) if a != b}


def test_one_positive_is_taken_twice_and_with_one_clip_outside_positives_stand_for_negatives():
    assert window_labels([(2, 3)], 6, 1.0, rng()).positive_clip_P.tolist() == [2, 2]
    labels = window_labels([(0, 5)], 6, 1.0, rng())
    np.testing.assert_array_equal(labels.negative_clip_P, labels.positive_clip_P)


def test_a_row_in_which_nothing_matches_gets_a_pair_without_gradient():
    for labels in (window_labels([], 6, 1.0, rng()), rated_labels([], [], 6, rng()), no_labels(6)):
        np.testing.assert_array_equal(labels.saliency_T, np.zeros(6))
        np.testing.assert_array_equal(labels.positive_clip_P, labels.negative_clip_P)
        assert len(labels.positive_clip_P) == 2


def test_tvsum_labels_lie_between_0_and_12():
    labels = rater_labels([[1] * 20, [5] * 20, [3] * 20, [5] * 20], 3)
    np.testing.assert_array_equal(labels.saliency_T, [0, 12, 6])
    assert (labels.positive_clip_P.tolist(), labels.negative_clip_P.tolist()) == ([1], [0])


def test_youtube_labels_are_taken_as_they_are():
    labels = binary_labels([[0], [1], [1], [0]], 4)
    np.testing.assert_array_equal(labels.saliency_T, [0, 1, 1, 0])
    assert (labels.positive_clip_P.tolist(), labels.negative_clip_P.tolist()) == ([2], [0])


def test_inputs_are_not_written_to():
    clips, scores = [1, 2], [[1.0], [2.0]]
    rated_labels(clips, scores, 4, rng())
    assert (clips, scores) == ([1, 2], [[1.0], [2.0]])
