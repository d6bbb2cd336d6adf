"""Rank n@m, score maps, DiDeMo and the length limit on cases that can be worked out by hand."""

import numpy as np
import pytest

from momentkit.core.errors import ConfigError, SubmissionError
from momentkit.metrics.didemo import SEGMENTS, didemo_scores, single_target
from momentkit.metrics.postprocess import limit_lengths
from momentkit.metrics.ranking import RankProtocol, joint_map, map_rankings, rank_scores, suppress


def windows(*rows):
    return np.array(rows, dtype=np.float64)


def test_a_hit_needs_more_than_the_threshold():
    truth = windows([0, 10])
    half = RankProtocol(overlaps=(0.5,), ranks=(1,))
    assert rank_scores([windows([0, 5])], truth, half).rank.tolist() == [[0.0]]
    assert rank_scores([windows([0, 5.001])], truth, half).rank.tolist() == [[1.0]]


def test_a_window_that_overlaps_as_much_as_allowed_stays():
    kept, real = suppress([windows([0, 10], [0, 5], [0, 6])], RankProtocol(ranks=(5,), suppress_above=0.5))
    assert kept[real].tolist() == [[0, 10], [0, 5]]


def test_fewer_windows_than_asked_are_no_error():
    scores = rank_scores([windows([0, 4])], windows([0, 4]), RankProtocol(ranks=(1, 5)))
    assert scores.rank[:, 1].tolist() == [1.0] * 4
    assert scores.miou == 1


@pytest.mark.parametrize("bad", [windows([3, 3]), windows([4, 2]), windows([np.nan, 2]), np.zeros((0, 2))])
def test_a_window_without_length_is_refused(bad):
    with pytest.raises(SubmissionError, match="ranking 2"):
        rank_scores([windows([0, 1]), bad], windows([0, 1], [0, 1]))


def test_coarse_scales_fill_the_cells_between_and_the_largest_value_stands():
    fine = np.zeros((1, 4, 2), dtype=np.float32)
    fine[0, 0] = [0.1, 0.9]
    coarse = np.array([[[0.5, 0.4], [0.3, 0.0]]], dtype=np.float32)
    joint = joint_map([fine, coarse])[0]
    assert joint[0].tolist() == pytest.approx([0.1, 0.9, 0, 0.4])  # two cells: 0.9 beats 0.5
    assert joint[2].tolist() == pytest.approx([0, 0.3, 0, 0])


def test_scales_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="3 cells"):
        joint_map([np.zeros((1, 4, 4), dtype=np.float32), np.zeros((1, 3, 3), dtype=np.float32)])


def test_the_published_count_comes_from_the_first_video_of_the_batch():
    joint = np.array([[[0.9, 0.0], [0.0, 0.0]], [[0.2, 0.8], [0.5, 0.0]]], dtype=np.float32)
    shared = map_rankings(joint, joint, np.array([1.0, 3.0]))
    own = map_rankings(joint, joint, np.array([1.0, 3.0]), shared_count=False)
    assert [len(ranking) for ranking in shared] == [1, 1]
    assert own[1].tolist() == [[0, 6], [3, 6], [0, 3]]


ORDER = [list(pair) for pair in SEGMENTS]


def test_didemo_counts_the_three_annotators_that_agree_best():
    scores = didemo_scores(np.array([ORDER]), [np.array([[0, 0], [0, 0], [1, 1], [5, 5]])])
    assert scores.rank_Q.tolist() == [pytest.approx(4 / 3)]
    assert scores.iou_Q.tolist() == [pytest.approx(2 / 3)]
    assert (scores.rank1, scores.rank5) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("ranking", "times", "what"),
    [
        ([[0, 0], *ORDER[:20]], [[0, 0]] * 3, "each of the 21"),
        ([[0, 6], *ORDER[1:]], [[0, 0]] * 3, r"ranking 1: \[0, 6\]"),
        (ORDER, [[0, 0], [3, 2], [0, 0]], r"annotation 1: \[3, 2\]"),
        (ORDER, [[0, 0]] * 2, "needs 3 annotators"),
    ],
)
def test_didemo_refuses_what_it_cannot_rank(ranking, times, what):
    with pytest.raises(SubmissionError, match=what):
        didemo_scores(np.array([ranking]), [np.array(times)])


def test_the_single_target_agrees_best_with_the_other_annotators():
    assert single_target(np.array([[0, 0], [1, 2], [1, 1], [1, 2]])) == (5.0, 15.0)
    assert single_target(np.array([[3, 3], [1, 1]])) == (15.0, 20.0)  # equal: the first


@pytest.mark.parametrize(
    ("anchor", "short", "long"),
    [("left", [4, 8], [10, 20]), ("right", [1, 5], [20, 30]), ("center", [2.5, 6.5], [15, 25])],
)
def test_lengths_are_limited_about_the_anchor(anchor, short, long):
    given = np.array([[4, 5, 0.1], [10, 30, 0.2], [0, 5, 0.3]], dtype=np.float32)
    limited = limit_lengths(given, 4, 10, anchor)
    assert limited[:, :2].tolist() == [short, long, [0, 5]]
    assert given[0].tolist() == pytest.approx([4, 5, 0.1])
