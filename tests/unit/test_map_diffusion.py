"""Map diffusion: what its specification lists as properties, on small instances."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from claims.models import pad, pick, random_batch, tiny_model
from momentkit.core.errors import ConfigError
from momentkit.core.spans import pairwise_iou
from momentkit.core.types import Batch, Targets
from momentkit.diffusion.samplers import add_noise
from momentkit.diffusion.schedules import schedule
from momentkit.losses.maps import iou_targets
from momentkit.metrics.didemo import SEGMENTS, didemo_scores
from momentkit.models.map_diffusion import MapDiffusion, MapDiffusionConfig
from momentkit.nn.maps import cell_spans, merge_maps
from momentkit.nn.stylization import MaskedGroupNorm, MixedAttention, Stylization, TokenNorm, time_vectors
from momentkit.predict.decode import PostProcess, decode

STORED = Path(__file__).parents[1] / "parity" / "components" / "stylization.npz"
CLIPS, WORDS = [13, 4, 9], [5, 2, 3]
CROSS = {"decoder": "transformer", "condition": "cross_attention"}
TABLE_3 = [
    {**CROSS, "single_scale": True},
    CROSS,
    {"decoder": "transformer"},
    {"condition": "multiply"},
    {},
]
TABLE_4 = [{"loss": "bce", "target": "rescaled"}, {"loss": "bce"}, {"signal_scale": 2.0}]
TABLE_5 = [
    {"style_fusion": False, "style_conv": False},
    {"style_conv": False},
    {"style_fusion": False},
]
DECISIONS = [
    {"gate": "all"},
    {"map_mlp": True},
    {"shared_noise": True},
    {"time_per_sample": False},
    {"truths": "mean"},
    {"noise_schedule": "cosine", "eta": 1.0},
    {"decoder": "transformer", "positions": False, "scaled_attention": False},
    {"decoder": "transformer", "single_scale": True, "position_rows": 4},
    {"pool": 2, "windows": "pool", "scale_condition": False, "clamp": False},
]


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def predict(model: torch.nn.Module, batch: Batch, seed: int = 3) -> object:
    with torch.no_grad():
        return model(batch, generator=seeded(seed))


def maps_like(condition: object, seed: int = 0) -> list[torch.Tensor]:
    return [torch.randn(valid.shape, generator=seeded(seed)) for valid in condition.valid]


def small(**options: object) -> MapDiffusion:
    """With a shape of its own; `tiny_model` fixes the number of scales and columns."""
    sizes = {"video_dim": 10, "text_dim": 6, "hidden": 16, "text_hidden": 8, "text_layers": 1, "heads": 4}
    more = {"width": 16, "map_width": 4, "kernel": 3, "feed_forward": 24, "steps": 3}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MapDiffusion(MapDiffusionConfig(**{**sizes, **more, **options}))


class TestStoredComponents:
    """Equal to the code that the paper builds on."""

    stored = (
        {key: torch.from_numpy(value) for key, value in np.load(STORED).items()} if STORED.exists() else {}
    )

    def style(self, prefix: str) -> Stylization:
        style = Stylization(16, 24, TokenNorm(16))
        places = {"style": "emb_layers.1", "norm": "norm", "out": "out_layers.2"}
        style.load_state_dict(
            {
                f"{ours}.{part}": self.stored[f"{prefix}.{theirs}.{part}"]
                for ours, theirs in places.items()
                for part in ("weight", "bias")
            }
        )
        return style

    def attention(self, prefix: str, places: dict[str, str], condition: int, scaled: bool) -> MixedAttention:
        attention = MixedAttention(16, condition, 4, scaled)
        attention.load_state_dict(
            {
                f"{ours}.{part}": self.stored[f"{prefix}.{theirs}.{part}"]
                for ours, theirs in places.items()
                for part in ("weight", "bias")
            }
        )
        return attention

    def test_time_vectors(self) -> None:
        s = self.stored
        assert_close(time_vectors(s["t"], 16), s["t_emb"], rtol=0, atol=1e-6)
        assert_close(time_vectors(s["t"], 17), s["t_emb_odd"], rtol=0, atol=1e-6)

    @torch.no_grad()
    def test_stylization_and_feed_forward(self) -> None:
        s, real = self.stored, self.stored["mask"][..., 0] > 0
        assert_close(self.style("styl")(s["x"], s["emb"], real), s["styl_out"], rtol=0, atol=1e-6)
        hidden = F.gelu(F.linear(s["x"], s["ffn.linear1.weight"], s["ffn.linear1.bias"]))
        u = F.linear(hidden, s["ffn.linear2.weight"], s["ffn.linear2.bias"])
        out = s["x"] + self.style("ffn.proj_out")(u, s["emb"], real)
        assert_close(out, s["ffn_out"], rtol=0, atol=1e-6)

    @torch.no_grad()
    def test_self_attention_and_mixed_attention(self) -> None:
        s, real = self.stored, self.stored["mask"][..., 0] > 0
        same = {name: name for name in ("norm", "query", "key", "value")}
        u = self.attention("sa", same, 0, True)(s["x"], real)
        out = s["x"] + self.style("sa.proj_out")(u, s["emb"], real)
        assert_close(out, s["sa_out_keymask"], rtol=0, atol=1e-6)
        places = {"norm": "norm", "query": "query", "key": "key_motion", "value": "value_motion"}
        places |= {f"condition.{a}": b for a, b in (("norm", "text_norm"), ("key", "key_text"))}
        places["condition.value"] = "value_text"
        everywhere = torch.ones(s["xf"].shape[:2], dtype=torch.bool)
        u = self.attention("mix", places, 12, False)(s["x"], real, s["xf"], everywhere)
        out = s["x"] + self.style("mix.proj_out")(u, s["emb"], real)
        assert_close(out, s["mix_out"], rtol=0, atol=1e-6)


def test_property_1_without_noise_the_noisy_map_is_the_scaled_map() -> None:
    share, clean = schedule("linear", 1000), torch.rand(2, 8, 2, 4)
    time = torch.tensor([0, 500])
    noisy = add_noise(clean, torch.zeros_like(clean), share, time)
    assert_close(noisy, share[time].sqrt().float()[:, None, None, None] * clean)
    assert ((noisy[0] - clean[0]).abs() <= 6e-5 * clean[0] + 1e-9).all()


@pytest.mark.parametrize("steps,eta", [(1, 0.0), (2, 1.0), (7, 0.0), (50, 1.0)])
@pytest.mark.parametrize("options", [{}, {"signal_scale": 2.0}, {"noise_schedule": "cosine"}], ids=str)
def test_property_2_a_perfect_predictor_ends_on_the_map(
    monkeypatch: pytest.MonkeyPatch, steps: int, eta: float, options: dict[str, object]
) -> None:
    model, batch = tiny_model("map_diffusion", **options), random_batch(CLIPS, WORDS)
    with torch.no_grad():
        condition = model.condition(batch)
    truth = model.targets(batch.targets.windows_clip, condition)
    perfect = [model.to_signal(y) * valid for y, valid in zip(truth, condition.valid, strict=True)]
    monkeypatch.setattr(model, "denoise", lambda maps, time, condition: perfect)
    with torch.no_grad():
        _, (trace,) = model.sample(batch, steps=steps, eta=eta, generator=seeded())
    assert len(trace) == steps
    for ours, target in zip(model._maps(trace[-1].aside, condition), perfect, strict=True):
        assert torch.equal(ours, target)
    if eta == 0:  # the implied noise never changes
        for before, after in pairwise(trace):
            assert_close(after.noise, before.noise, rtol=0, atol=2e-4 if options else 2e-5)


@pytest.mark.parametrize(
    "clips,columns,covered,dense", [(32, 8, 280, 528), (21, 8, 159, 231), (9, 8, 44, 45)]
)
def test_property_3_merged_targets_are_the_dense_map(
    clips: int, columns: int, covered: int, dense: int
) -> None:
    model = small(columns=columns)
    batch = random_batch([clips], [3])
    with torch.no_grad():
        condition = model.condition(batch)
    merged = model.merged(model.targets((torch.tensor([[2.2, 8.1]]),), condition), condition)[0]
    spans = torch.stack(
        torch.meshgrid(torch.arange(len(merged)), torch.arange(len(merged)), indexing="ij"), -1
    )
    spans[..., 1] += spans[..., 0] + 1
    full, _ = pairwise_iou(torch.tensor([[2.2, 8.1]]), spans.flatten(0, 1).float())
    stored = torch.isfinite(merged)
    assert torch.equal(merged[stored], full.reshape(merged.shape)[stored]) and int(stored.sum()) == covered
    assert int((spans[..., 1] <= clips).sum()) == dense


def test_property_4_negative_maxima_stay_and_uncovered_cells_are_no_moments() -> None:
    model, batch = tiny_model("map_diffusion"), random_batch(CLIPS, WORDS)
    with torch.no_grad():
        condition = model.condition(batch)
        negative = [-1 - values.abs() for values in maps_like(condition)]
        merged = model.merged(negative, condition)
    finite = torch.isfinite(merged)
    assert (merged[finite] <= -1).all()
    assert int(finite[1].sum()) == 10  # all moments of four clips
    assert torch.equal(merge_maps(negative[::-1], -torch.inf), merge_maps(negative, -torch.inf))


@pytest.mark.parametrize("options", TABLE_3 + TABLE_4 + DECISIONS, ids=str)
def test_property_5_padding_and_companions_change_nothing(options: dict[str, object]) -> None:
    model, batch = tiny_model("map_diffusion", **options), random_batch(CLIPS, WORDS)
    padded = pad(batch, clips=9, words=6, fill=1e3)
    together, loud = predict(model, batch), predict(model, padded)
    for row in range(len(CLIPS)):
        for other, at in ((loud, row), (predict(model, pick(batch, [row])), 0)):
            a, b = together.valid_BQ[row], other.valid_BQ[at]
            assert_close(together.score_BQ[row, a], other.score_BQ[at, b], rtol=0, atol=2e-5)
            assert_close(together.spans_BQ2[row, a][:3], other.spans_BQ2[at, b][:3], rtol=0, atol=1e-6)
    plain, other = (model.losses(x, generator=seeded()) for x in (batch, padded))
    assert_close(other.total, plain.total, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", TABLE_3, ids=str)
def test_property_5_cells_that_are_no_moment_are_never_read(options: dict[str, object]) -> None:
    model, batch = tiny_model("map_diffusion", **options), random_batch(CLIPS, WORDS)
    condition = model.condition(batch)
    maps, time = maps_like(condition), torch.tensor([5, 400, 900])
    for values in maps:
        values.requires_grad_(True)
    out = model.denoise(maps, time, condition)
    torch.stack([(values**2).sum() for values in out]).sum().backward()
    other = [torch.where(v, x.detach(), 1e4) for x, v in zip(maps, condition.valid, strict=True)]
    for x, y, loud, valid in zip(
        maps, out, model.denoise(other, time, condition), condition.valid, strict=True
    ):
        assert not x.grad[~valid].any() and x.grad[valid].any()
        assert not y[~valid].any()
        assert_close(loud, y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, *TABLE_5], ids=str)
def test_property_6_stylization_alone_tells_the_step(options: dict[str, object]) -> None:
    batch = random_batch(CLIPS, WORDS)
    for fresh in (True, False):  # as drawn: the last linear is zero
        model = (
            small(columns=4, scales=2, **options) if fresh else tiny_model("map_diffusion", **options)
        ).eval()
        with torch.no_grad():
            condition = model.condition(batch)
            maps = maps_like(condition)
            early, late = (model.denoise(maps, torch.full((3,), t), condition) for t in (1, 990))
        same = all(torch.equal(a, b) for a, b in zip(early, late, strict=True))
        assert same == (fresh or options == TABLE_5[0])


def test_property_7_the_seed_decides() -> None:
    model, batch = tiny_model("map_diffusion", eta=1.0), random_batch(CLIPS, WORDS)
    assert torch.equal(predict(model, batch, 1).score_BQ, predict(model, batch, 1).score_BQ)
    assert not torch.equal(predict(model, batch, 1).score_BQ, predict(model, batch, 2).score_BQ)


def test_property_8_targets() -> None:
    spans = cell_spans(8, 4, 2)
    truth = torch.tensor([[4.0, 10.0]])
    y = iou_targets([truth], spans)[0]
    assert y[2, 2] == 1 and y.min() >= 0 and y.max() == 1
    swapped, _ = pairwise_iou(spans.flatten(0, 1).float(), truth)
    assert torch.equal(swapped[:, 0].reshape(8, 4), y)
    two = [torch.tensor([[4.0, 10.0], [0.0, 2.0]])]
    assert_close(iou_targets(two, spans, "mean")[0], (y + iou_targets([two[0][1:]], spans)[0]) / 2)


def test_property_9_one_scale_is_one_decoder_on_the_finest_map() -> None:
    model, batch = small(scales=1, columns=6).eval(), random_batch([6, 5], [3, 2])
    with torch.no_grad():
        condition = model.condition(batch)
        maps, time = maps_like(condition), torch.tensor([7, 70])
        out = model.denoise(maps, time, condition)
        vector = model.time(time_vectors(time, 16))
        alone = model.decoders[0](maps[0] * condition.valid[0], condition.maps[0], vector, condition.valid[0])
    assert len(out) == 1 and torch.equal(out[0], alone) and condition.valid[0].shape == (2, 6, 6)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50])
def test_property_10_any_number_of_steps_on_the_same_weights(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = tiny_model("map_diffusion"), random_batch(CLIPS, WORDS)
    calls, encode = [], model.condition
    monkeypatch.setattr(model, "condition", lambda batch: calls.append(1) or encode(batch))
    with torch.no_grad():
        condition, (trace,) = model.sample(batch, steps=steps, generator=seeded())
    assert len(trace) == steps and trace[0].time == 999 and len(calls) == 1
    if steps == 1:
        with torch.no_grad():
            maps = model._maps(trace[0].x, condition)
            out = model.denoise(maps, torch.full((3,), 999), condition)
        for ours, one_call in zip(model._maps(trace[0].aside, condition), out, strict=True):
            assert torch.equal(ours, one_call)


def test_several_draws_begin_with_the_first_and_average_their_maps() -> None:
    one, three = (tiny_model("map_diffusion", draws=draws) for draws in (1, 3))
    three.load_state_dict(one.state_dict())
    batch, calls = random_batch(CLIPS, WORDS), []
    encode = three.condition
    three.condition = lambda batch: calls.append(1) or encode(batch)
    with torch.no_grad():
        condition, draws = three.sample(batch, generator=seeded())
        _, (alone,) = one.sample(batch, generator=seeded())
        answer = three(batch, generator=seeded())
        calls.clear()
        again = three(batch, generator=seeded())
    assert len(draws) == 3 and len(calls) == 1 and torch.equal(answer.score_BQ, again.score_BQ)
    assert torch.equal(draws[0][-1].aside, alone[-1].aside)
    assert not torch.equal(draws[1][-1].aside, alone[-1].aside)
    mean = torch.stack([steps[-1].aside for steps in draws]).mean(0)
    best_B = three.merged(three._maps(mean, condition), condition).flatten(1).amax(1).clamp(0, 1)
    assert_close(answer.score_BQ[:, 0], best_B, rtol=0, atol=0)


def test_property_11_moments_that_are_returned() -> None:
    model, batch = tiny_model("map_diffusion"), random_batch(CLIPS, WORDS)
    post = PostProcess(top=10_000, nms="greedy", nms_threshold=0.49, keep=4)
    durations = [12.7, 4.0, 8.6]
    for answer, duration in zip(
        decode(predict(model, batch), CLIPS, 1.0, durations, post), durations, strict=True
    ):
        windows = torch.from_numpy(answer.windows_N3)
        assert 1 <= len(windows) <= 4
        assert (windows[:, 0] < windows[:, 1]).all() and windows[:, :2].min() >= 0
        assert windows[:, 1].max() <= duration + 1e-6 and (windows[:, 2].diff() <= 0).all()
        iou, _ = pairwise_iou(windows[:, :2], windows[:, :2])
        assert (iou.fill_diagonal_(0) <= 0.49).all()


@pytest.mark.parametrize("options", TABLE_3 + TABLE_4 + TABLE_5 + DECISIONS, ids=str)
def test_property_12_every_option_learns_one_batch(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = small(columns=4, scales=2, **options).train()
    batch = random_batch([16, 12, 16], WORDS)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(25):
        optimiser.zero_grad()
        total = model.losses(batch, generator=seeded()).total
        total.backward()
        optimiser.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.8 * totals[0]
    silent = [name for name, value in model.named_parameters() if value.grad is None]
    assert silent == []


def test_property_13_didemo(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(scales=1, columns=6, kernel=7).eval()
    pairs = [(0, 0), (2, 3), (1, 4), (5, 5), (0, 5)]
    batch = random_batch([6] * 5, [3] * 5)
    windows = tuple(torch.tensor([[float(a), b + 1.0]]) for a, b in pairs)
    batch = replace(batch, targets=replace(batch.targets, windows_clip=windows))
    monkeypatch.setattr(model, "denoise", lambda maps, time, c: model.targets(windows, c))
    answer = predict(model, batch)
    assert answer.valid_BQ.all() and answer.spans_BQ2.shape[1] == 21
    ranked = [[(int(a), int(b) - 1) for a, b in spans] for spans in answer.spans_BQ2.tolist()]
    assert all(sorted(row) == sorted(SEGMENTS) for row in ranked)
    scores = didemo_scores(np.array(ranked), [np.array([pair] * 4) for pair in pairs])
    assert scores.rank1 == 1.0 and scores.miou == 1.0


def test_property_13_a_video_of_five_chunks_has_no_sixth() -> None:
    answer = predict(small(scales=1, columns=6, kernel=7).eval(), random_batch([6, 5], [3, 2]))
    assert answer.valid_BQ.sum(1).tolist() == [21, 15]
    assert answer.spans_BQ2[1, answer.valid_BQ[1]].max() == 5


def planted(videos: int, clips: int) -> Batch:
    """Videos whose clips point along their sentence inside the true moment only."""
    generator = seeded()
    text = torch.randn(videos, 3, 6, generator=generator)
    video = torch.randn(videos, clips, 10, generator=generator)
    windows = []
    for row in range(videos):
        start = 2 * int(torch.randint(clips // 4, (), generator=generator))
        end = start + 2 + 2 * int(torch.randint(3, (), generator=generator))
        video[row, start:end, :6] += 4 * F.normalize(text[row].mean(0), dim=0)
        windows.append(torch.tensor([[float(start), float(end)]]))
    nothing = torch.zeros(videos, 1, dtype=torch.long)
    return Batch(
        video_BTD=F.normalize(video, dim=2),
        video_mask_BT=torch.ones(videos, clips, dtype=torch.bool),
        text_BLE=text,
        text_mask_BL=torch.ones(videos, 3, dtype=torch.bool),
        targets=Targets(
            windows_clip=tuple(windows),
            saliency_BT=torch.zeros(videos, clips),
            positive_clip_BP=nothing,
            negative_clip_BP=nothing,
        ),
    )


def test_property_14_planted_moments_are_learnt_by_heart() -> None:
    torch.manual_seed(0)
    model = small(columns=8, scales=2, hidden=32, width=32, kernel=5, text_hidden=32, steps=5).train()
    batch = planted(4, 16)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = seeded()
    for _ in range(150):
        optimiser.zero_grad()
        model.losses(batch, generator=generator).total.backward()
        optimiser.step()
    first = predict(model.eval(), batch).spans_BQ2[:, 0]
    truth = torch.cat(batch.targets.windows_clip)
    iou = torch.stack([pairwise_iou(a[None], b[None])[0][0, 0] for a, b in zip(first, truth, strict=True)])
    assert (iou > 0.7).all()


def test_the_trace_holds_the_best_moments_of_every_step() -> None:
    model, batch = tiny_model("map_diffusion"), random_batch(CLIPS, WORDS)
    answer = predict(model, batch)
    assert len(answer.trace) == 3 and {step.shape for step in answer.trace} == {(3, 10, 2)}
    kept = answer.spans_BQ2[:, :10] * answer.valid_BQ[:, :10, None]
    assert torch.equal(answer.trace[-1], kept)


def test_shared_noise_is_the_same_where_two_scales_store_a_moment() -> None:
    model = small(columns=4, scales=3, shared_noise=True)
    noise = model._shared(torch.randn(1, 16, 3, 4))
    for k in (1, 2):
        for column in range(2):
            assert torch.equal(noise[:, :, k, column], noise[:, :, k - 1, 2 * column + 1])
    assert not torch.equal(noise[:, :, 1, 2], noise[:, :, 0, 2])


def test_group_norm_of_real_tokens_is_torchs_where_all_are_real() -> None:
    x = torch.randn(2, 7, 12, generator=seeded())
    ours, theirs = MaskedGroupNorm(12, 4), torch.nn.GroupNorm(4, 12)
    everywhere = torch.ones(2, 7, dtype=torch.bool)
    assert_close(ours(x, everywhere), theirs(x.transpose(1, 2)).transpose(1, 2), rtol=0, atol=1e-5)
    longer, real = F.pad(x, (0, 0, 0, 5), value=99.0), F.pad(everywhere, (0, 5))
    assert_close(ours(longer, real)[:, :7], ours(x, everywhere), rtol=0, atol=1e-6)
    assert MaskedGroupNorm(10, 32).groups == 10 and MaskedGroupNorm(33, 32).groups == 11


@pytest.mark.parametrize(
    "bad",
    [
        {"columns": 3},
        {"kernel": 4},
        {"steps": 0},
        {"steps": 1001},
        {"draws": 0},
        {"eta": 1.5},
        {"signal_scale": -1.0},
        {"condition": "cross_attention"},
        {"decoder": "transformer", "condition": "multiply"},
        {"single_scale": True},
        {"width": 12, "heads": 8},
    ],
)
def test_bad_options_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        MapDiffusionConfig(**bad)


def test_without_masking_between_layers_padding_is_read() -> None:
    """What decision D11 is for; and that the properties above could fail."""
    batch = random_batch(CLIPS, WORDS)
    for remask in (True, False):
        model = tiny_model("map_diffusion", remask=remask)
        with torch.no_grad():
            condition = model.condition(batch)
            alone = model.condition(pick(batch, [2]))
            maps, time = maps_like(condition), torch.full((3,), 9)
            own = [x[2:3, : v.shape[1]] for x, v in zip(maps, alone.valid, strict=True)]
            together, single = model.denoise(maps, time, condition), model.denoise(own, time[:1], alone)
        gap = (together[0][2:3, : single[0].shape[1]] - single[0]).abs().max()
        assert (gap < 1e-5) == remask
