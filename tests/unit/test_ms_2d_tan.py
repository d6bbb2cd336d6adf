"""MS-2D-TAN and 2D-TAN: cells, merging, the chain, the variants."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from claims.models import pad, pick, random_batch, tiny_model
from momentkit.convert.architecture import read_options
from momentkit.core.errors import ConfigError, FeatureError, WeightsError
from momentkit.core.spans import pairwise_iou
from momentkit.losses.maps import iou_targets, rescale
from momentkit.metrics.ranking import RankProtocol, suppress
from momentkit.models.ms_2d_tan import MS2DTANConfig
from momentkit.nn.map_encoder import MaskedBatchNorm, SentenceEncoder, resample
from momentkit.nn.maps import cell_spans, clip_scores, distinct_moments, merge_maps, valid_cells
from momentkit.predict.suppress import greedy_nms

PLANE = {"geometry": "plane", "convs": "counted", "text_pooling": "last", "windows": "pool"}
VARIANTS = [
    {},
    {"windows": "pool"},
    {"convs": "plain"},
    {"pool": 2},
    {"resample": "pick", "samples": 12},
    PLANE,
    {**PLANE, "windows": "plain", "resample": "mean", "samples": 24, "pool": 2},
]
CLIPS, WORDS = [13, 4, 9], [5, 2, 3]


def predict(model: torch.nn.Module, batch: object) -> object:
    with torch.no_grad():
        return model(batch)


@pytest.mark.parametrize("clips", [1, 7, 8, 19, 32])
def test_a_cell_is_valid_where_its_window_holds_real_clips_only(clips: int) -> None:
    real = torch.arange(32) < clips
    for k in range(3):
        valid = valid_cells(torch.tensor([clips]), 32 // 2**k, 8, 2**k)[0]
        for row in range(32 // 2**k):
            for column in range(8):
                first, length = row * 2**k, (column + 1) * 2**k
                assert valid[row, column] == (first + length <= 32 and bool(real[first:][:length].all()))


@pytest.mark.parametrize(
    "rows,scales,columns,valid_counts,distinct",
    [
        (64, 3, 16, [904, 392, 136], 1104),
        (512, 5, 8, [4068, 2020, 996, 484, 228], 5900),
        (32, 3, 8, [228, 100, 36], 280),
    ],
)
def test_counts_of_the_published_maps(
    rows: int, scales: int, columns: int, valid_counts: list[int], distinct: int
) -> None:
    counts = [
        int(valid_cells(torch.tensor([rows]), rows // 2**k, columns, 2**k).sum()) for k in range(scales)
    ]
    spans_Q2, _ = distinct_moments(rows, columns, scales)
    assert counts == valid_counts and len(spans_Q2) == distinct and spans_Q2.max() == rows


@pytest.mark.parametrize("rows,covered", [(32, 280), (21, 159), (9, 44)])
def test_merged_targets_are_the_dense_targets(rows: int, covered: int) -> None:
    window = [torch.tensor([[2.3, 7.9]])]
    size = max(rows, 32)
    maps = [iou_targets(window, cell_spans(size // 2**k, 8, 2**k)) for k in range(3)]
    spans_Q2, place_Q = distinct_moments(size, 8, 3)
    inside = spans_Q2[:, 1] <= rows
    merged = merge_maps(maps, -torch.inf).flatten()[place_Q]
    dense, _ = pairwise_iou(window[0], spans_Q2.float())
    assert torch.equal(merged[inside], dense[0, inside]) and int(inside.sum()) == covered


def test_merging_takes_the_highest_score_and_keeps_negative_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 10 // 2**k, 2, generator=generator) - 5 for k in range(3)]  # 10 // 2 = 5 is no 2^2
    merged = merge_maps(maps, -torch.inf)
    expected = torch.full((2, 10, 10), -torch.inf)
    for k, values in enumerate(maps):
        for row in range(values.shape[1]):
            for column in range(2):
                cell = (slice(None), row * 2**k, (column + 1) * 2**k - 1)
                expected[cell] = torch.maximum(expected[cell], values[:, row, column])
    assert torch.equal(merged, expected) and torch.equal(merge_maps(maps[::-1], -torch.inf), expected)


def test_targets_lie_between_0_and_1_and_are_1_at_the_truth() -> None:
    spans = cell_spans(16, 4, 2)
    two = iou_targets([torch.tensor([[4.0, 8.0], [20.0, 22.0]]), torch.zeros(0, 2)], spans)
    assert two[0, 2, 1] == 1 and two[0, 10, 0] == 1 and two.min() == 0 and two.max() == 1
    assert not two[1].any()
    assert_close(rescale(torch.tensor([0.4, 0.5, 0.75, 1.0]), 0.5, 1.0), torch.tensor([0, 0, 0.5, 1]))


def test_saliency_is_the_mean_score_of_the_moments_that_cover_a_clip() -> None:
    spans_Q2, _ = distinct_moments(8, 4, 2)
    generator = torch.Generator().manual_seed(0)
    score = torch.rand(1, len(spans_Q2), generator=generator)
    valid = spans_Q2[None, :, 1] <= 7
    ours = clip_scores(score, valid, spans_Q2, 8)
    for clip in range(7):
        covers = valid[0] & (spans_Q2[:, 0] <= clip) & (spans_Q2[:, 1] > clip)
        assert_close(ours[0, clip], score[0, covers].mean())
    assert ours[0, 7] == 0


def test_batch_norm_of_real_entries_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    x, real = torch.randn(3, 4, 6, generator=generator), torch.arange(6) < torch.tensor([[6], [4], [1]])
    ours, theirs = MaskedBatchNorm(4), torch.nn.BatchNorm1d(4)
    out = ours(x + 100 * ~real[:, None], real)
    expected = theirs(x.transpose(1, 2)[real])
    assert_close(out.transpose(1, 2)[real], expected, rtol=0, atol=1e-5)
    for name in ("running_mean", "running_var"):
        assert_close(getattr(ours, name), getattr(theirs, name))
    before = ours.running_var.clone()
    lone = torch.zeros_like(real)
    lone[0, 0] = True
    assert torch.isfinite(ours(x, lone)).all() and torch.equal(ours.running_var, before)


@pytest.mark.parametrize("kind", ["pick", "mean"])
def test_resampling_reads_real_clips_only(kind: str) -> None:
    video = torch.arange(12.0)[None, :, None].repeat(2, 1, 1)
    video[1, 5:] = 1e6
    out = resample(video, torch.tensor([12, 5]), 4, kind)[..., 0]
    wanted = {"pick": [[1, 4, 7, 10], [0, 1, 3, 4]], "mean": [[1, 4, 7, 9.5], [0, 1, 2.5, 4]]}
    assert_close(out, torch.tensor(wanted[kind]).float())


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_no_variant_answers_by_padding_or_companions(options: dict[str, object]) -> None:
    model, batch = tiny_model("ms_2d_tan", **options), random_batch(CLIPS, WORDS)
    together, loud = predict(model, batch), predict(model, pad(batch, clips=9, words=6, fill=1e3))
    assert_close(
        sum(model.losses(pad(batch, clips=9, words=6, fill=1e3)).terms.values()),
        sum(model.losses(batch).terms.values()),
        rtol=1e-5,
        atol=1e-6,
    )
    for row, clips in enumerate(CLIPS):
        alone = predict(model, pick(batch, [row]))
        for other, at in ((loud, row), (alone, 0)):
            for name in ("spans_BQ2", "score_BQ"):
                a = getattr(together, name)[row, together.valid_BQ[row]]
                b = getattr(other, name)[at, other.valid_BQ[at]]
                assert len(a) and a.shape == b.shape
                assert_close(a, b, rtol=0, atol=1e-5)
            assert_close(together.saliency_BT[row, :clips], other.saliency_BT[at, :clips], rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_variant_learns(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = tiny_model("ms_2d_tan", **options).train()
    batch = random_batch([16, 12, 16], WORDS)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    totals = []
    for _ in range(15):
        optimiser.zero_grad()
        total = model.losses(batch).total
        total.backward()
        optimiser.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.9 * totals[0]


def test_moments_lie_inside_the_video_and_none_comes_twice() -> None:
    for options in ({}, PLANE):
        answer = predict(tiny_model("ms_2d_tan", **options), random_batch(CLIPS, WORDS))
        for row, clips in enumerate(CLIPS):
            spans = answer.spans_BQ2[row, answer.valid_BQ[row]]
            assert (spans[:, 0] < spans[:, 1]).all() and spans.min() >= 0 and spans.max() <= clips
            assert len(spans.unique(dim=0)) == len(spans)
        assert not answer.score_BQ[~answer.valid_BQ].any()


def test_fused_cells_have_length_1_or_0() -> None:
    with torch.no_grad():
        stages = tiny_model("ms_2d_tan").stages(random_batch(CLIPS, WORDS))
    for fused, valid in zip(stages.fused, stages.valid, strict=True):
        assert_close(fused.norm(dim=1), valid.float(), rtol=0, atol=1e-6)


def test_too_few_clips_for_the_chain_are_refused_in_words() -> None:
    model = tiny_model("ms_2d_tan")
    with pytest.raises(FeatureError, match="windows of 8 clips, got 7"):
        model.windows(torch.zeros(1, 16, 7), torch.tensor([7]))


def test_an_unpacked_sentence_depends_on_its_batch_and_a_packed_one_does_not() -> None:
    torch.manual_seed(0)
    words, mask = torch.randn(1, 3, 6), torch.ones(1, 3, dtype=torch.bool)
    longer, longer_mask = F.pad(words, (0, 0, 0, 4)), F.pad(mask, (0, 4))
    for pack in (True, False):
        encoder = SentenceEncoder(6, 8, 2, 5, "mean", pack)
        same = torch.allclose(encoder(words, mask)[1], encoder(longer, longer_mask)[1], rtol=0, atol=1e-6)
        assert same == pack


def test_greedy_suppression_is_that_of_the_measure() -> None:
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 20, 60)
    windows = np.stack([start, start + rng.uniform(1, 9, 60), -np.sort(-rng.uniform(size=60))], 1)
    kept = greedy_nms(torch.from_numpy(windows), 0.49, 5)
    expected, real = suppress([windows[:, :2]], RankProtocol())
    assert_close(kept[:, :2].numpy(), expected[0][real[0]])
    assert greedy_nms(torch.zeros(0, 3), 0.49, 5).shape == (0, 3)


@pytest.mark.parametrize(
    "bad", [{"columns": 3}, {"kernel": 4}, {"low": 1.0}, {"text_hidden": 5}, {"pool": 0}]
)
def test_bad_options_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        replace(MS2DTANConfig(), **bad)


@pytest.mark.parametrize("options", [{}, {"convs": "plain"}, {**PLANE, "windows": "plain"}], ids=str)
def test_a_checkpoint_tells_its_options(options: dict[str, object]) -> None:
    model = tiny_model("ms_2d_tan", **options)
    told = read_options(model.state_dict(), "ms_2d_tan")
    assert told == {name: getattr(model.config, name) for name in told}


def test_a_checkpoint_of_max_pooling_does_not_tell_its_size() -> None:
    with pytest.raises(WeightsError, match="windows"):
        read_options(tiny_model("ms_2d_tan", windows="pool").state_dict(), "ms_2d_tan")
