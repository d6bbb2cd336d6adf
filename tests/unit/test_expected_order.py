"""Windows chosen for the greatest expected average precision."""

import itertools

import pytest
import torch

from momentkit.core.errors import ConfigError
from momentkit.core.spans import pairwise_iou
from momentkit.predict.decode import PostProcess, post_process
from momentkit.predict.expected import expected_order


def order(rows, duration_s=100.0, *, sharpness=1.0, border_spread=0.0, keep=10):
    return expected_order(
        torch.tensor(rows), duration_s, sharpness=sharpness, border_spread=border_spread, keep=keep
    )


def expected_value(windows_K2, rows, sharpness=1.0):
    """By definition: the truth is proposal n with probability p_n; reciprocal rank of the first hit."""
    spans, score = torch.tensor(rows).double()[:, :2], torch.tensor(rows).double()[:, 2] ** sharpness
    iou_KN, _ = pairwise_iou(windows_K2.double(), spans)
    value = 0.0
    for step, n in itertools.product(range(10), range(len(rows))):
        hit = (iou_KN[:, n] >= 0.5 + 0.05 * step - 1e-9).nonzero()
        value += float(score[n] / score.sum()) / 10 / (int(hit[0]) + 1) if len(hit) else 0.0
    return value


def test_a_lone_proposal_is_the_answer():
    assert order([[10.0, 20.0, 0.7]]).tolist() == [pytest.approx([10.0, 20.0, 0.7])]


def test_many_that_agree_beat_one_that_scores_a_little_higher():
    rows = [[50.0, 60.0, 0.5], [10.0, 20.0, 0.4], [10.5, 20.5, 0.4], [9.5, 19.5, 0.4]]
    assert order(rows)[0].tolist() == pytest.approx([10.0, 20.0, 0.5], abs=0.6)
    assert order(rows, sharpness=30.0)[0, :2].tolist() == [50.0, 60.0]


def test_the_second_window_goes_where_the_first_did_not():
    rows = [[10.0, 20.0, 0.9], [10.1, 20.1, 0.9], [70.0, 80.0, 0.3]]
    assert order(rows)[1, 0] > 60


def test_lists_are_worth_more_than_scored_lists():
    # On the whole, not each: greedy is not the optimum.
    generator = torch.Generator().manual_seed(0)
    ours, plain = 0.0, 0.0
    for _ in range(20):
        start = torch.rand(12, generator=generator) * 60
        length = 5 + torch.rand(12, generator=generator) * 30
        rows = torch.stack([start, start + length, torch.rand(12, generator=generator)], 1).tolist()
        scored = torch.tensor(sorted(rows, key=lambda row: -row[2]))[:10, :2]
        ours += expected_value(order(rows)[:, :2], rows) / 20
        plain += expected_value(scored, rows) / 20
    assert ours > plain + 0.02


def test_scores_fall_and_start_at_the_best_proposal_s():
    rows = [[0.0, 10.0, 0.9], [20.0, 31.0, 0.8], [25.0, 45.0, 0.2], [70.0, 80.0, 0.5]]
    score = order(rows, border_spread=0.2)[:, 2]
    assert score[0] == pytest.approx(0.9)
    assert (score.diff() <= 0).all()


def test_spread_borders_stay_inside_the_video():
    windows = order([[0.0, 9.0, 0.9], [92.0, 100.0, 0.8]], border_spread=0.5)
    assert windows[:, :2].min() >= 0
    assert windows[:, :2].max() <= 100


def test_the_order_of_the_proposals_does_not_matter():
    rows = [[0.0, 10.0, 0.9], [20.0, 31.0, 0.8], [25.0, 45.0, 0.2], [70.0, 80.0, 0.5]]
    assert torch.equal(order(rows), order(rows[::-1]))


@pytest.mark.parametrize("rows", [[], [[5.0, 5.0, 0.5]], [[1.0, 2.0, 0.0], [3.0, 4.0, 0.0]]])
def test_nothing_to_choose_from_is_no_crash(rows):
    windows = expected_order(
        torch.tensor(rows).reshape(-1, 3), 10.0, sharpness=1.0, border_spread=0.0, keep=10
    )
    assert len(windows) <= len(rows)
    assert torch.isfinite(windows).all()


def test_it_is_an_option_of_post_processing():
    rows = torch.tensor([[10.0, 20.0, 0.9], [10.1, 20.1, 0.9], [70.0, 80.0, 0.3]])
    post = PostProcess(nms="expected", keep=2)
    assert len(post_process(rows, 100.0, post)) == 2


def test_location_is_the_rest_of_the_evidence():
    rows = torch.tensor([[10.0, 20.0, 0.9]])
    usual = PostProcess(nms="expected", location=((0.5, 0.8),), location_share=0.3)
    assert post_process(rows, 100.0, usual)[:, :2].tolist() == [[10.0, 20.0], [50.0, 80.0]]
    most = PostProcess(nms="expected", location=((0.5, 0.8),), location_share=0.7)
    assert post_process(rows, 100.0, most)[:, :2].tolist() == [[50.0, 80.0], [10.0, 20.0]]


@pytest.mark.parametrize(
    "options",
    [
        {"location": ((0.5, 0.2),), "location_share": 0.3},
        {"location": ((0.5, 1.2),), "location_share": 0.3},
        {"location": ((0.5, 0.8),)},
        {"location_share": 0.3},
        {"location": ((0.5, 0.8),), "location_share": 1.0},
        {"border_spread": -0.1},
        {"sharpness": 0.0},
    ],
)
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(ConfigError, match=r"predict\."):
        PostProcess(nms="expected", **options)
