"""Highlight metrics on cases that can be worked out by hand."""

import numpy as np
import pytest

from momentkit.core.errors import SubmissionError
from momentkit.metrics.highlights import domain_figure, ranked_area, tied_at_cut, tvsum_ap, youtube_ap
from momentkit.metrics.saliency import highlight_ap, highlight_hit


def one_video(scores, ratings):
    """AP of one video whose three raters agree, at the level VeryGood."""
    rating_QTR = np.repeat(np.array(ratings, dtype=float)[None, :, None], 3, axis=2)
    score_QS = np.array([scores], dtype=float)
    mask_QS = np.ones_like(score_QS, dtype=bool)
    ap = highlight_ap(score_QS, mask_QS, rating_QTR, np.array([len(ratings)]))
    return ap[0, 2, 0], highlight_hit(score_QS, mask_QS, rating_QTR)[0].tolist()


def test_a_tie_group_counts_once_however_many_positives_it_has():
    ap, _ = one_video([0.9, 0.5, 0.5, 0.5], [4, 4, 4, 0])
    assert ap == pytest.approx((1 + 3 / 4) / 2)  # ordinary average precision would weigh 3/4 twice


def test_missing_scores_are_zero_and_outrank_negative_ones():
    ap, _ = one_video([-0.5], [4, 0])
    assert ap == 0.5


def test_scores_beyond_the_video_are_cut_but_can_be_the_top():
    ap, hit = one_video([0.9, 0.1, 5.0], [4, 0])
    assert (ap, hit) == (1.0, [0.0, 0.0, 0.0])


def test_a_video_without_highlights_counts_as_zero():
    assert one_video([0.9, 0.1], [0, 0]) == (0.0, [0.0, 0.0, 0.0])


def test_the_level_decides_what_a_highlight_is():
    assert one_video([0.9, 0.1], [3, 0]) == (0.0, [1.0, 1.0, 0.0])


def test_the_first_of_equal_top_scores_is_the_top():
    assert one_video([0.9, 0.9], [0, 4])[1] == [0.0, 0.0, 0.0]
    assert one_video([0.9, 0.9], [4, 0])[1] == [1.0, 1.0, 1.0]


def test_a_first_hit_alone_gives_more_than_precision():
    assert ranked_area(np.array([[1, 0, 0, 0, 0]]))[0] == 1
    assert ranked_area(np.array([[0, 1, 0, 0, 0]]))[0] == 0.25  # (0 + 1/2) / 2
    assert ranked_area(np.array([[0, 0, 0]]))[0] == 0


def test_tvsum_takes_the_lower_median():
    ratings = np.array([[1.0], [2.0], [3.0], [4.0]])  # lower median 2, so 3 is a highlight
    assert tvsum_ap(np.array([0, 0, 1, 0.5]), ratings).tolist() == [1.0]
    assert tvsum_ap(np.array([0, 1, 0.5, 0]), ratings)[0] < 1


def test_tvsum_recall_is_relative_to_the_five_best():
    ratings = np.array([[0.0]] * 8 + [[5.0]] * 2)
    assert tvsum_ap(-np.arange(10.0), ratings).tolist() == [0.0]
    assert tvsum_ap(np.arange(10.0), ratings).tolist() == [1.0]


def test_a_tie_at_the_cut_is_seen():
    assert tied_at_cut(np.array([9, 8, 7, 6, 5, 5, 1.0]))
    assert not tied_at_cut(np.array([9, 8, 7, 6, 5, 4, 4.0]))
    assert not tied_at_cut(np.array([1, 1, 1.0]))


def test_the_order_can_be_handed_in():
    ratings = np.array([[5.0]] + [[0.0]] * 6)
    tied = np.ones(7)
    assert tvsum_ap(tied, ratings).tolist() == [1.0]
    assert tvsum_ap(tied, ratings, np.arange(7)[::-1]).tolist() == [0.0]


def test_only_a_positive_match_is_a_highlight():
    assert youtube_ap(np.array([3, 2, 1.0]), np.array([1, 0, -1.0])) == 1
    assert youtube_ap(np.array([1, 2, 3.0]), np.array([1, 0, -1.0])) == pytest.approx(1 / 6)


@pytest.mark.parametrize("scores", [[], [1.0, 2.0, 3.0], [np.nan, 1.0]])
def test_scores_that_do_not_fit_are_refused(scores):
    with pytest.raises(SubmissionError, match="score"):
        youtube_ap(np.array(scores), np.array([1.0, 0.0]))


def test_the_two_means_round_as_their_programs_do():
    half = [np.array([0.395625])]
    assert (domain_figure(half, "by_rater"), domain_figure(half, "flat")) == (0.39563, 0.39562)
