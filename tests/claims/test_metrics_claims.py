"""What holds for every metric: it equals its definition, and of the scores only their order matters."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from claims import metrics_by_definition as slow
from momentkit.core.errors import SubmissionError
from momentkit.core.spans import pairwise_iou
from momentkit.metrics.arrays import pad_rows
from momentkit.metrics.didemo import SEGMENTS, didemo_scores
from momentkit.metrics.highlights import TVSUM_TOP, clip_order, tvsum_ap, youtube_ap
from momentkit.metrics.moments import WindowTable, average_precision, best_of_five_iou, first_window_iou
from momentkit.metrics.overlap import iou_cross, iou_paired
from momentkit.metrics.ranking import RankProtocol, rank_scores
from momentkit.metrics.saliency import LEVELS, highlight_ap, highlight_hit
from momentkit.metrics.submission import score_moment_rows

quick = settings(max_examples=60, deadline=None)

# A coarse grid makes equal scores, equal windows and overlaps that are exactly a threshold common.
grid = st.integers(0, 12).map(float)
window = st.tuples(grid, grid).filter(lambda w: w[0] != w[1]).map(lambda w: [min(w), max(w)])
score = st.integers(-8, 8).map(lambda k: k / 8)
scored = st.tuples(window, score).map(lambda pair: [*pair[0], pair[1]])
# Disjoint with a gap: no two overlap a prediction equally at 0.5 or more, so no tie order is involved.
apart = st.sampled_from([[[0.0, 3.0], [4.0, 8.0], [9.0, 12.0]], [[1.0, 11.0]], [[2.0, 4.0], [6.0, 12.0]]])
query = st.tuples(st.lists(scored, min_size=1, max_size=14), apart)
queries = st.lists(query, min_size=1, max_size=5)


def table(rows):
    return WindowTable(*pad_rows([np.array(row, dtype=np.float64) for row in rows]))


@quick
@given(queries)
def test_average_precision_is_its_definition(batch):
    ours = average_precision(table([p[:10] for p, _ in batch]), table([g for _, g in batch]))
    theirs = [[slow.average_precision(p, g, t) for t in slow.FLOAT_THRESHOLDS] for p, g in batch]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@quick
@given(queries)
def test_overlap_of_the_first_window_is_its_definition(batch):
    first = np.array([p[0][:2] for p, _ in batch])
    ours = first_window_iou(first, table([g for _, g in batch]))
    np.testing.assert_allclose(ours, [slow.first_window_iou(p, g) for p, g in batch], rtol=0, atol=1e-15)


@quick
@given(queries)
def test_best_of_five_is_the_largest_overlap_of_the_first_five(batch):
    ours = best_of_five_iou(table([p for p, _ in batch]), table([g for _, g in batch]))
    theirs = [max(slow.hull_iou(a, b) for a in p[:5] for b in g) for p, g in batch]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-15)


video = st.integers(1, 9).flatmap(
    lambda clips: st.tuples(
        st.lists(score, min_size=1, max_size=12),
        st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=clips, max_size=clips),
    )
)


@quick
@given(st.lists(video, min_size=1, max_size=4))
def test_highlight_figures_are_their_definition(videos):
    scores, mask = pad_rows([np.array(s) for s, _ in videos])
    ratings, _ = pad_rows([np.array(r, dtype=np.float64) for _, r in videos])
    ap = highlight_ap(scores, mask, ratings, np.array([len(r) for _, r in videos]))
    hit = highlight_hit(scores, mask, ratings)
    for number, (s, r) in enumerate(videos):
        for level, least in enumerate(LEVELS.values()):
            columns = [[int(clip[rater] >= least) for clip in r] for rater in range(3)]
            expected = [slow.highlight_ap(s, column) for column in columns]
            np.testing.assert_allclose(ap[number, level], expected, rtol=0, atol=1e-12)
            assert hit[number, level] == slow.highlight_hit(s, [max(clip) >= least for clip in r])


@quick
@given(
    st.lists(st.tuples(score, st.lists(st.integers(1, 5), min_size=2, max_size=2)), min_size=1, max_size=12)
)
def test_tvsum_and_youtube_figures_are_their_definition(clips):
    scores, ratings = np.array([s for s, _ in clips]), np.array([r for _, r in clips], dtype=np.float64)
    order = sorted(range(len(clips)), key=lambda clip: -scores[clip])
    for rater, ap in enumerate(tvsum_ap(scores, ratings)):
        median = sorted(ratings[:, rater])[(len(clips) - 1) // 2]
        expected = slow.trapezoid_ap([int(ratings[clip, rater] > median) for clip in order[:TVSUM_TOP]])
        assert ap == pytest.approx(expected, abs=1e-12)
    match = ratings[:, 0] - 3
    expected = slow.trapezoid_ap([int(match[clip] > 0) for clip in order])
    assert youtube_ap(scores, match) == pytest.approx(expected, abs=1e-12)


@quick
@given(st.lists(st.tuples(st.lists(window, min_size=1, max_size=12), window), min_size=1, max_size=4))
def test_rank_n_at_m_is_its_definition(batch):
    protocol = RankProtocol(overlaps=(0.25, 0.5), ranks=(1, 3), suppress_above=0.5)
    ours = rank_scores([np.array(c) for c, _ in batch], np.array([g for _, g in batch]), protocol)
    for number, (candidates, true) in enumerate(batch):
        overlaps = [slow.hull_iou(kept, true) for kept in slow.suppressed(candidates, 0.5, 3)]
        assert ours.first_iou[number] == pytest.approx(overlaps[0], abs=1e-15)
        for i, m in enumerate(protocol.overlaps):
            for j, n in enumerate(protocol.ranks):
                assert ours.hits[number, i, j] == any(overlap > m for overlap in overlaps[:n])


pairs = st.lists(st.sampled_from(SEGMENTS), min_size=3, max_size=6)


@quick
@given(st.lists(st.tuples(st.permutations(SEGMENTS), pairs), min_size=1, max_size=3))
def test_didemo_is_its_definition(sentences):
    ours = didemo_scores(np.array([r for r, _ in sentences]), [np.array(a) for _, a in sentences])
    for number, (ranking, annotations) in enumerate(sentences):
        rank, overlap = slow.didemo(list(ranking), annotations)
        assert ours.rank_Q[number] == pytest.approx(rank)
        assert ours.iou_Q[number] == pytest.approx(overlap)


def monotone(value):
    """Strictly increasing and far from linear; 0 stays 0."""
    return math.sinh(3 * value)


@quick
@given(queries)
def test_a_monotone_change_of_the_scores_leaves_the_moments_figures(batch):
    truth = table([g for _, g in batch])
    changed = [[[s, e, monotone(v)] for s, e, v in p[:10]] for p, _ in batch]
    before = average_precision(table([p[:10] for p, _ in batch]), truth)
    np.testing.assert_array_equal(average_precision(table(changed), truth), before)


@quick
@given(st.lists(video, min_size=1, max_size=4))
def test_a_monotone_change_of_the_scores_leaves_the_highlight_figures(videos):
    # Missing scores are 0.0 by definition, so the change must keep 0 where it is.
    scores, mask = pad_rows([np.array(s) for s, _ in videos])
    ratings, _ = pad_rows([np.array(r, dtype=np.float64) for _, r in videos])
    clips = np.array([len(r) for _, r in videos])
    changed = np.vectorize(monotone)(scores)
    np.testing.assert_array_equal(
        highlight_ap(changed, mask, ratings, clips), highlight_ap(scores, mask, ratings, clips)
    )
    np.testing.assert_array_equal(highlight_hit(changed, mask, ratings), highlight_hit(scores, mask, ratings))


@quick
@given(st.lists(score, min_size=1, max_size=20))
def test_a_monotone_change_of_the_scores_leaves_the_order_of_clips(scores):
    np.testing.assert_array_equal(clip_order(np.vectorize(monotone)(scores)), clip_order(np.array(scores)))


@quick
@given(queries, st.randoms(use_true_random=False))
def test_the_order_of_the_queries_never_matters(batch, random):
    order = list(range(len(batch)))
    random.shuffle(order)
    predictions = [{"qid": i, "pred_relevant_windows": p} for i, (p, _) in enumerate(batch)]
    truth = [{"qid": i, "relevant_windows": g} for i, (_, g) in enumerate(batch)]
    one = score_moment_rows(predictions, truth)
    other = score_moment_rows([predictions[i] for i in order], [truth[i] for i in reversed(order)])
    moved = other.per_query["full.mr_ap"][[other.qids.index(qid) for qid in one.qids]]
    np.testing.assert_array_equal(moved, one.per_query["full.mr_ap"])


@quick
@given(st.lists(window, min_size=1, max_size=6), st.lists(window, min_size=1, max_size=6))
def test_numpy_overlap_equals_core_spans(a, b):
    a, b = np.array(a), np.array(b)
    expected = pairwise_iou(torch.from_numpy(a), torch.from_numpy(b))[0].numpy()
    np.testing.assert_allclose(iou_cross(a, b), expected, rtol=0, atol=1e-15)
    paired = np.where(iou_cross(a, b) > 0, iou_paired(a[:, None], b[None]), 0.0)
    np.testing.assert_allclose(paired, expected, rtol=0, atol=1e-15)


GOOD = {"qid": 1, "pred_relevant_windows": [[0.0, 2.0, 0.5]], "pred_saliency_scores": [0.1, 0.2]}
TRUTH = {
    "qid": 1,
    "duration": 4,
    "relevant_windows": [[0, 2]],
    "relevant_clip_ids": [0],
    "saliency_scores": [[4, 4, 4]],
}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 10**400])
@pytest.mark.parametrize(
    ("field", "place"),
    [("pred_relevant_windows", 0), ("pred_relevant_windows", 2), ("pred_saliency_scores", 1)],
)
def test_a_number_that_is_not_finite_is_refused(bad, field, place):
    values = [list(GOOD[field][0])] if field == "pred_relevant_windows" else list(GOOD[field])
    (values[0] if field == "pred_relevant_windows" else values)[place] = bad
    with pytest.raises(SubmissionError, match=f"prediction 1: {field}: holds a number that is not finite"):
        score_moment_rows([GOOD | {field: values}], [TRUTH])


@pytest.mark.parametrize(
    ("field", "bad"),
    [("relevant_windows", [[0, math.nan]]), ("saliency_scores", [[4, math.nan, 4]]), ("duration", math.nan)],
)
def test_a_truth_that_is_not_finite_is_refused(field, bad):
    with pytest.raises(SubmissionError, match=f"truth row 1: {field}"):
        score_moment_rows([GOOD], [TRUTH | {field: bad}])
