"""DiffusionVMR: the properties its specification lists (section 13), one test each, and its options."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from claims.models import TEXT_DIM, TINY, VIDEO_DIM, pad, pick, random_batch
from momentkit.core.config import read_toml
from momentkit.core.errors import ConfigError
from momentkit.core.spans import cw_to_se, pairwise_giou, pairwise_iou
from momentkit.core.types import Batch, Targets
from momentkit.diffusion.samplers import add_noise, ddim, noise_like
from momentkit.diffusion.schedules import schedule
from momentkit.diffusion.spans import noisy_spans, own_noise, random_spans, same_size, to_signal, to_spans
from momentkit.losses.matching import match
from momentkit.losses.saliency import divergence, median_pair
from momentkit.losses.spans import label_cross_entropy, set_terms
from momentkit.models.diffusion_vmr import Decoded, DiffusionVMR, DiffusionVMRConfig
from momentkit.models.registry import create_model
from momentkit.nn.roi import align_weights, select_weights
from momentkit.train.run import create_run_model
from momentkit.train.run_config import parse_run

CLIPS, WORDS = [11, 4, 7, 1], [5, 2, 1, 4]
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("diffusion_vmr_*.toml"))


def tiny(seed: int = 0, **options: object) -> DiffusionVMR:
    """As `tiny_model`, for options that the small instance sets as well."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        widths = {"video_dim": VIDEO_DIM, "text_dim": TEXT_DIM}
        model = create_model("diffusion_vmr", **(widths | TINY["diffusion_vmr"] | options))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    assert isinstance(model, DiffusionVMR)
    return model.eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_cw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, 2, generator=generator(seed))


@torch.no_grad()
def decode(model: DiffusionVMR, batch: Batch, spans_cw: Tensor, time: int = 500) -> Decoded:
    return model.decode(model.encode(batch), spans_cw, torch.full((len(spans_cw),), time))


@torch.no_grad()
def saliency_logits(model: DiffusionVMR, batch: Batch, noisy_BT: Tensor, time: int = 500) -> Tensor:
    return model.saliency_logits(model.encode(batch), noisy_BT, torch.full((len(noisy_BT),), time))


# 1, 2: noising and sampling


@pytest.mark.parametrize("time", [0, 10, 500, 999])
def test_noising_without_noise_only_shrinks(time: int) -> None:
    share_T, clean = schedule("cosine"), to_signal(random_cw(3, 5), 2.0)
    noisy = add_noise(clean, torch.zeros_like(clean), share_T, torch.full((3,), time))
    assert_close(noisy, (share_T[time].sqrt() * clean.double()).float())
    if time == 0:
        assert ((noisy - clean).abs() <= 2.1e-5 * clean.abs()).all()


@pytest.mark.parametrize("steps", [1, 2, 5, 50])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_sampler_whose_network_knows_the_answer_gives_it(steps: int, eta: float, seed: int) -> None:
    answer = to_signal(random_cw(2, 5), 2.0)
    start = noise_like(answer, generator(seed))
    found, trace = ddim(
        lambda x, time: (answer, None), start, schedule("cosine"), steps, eta=eta, generator=generator(seed)
    )
    assert torch.equal(found, answer)
    if eta == 0:
        for step in trace:
            assert_close(step.noise, trace[0].noise, rtol=1e-4, atol=1e-4)


def test_a_set_is_filled_up_with_random_spans_or_a_random_part_of_it_is_kept() -> None:
    truth = [random_cw(3, seed=1), random_cw(7, seed=2), random_cw(0)]
    filler = random_spans(torch.randn(3, 5, 2, generator=generator(3)), "normal")
    order = [torch.arange(3), torch.tensor([6, 2, 4, 0, 1, 3, 5]), torch.arange(0)]
    same = same_size(truth, filler, order)
    assert torch.equal(same[0], torch.cat([truth[0], filler[0, 3:]]))
    assert torch.equal(same[1], truth[1][[6, 2, 4, 0, 1]])
    assert torch.equal(same[2], filler[2])


@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_random_spans_have_the_law_they_say(law: str) -> None:
    spans = random_spans(torch.randn(20_000, 2, generator=generator()), law)
    deviation = {"normal": 1 / 6, "uniform": 12**-0.5}[law]
    assert_close(spans.mean(0), torch.full((2,), 0.5), rtol=0, atol=0.01)
    assert_close(spans.std(0), torch.full((2,), deviation), rtol=0, atol=0.01)
    assert spans[:, 1].min() >= 1e-4
    wide = random_spans(torch.tensor([[0.0, -9.0]]), law)
    assert wide[0, 1] == pytest.approx(1e-4)


def test_what_the_decoder_is_given_lies_in_the_video_whatever_the_step() -> None:
    truth, time_B = [random_cw(2), random_cw(1)], torch.tensor([999, 0])
    spans = noisy_spans(truth, 50, "normal", 2.0, schedule("cosine"), time_B, generator())
    assert spans.shape == (2, 50, 2) and (spans >= 0).all() and (spans <= 1).all()
    assert (spans[0] == 0).any()  # pure noise, cut
    assert_close(spans[1, :1], truth[1], rtol=0, atol=0.02)  # hardly any noise


def test_training_noise_is_each_samples_own_and_its_first_rows_do_not_depend_on_how_many_there_are() -> None:
    few, many = (own_noise(torch.empty(3, rows, 2), generator()) for rows in (5, 40))
    assert torch.equal(few, many[:, :5])
    assert not torch.equal(few[0], few[1])


# 3: any number of proposals and steps


def test_permuting_proposals_permutes_the_answer() -> None:
    model, batch = tiny(), random_batch(CLIPS, WORDS)
    spans, order = random_cw(4, 6), torch.tensor([3, 0, 5, 1, 4, 2])
    straight, turned = decode(model, batch, spans), decode(model, batch, spans[:, order])
    assert_close(turned.logits_NBQ2, straight.logits_NBQ2[:, :, order], rtol=0, atol=2e-6)
    assert_close(turned.spans_cw_NBQ2, straight.spans_cw_NBQ2[:, :, order], rtol=0, atol=2e-6)


@torch.no_grad()
@pytest.mark.parametrize("proposals", [1, 5, 20, 100])
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_the_same_weights_take_any_number_of_proposals_and_steps(proposals: int, steps: int) -> None:
    model, batch = tiny(), random_batch(CLIPS, WORDS)
    answer = model.sample(batch, proposals=proposals, steps=steps, generator=generator())
    assert answer.spans_BQ2.shape == (4, proposals, 2) and len(answer.trace) == steps
    assert torch.isfinite(answer.saliency_BT).all() and torch.isfinite(answer.score_BQ).all()
    clips_B11 = batch.video_mask_BT.sum(1)[:, None, None]
    for spans in answer.trace:
        assert (spans >= 0).all() and (spans <= clips_B11).all() and (spans[..., 1] >= spans[..., 0]).all()
    assert torch.equal(answer.trace[-1], answer.spans_BQ2)


@torch.no_grad()
def test_options_and_arguments_say_the_same() -> None:
    batch = random_batch(CLIPS, WORDS)
    model, other = tiny(), tiny(proposals=7, steps=2, eta=0.0)
    other.load_state_dict(model.state_dict())
    one = model.sample(batch, proposals=7, steps=2, eta=0.0, generator=generator())
    two = other(batch, generator=generator())
    assert torch.equal(one.spans_BQ2, two.spans_BQ2) and torch.equal(one.saliency_BT, two.saliency_BT)


@torch.no_grad()
def test_the_saliency_may_take_steps_of_its_own() -> None:
    batch = random_batch(CLIPS, WORDS)
    one, two = (tiny(steps=2, saliency_steps=steps)(batch, generator=generator()) for steps in (0, 6))
    assert torch.equal(one.spans_BQ2, two.spans_BQ2)
    assert not torch.equal(one.saliency_BT, two.saliency_BT)


# 4, 5: padding, seeds


def test_padding_changes_neither_branch() -> None:
    model, batch = tiny(), random_batch(CLIPS, WORDS)
    padded = pad(batch, clips=10, words=4, fill=3.3)
    spans, noisy = random_cw(4, 6), torch.randn(4, 21, generator=generator())
    plain, loud = decode(model, batch, spans), decode(model, padded, spans)
    assert_close(loud.logits_NBQ2, plain.logits_NBQ2, rtol=0, atol=7e-6)
    assert_close(loud.spans_cw_NBQ2, plain.spans_cw_NBQ2, rtol=0, atol=7e-6)
    quiet, noise = saliency_logits(model, batch, noisy[:, :11]), saliency_logits(model, padded, noisy)
    noisier = torch.where(padded.video_mask_BT, noisy, 1e3)
    for logits in (noise, saliency_logits(model, padded, noisier)):
        for row, clips in enumerate(CLIPS):
            assert_close(logits[row, :clips], quiet[row, :clips], rtol=0, atol=7e-6)


@torch.no_grad()
def test_the_seed_decides_the_answer() -> None:
    model, batch = tiny(), random_batch(CLIPS, WORDS)
    first, again, other = (model(batch, generator=generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.spans_BQ2, again.spans_BQ2) and torch.equal(first.saliency_BT, again.saliency_BT)
    assert not torch.allclose(first.spans_BQ2, other.spans_BQ2)
    assert not torch.allclose(first.saliency_BT[0], other.saliency_BT[0])


@torch.no_grad()
def test_a_long_video_beside_a_short_one_does_not_change_its_noise() -> None:
    model, batch = tiny(), random_batch([70, 20], [3, 3])
    together, alone = (model(one, generator=generator()) for one in (batch, pick(batch, [1])))
    assert_close(together.saliency_BT[1, :20], alone.saliency_BT[0], rtol=1e-5, atol=1e-5)
    assert_close(together.spans_BQ2[1], alone.spans_BQ2[0], rtol=1e-5, atol=1e-4)


# 6: features of a span


@pytest.mark.parametrize(
    "span,aligned,selected",
    [
        ((0.5, 0.5), [7, 10, 13, 16], 11.5),
        ((0.0, 0.0), [0, 0, 0, 0], 0),
        ((1.3, 0.1), [23, 23, 23, 23], 23),
        ((0.25, 0.0), [5.5, 5.5, 5.5, 5.5], 6),
    ],
)
@pytest.mark.parametrize("padding", [0, 7])
def test_features_of_a_span_are_those_of_the_specification(
    span: tuple[float, float], aligned: list[float], selected: float, padding: int
) -> None:
    mask_BT = torch.arange(24 + padding)[None] < 24
    memory_BT1 = torch.where(mask_BT, torch.arange(24.0 + padding), 1e6)[..., None]
    spans = torch.tensor([[span]])
    ours = align_weights(spans, mask_BT, 4)[:, 0] @ memory_BT1
    assert_close(ours[0, :, 0], torch.tensor(aligned, dtype=torch.float32))
    assert float(select_weights(spans, mask_BT)[:, 0] @ memory_BT1) == pytest.approx(selected)


def test_constant_memory_gives_constant_features_and_spans_get_no_gradient() -> None:
    mask_BT = torch.arange(13)[None] < torch.tensor([[13], [5]])
    spans = (random_cw(2, 50) * 1.4 - 0.2).requires_grad_()
    for weights in (align_weights(spans, mask_BT, 16), select_weights(spans, mask_BT)):
        assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert not weights[1, ..., 5:].any() and not weights.requires_grad


# 7, 8: what layers and steps hand on


def test_a_layer_is_taught_by_the_next_one_through_features_but_not_through_spans() -> None:
    model, batch = tiny(), random_batch(CLIPS, WORDS)
    decoded = model.decode(model.encode(batch), random_cw(4, 6), torch.full((4,), 500))
    (decoded.logits_NBQ2[1].sum() + decoded.spans_cw_NBQ2[1].sum()).backward()
    assert model.decoder is not None
    first = dict(model.decoder[0].named_parameters())
    assert first["linear1.weight"].grad is not None and first["linear1.weight"].grad.any()
    for name in ("span.layers.2.weight", "label.weight", "time.weight"):
        assert first[name].grad is None or not first[name].grad.any(), name


def test_without_scale_and_shift_the_step_changes_nothing() -> None:
    model, batch, spans = tiny(), random_batch(CLIPS, WORDS), random_cw(4, 6)
    early, late = (decode(model, batch, spans, time) for time in (0, 999))
    assert not torch.allclose(early.logits_NBQ2, late.logits_NBQ2)
    assert model.decoder is not None
    for layer in model.decoder:
        torch.nn.init.zeros_(layer.get_parameter("time.weight"))
        torch.nn.init.zeros_(layer.get_parameter("time.bias"))
    early, late = (decode(model, batch, spans, time) for time in (0, 999))
    assert torch.equal(early.logits_NBQ2, late.logits_NBQ2)


@torch.no_grad()
def test_one_step_is_one_call_of_each_decoder_at_the_last_step() -> None:
    model, batch = tiny(), random_batch(CLIPS, WORDS)
    answer, draw = model.sample(batch, steps=1, generator=generator(5)), generator(5)
    spans = to_spans(noise_like(torch.empty(4, 5, 2), draw), 2.0)
    decoded = decode(model, batch, spans, 999)
    clips_B11 = batch.video_mask_BT.sum(1)[:, None, None]
    assert torch.equal(answer.spans_BQ2, cw_to_se(decoded.spans_cw_NBQ2[-1]).clamp(0, 1) * clips_B11)
    assert torch.equal(answer.score_BQ, decoded.logits_NBQ2[-1].softmax(-1)[..., 0])
    logits = saliency_logits(model, batch, noise_like(torch.empty(4, 11), draw), 999)
    judged_BT = model.encode(batch).judged_BT
    assert torch.equal(answer.saliency_BT, model.estimate(logits, batch.video_mask_BT) + judged_BT)


# 9, 10, 11: losses


def test_a_perfect_prediction_costs_nothing() -> None:
    truth = [random_cw(2, seed=4) * 0.4 + 0.3, random_cw(1, seed=5) * 0.4 + 0.3]
    spans = torch.stack([torch.cat([truth[0], random_cw(1)]), torch.cat([truth[1], random_cw(2)])])
    costs = []
    for size in (1.0, 5.0, 20.0):
        logits = torch.tensor([[[1, -1], [1, -1], [-1, 1]], [[1, -1], [-1, 1], [-1, 1]]]) * size
        terms = set_terms(logits[None].float(), spans[None], truth, costs=(5.0, 2.0, 1.0))
        assert float(terms["span"]) == 0 and float(terms["giou"]) == pytest.approx(0, abs=1e-6)
        costs.append(float(terms["label"]))
    assert costs[0] > costs[1] > costs[2] and costs[2] < 1e-6


def test_background_counts_a_tenth() -> None:
    matching = match(torch.zeros(1, 2, 2), random_cw(1, 2), [random_cw(1)])
    assert float(label_cross_entropy(torch.zeros(1, 2, 2), matching)) == pytest.approx(
        (np.log(2) + 0.1 * np.log(2)) / 2
    )


def labels_and_logits() -> tuple[Tensor, Tensor, Tensor]:
    mask_BT = torch.arange(9)[None] < torch.tensor([[9], [5], [7]])
    label_BT = torch.rand(3, 9, generator=generator()) * mask_BT
    label_BT[:, 2] = 0
    label_BT[2] = 0  # nothing to see here: the sample is left out
    return label_BT, (label_BT / label_BT.sum(1, keepdim=True)).nan_to_num().log(), mask_BT


def test_the_divergence_is_zero_where_both_distributions_agree_and_only_there() -> None:
    label_BT, logits_BT, mask_BT = labels_and_logits()
    exact = logits_BT.clamp(min=-200)
    assert float(divergence(exact, label_BT, mask_BT)) == pytest.approx(0, abs=1e-6)
    assert float(divergence(exact + 7, label_BT, mask_BT)) == pytest.approx(0, abs=1e-5)
    other = exact + torch.randn(3, 9, generator=generator(1))
    value = float(divergence(other, label_BT, mask_BT))
    assert value > 0.01
    assert float(divergence(torch.where(mask_BT, other, 1e4), label_BT, mask_BT)) == pytest.approx(value)
    p, q = (label_BT[:2] / label_BT[:2].sum(1, keepdim=True)).numpy(), []
    for row, clips in enumerate((9, 5)):
        share = np.exp(other[row, :clips].double().numpy())
        share = share / share.sum()
        truth = p[row, :clips]
        q.append((truth[truth > 0] * np.log(truth[truth > 0] / share[truth > 0])).sum())
    assert value == pytest.approx(np.mean(q), rel=1e-5)


def test_the_divergence_of_a_batch_without_labels_is_zero() -> None:
    logits = torch.randn(2, 4, requires_grad=True)
    value = divergence(logits, torch.zeros(2, 4), torch.ones(2, 4, dtype=torch.bool))
    value.backward()
    assert float(value.detach()) == 0 and not logits.grad.any()


def test_the_estimate_of_the_true_distribution_is_the_label() -> None:
    label_BT, logits_BT, mask_BT = labels_and_logits()
    signal_BT = label_BT[:2] / label_BT[:2].amax(1, keepdim=True)
    estimate_BT = tiny().estimate(logits_BT[:2], mask_BT[:2])
    assert_close(estimate_BT, signal_BT, rtol=1e-5, atol=1e-6)


def test_the_random_pair_of_highlight_sets_lies_on_both_sides_of_the_median() -> None:
    label = torch.tensor([[0.0, 3, 1, 2, 9], [0, 0, 1, 0, 9], [1, 1, 0, 1, 1], [2, 2, 2, 2, 2]])
    mask = torch.tensor([[True] * 4 + [False]] * 2 + [[True] * 5] * 2)
    sides = [({1, 3}, {0, 2}), ({2}, {0, 1, 3}), ({0, 1, 3, 4}, {2}), None]
    seen: list[tuple[set[int], set[int]]] = [(set(), set()) for _ in sides]
    for seed in range(60):
        pair = median_pair(label, mask, torch.randn(4, 5, generator=generator(seed)))
        for row, (above, below) in enumerate(seen):
            above.add(int(pair[0][row, 0]))
            below.add(int(pair[1][row, 0]))
            assert sides[row] is not None or pair[0][row] == pair[1][row]
    assert seen[:3] == sides[:3]


@pytest.mark.parametrize("queries", [1, 2, 5])
@pytest.mark.parametrize("moments", [1, 2, 5])
def test_the_matching_is_the_best_of_all(queries: int, moments: int) -> None:
    spans, truth = random_cw(1, queries, seed=6), random_cw(moments, seed=7)
    logits = torch.randn(1, queries, 2, generator=generator(8))
    distance = (spans[0, :, None] - truth).abs().sum(-1)
    overlap = pairwise_giou(cw_to_se(spans[0]), cw_to_se(truth))
    cost = 5 * distance + 2 * (1 - overlap) - logits[0].softmax(-1)[:, :1]  # eq. 14
    pairs = min(queries, moments)

    def total(chosen: Sequence[int], targets: Sequence[int]) -> float:
        return float(cost[list(chosen), list(targets)].sum())

    best = min(
        total(chosen, targets)
        for chosen in permutations(range(queries), pairs)
        for targets in permutations(range(moments), pairs)
    )
    found = match(logits, spans, [truth], (5.0, 2.0, 1.0))
    assert len(found.query_M) == pairs
    assert total(found.query_M.tolist(), found.target_M.tolist()) == pytest.approx(best, abs=1e-6)
    order = torch.randperm(moments, generator=generator(9))
    turned = match(logits, spans, [truth[order]], (5.0, 2.0, 1.0))
    assert torch.equal(turned.query_M, found.query_M)
    assert torch.equal(order[turned.target_M], found.target_M)


# 12: growth


def test_proposals_grow_from_one_to_all() -> None:
    model = DiffusionVMR(replace(tiny().config, proposals=20))
    numbers = [model.training_proposals(epoch) for epoch in range(301)]
    assert all(a <= b for a, b in pairwise(numbers))
    assert (numbers[0], numbers[4], numbers[5], numbers[94], numbers[95], numbers[300]) == (
        1,
        1,
        2,
        19,
        20,
        20,
    )
    assert model.training_proposals(4.99) == 1 and model.training_proposals(float("inf")) == 20
    assert DiffusionVMR(replace(tiny().config, proposals=20, grow_epochs=0)).training_proposals(0) == 20


@torch.no_grad()
def test_the_epoch_changes_the_set_losses_alone() -> None:
    model, batch = tiny(proposals=8), random_batch(CLIPS, WORDS)
    early, late = (model.losses(batch, generator=generator(), epoch=epoch).terms for epoch in (0, 100))
    assert early["label"] != late["label"] and early["kl"] == late["kl"]
    assert early["saliency"] == late["saliency"]


# 14: ablations and options

ROWS = [
    {},
    {"saliency": "cosine"},
    {"saliency": "off"},
    {"saliency": "off", "moments": "queries", "span_head": "refine"},
    {"saliency": "off", "moments": "queries", "span_head": "refine", "interaction": "cross"},
    {
        "saliency": "off",
        "moments": "queries",
        "span_head": "refine",
        "interaction": "cross",
        "encoder_layers": 2,
    },
    {"interaction": "cross"},
    {"span_head": "refine"},
    {"span_head": "delta"},
    {"roi": "select"},
    {"saliency_head": "elementwise"},
    {"saliency_estimate": "clamp"},
    {"scaled_attention": True, "noise_schedule": "linear", "eta": 0.0, "padding": "uniform"},
    {"signal_scale": 0.5, "grow_epochs": 0.0},
    {"decoder_layers": 1},
    {"decoder_layers": 3},
    {"task": "highlights"},
]


@pytest.mark.parametrize("options", ROWS, ids=lambda row: ",".join(map(str, row.values())) or "full")
def test_every_ablation_and_option_learns_and_answers(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    batch = random_batch([16, 12, 16], [5, 2, 3])
    model = tiny(**options).train()
    model.losses(batch, generator=generator(), epoch=0).total.backward()
    model.zero_grad()
    model.losses(batch, generator=generator()).total.backward()
    # Where only differences of clips count, what moves all clips alike learns nothing.
    useless = {"encoder.1.norm2.bias"} if options == {"task": "highlights"} else set()
    for name, value in model.named_parameters():
        assert name in useless or (value.grad is not None and value.grad.any()), name
    answer = model.eval()(batch, generator=generator())
    for values in (answer.spans_BQ2, answer.score_BQ, answer.saliency_BT):
        assert torch.isfinite(values).all()


def test_a_model_of_highlights_has_no_moment_branch() -> None:
    model = tiny(task="highlights")
    assert not any(name.startswith(("decoder", "time", "anchors")) for name, _ in model.named_parameters())
    answer = model(random_batch(CLIPS, WORDS), generator=generator())
    assert answer.spans_BQ2.shape == (4, 0, 2) and answer.score_BQ.shape == (4, 0)
    assert model.losses(random_batch(CLIPS, WORDS)).terms.keys() == {"saliency", "kl"}


def test_learned_spans_are_as_many_as_they_are() -> None:
    with pytest.raises(ConfigError, match="learned 5 proposals, 7 were asked"):
        tiny(moments="queries", span_head="refine").sample(random_batch(CLIPS, WORDS), proposals=7)


@pytest.mark.parametrize(
    "options",
    [
        {"proposals": 0},
        {"steps": 0},
        {"steps": 1001},
        {"eta": 1.5},
        {"signal_scale": 0.0},
        {"signal_scale": float("nan")},
        {"grow_epochs": -1.0},
        {"bins": 0},
        {"span_head": "other"},
        {"moments": "queries", "span_head": "absolute"},
        {"weight_kl": -1.0},
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        create_model("diffusion_vmr", **options)


@pytest.mark.parametrize("wrong", [{"proposals": 0}, {"steps": 0}, {"steps": 1001}, {"eta": -1.0}], ids=str)
def test_arguments_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        tiny().sample(random_batch(CLIPS, WORDS), **wrong)


def test_true_moments_beyond_the_features_are_cut_or_left_out() -> None:
    model, batch = tiny(), random_batch([10, 10], [3, 3])
    assert batch.targets is not None

    def losses(*windows: list[list[float]]) -> dict[str, float]:
        targets = replace(batch.targets, windows_clip=tuple(torch.tensor(window) for window in windows))
        terms = model.losses(replace(batch, targets=targets), generator=generator()).terms
        return {name: float(term.detach()) for name, term in terms.items()}

    inside = [[1.0, 4.0]]
    assert losses(inside, [[6.0, 14.0]]) == losses(inside, [[6.0, 10.0]])
    assert losses(inside, [[6.0, 9.0], [11.0, 14.0]]) == losses(inside, [[6.0, 9.0]])
    assert all(np.isfinite(value) for value in losses([[11.0, 14.0]], [[12.0, 13.0]]).values())


def test_the_default_network_has_the_size_the_specification_says() -> None:
    with torch.device("meta"):
        model = DiffusionVMR(DiffusionVMRConfig())
    millions = {
        part: sum(value.numel() for name, value in model.named_parameters() if name.startswith(part)) / 1e6
        for part in ("encoder", "decoder", "time", "saliency", "")
    }
    assert millions == pytest.approx(
        {"encoder": 4.7, "decoder": 21.8, "time": 1.3, "saliency": 0.7, "": 29.5}, abs=0.06
    )


# 15: it learns


def planted_batch(videos: int, repeats: int) -> Batch:
    """Videos of 12 clips whose moment carries the mark of its words, each `repeats` times over."""
    draw, clips = generator(), 12
    video = torch.randn(videos, clips, VIDEO_DIM, generator=draw) * 0.2
    text = torch.randn(videos, 3, TEXT_DIM, generator=draw)
    place = torch.arange(clips) / clips
    video[..., -2], video[..., -1] = place, place + 1 / clips
    saliency, windows = torch.zeros(videos, clips), []
    for row in range(videos):
        width = int(torch.randint(3, 8, (), generator=draw))
        start = int(torch.randint(0, clips - width + 1, (), generator=draw))
        video[row, start : start + width, :TEXT_DIM] += text[row].mean(0) * 1.5
        saliency[row, start : start + width] = 1
        windows.append(torch.tensor([[start, start + width]], dtype=torch.float32))
    index = torch.arange(videos).repeat(repeats)
    inside = saliency[index].multinomial(4, generator=draw, replacement=True)
    outside = (1 - saliency[index]).multinomial(4, generator=draw, replacement=True)
    return Batch(
        video_BTD=video[index],
        video_mask_BT=torch.ones(len(index), clips, dtype=torch.bool),
        text_BLE=text[index],
        text_mask_BL=torch.ones(len(index), 3, dtype=torch.bool),
        targets=Targets(
            windows_clip=tuple(windows[number] for number in index.tolist()),
            saliency_BT=saliency[index],
            positive_clip_BP=inside,
            negative_clip_BP=outside,
        ),
    )


@torch.no_grad()
def overlap_and_hits(model: DiffusionVMR, batch: Batch, steps: int) -> tuple[Tensor, float]:
    """IoU of the best moment of each video under five seeds, and the share of best clips inside a moment."""
    overlaps, hits = [], []
    assert batch.targets is not None
    for seed in range(5):
        answer = model.sample(batch, steps=steps, generator=generator(seed))
        best = answer.spans_BQ2.take_along_dim(answer.score_BQ.argmax(1)[:, None, None], 1)
        overlaps.append(pairwise_iou(best, torch.stack(batch.targets.windows_clip))[0].flatten())
        top = answer.saliency_BT.argmax(1, keepdim=True)
        hits.append(batch.targets.saliency_BT.take_along_dim(top, 1).mean())
    return torch.stack(overlaps), float(torch.stack(hits).mean())


def test_a_handful_of_videos_is_learnt_and_more_steps_do_no_harm() -> None:
    torch.manual_seed(0)
    options = {"dropout": 0.0, "input_dropout": 0.0, "hidden": 32, "feed_forward": 64, "encoder_layers": 1}
    config = TINY["diffusion_vmr"] | options | {"dynamic_width": 8, "proposals": 8, "grow_epochs": 0.0}
    model = create_model("diffusion_vmr", video_dim=VIDEO_DIM, text_dim=TEXT_DIM, **config)
    assert isinstance(model, DiffusionVMR)
    batch, draw, updates = planted_batch(videos=4, repeats=4), generator(), 700
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-4)
    for update in range(updates):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - update / updates)
        optimiser.zero_grad()
        model.losses(batch, generator=draw).total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    model.eval()
    (once, hits), (twice, hits_twice) = (
        overlap_and_hits(model, planted_batch(videos=4, repeats=1), steps) for steps in (1, 2)
    )
    assert hits == hits_twice == 1
    assert (twice >= 0.7).float().mean() >= 0.95
    assert twice.mean() >= once.mean() - 0.02


def test_there_is_a_configuration_for_each_data_set() -> None:
    names = {path.stem.split("_")[2] for path in CONFIGS}
    assert names >= {"qvhighlights", "charades", "tacos", "tvsum", "youtube"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_builds_its_model(path: Path) -> None:
    config = parse_run(read_toml(path), str(path))
    with torch.device("meta"):
        model = create_run_model(config)
    assert isinstance(model, DiffusionVMR)
    assert (model.decoder is None) == (config.data.layout in ("tvsum", "youtube"))
