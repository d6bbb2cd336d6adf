"""What is true of MomentDiff beside what holds for every model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from claims.models import pick, random_batch, tiny_model
from momentkit.convert.checkpoint import convert
from momentkit.core.errors import ConfigError
from momentkit.core.spans import cw_to_se
from momentkit.core.weights import read_weights
from momentkit.diffusion.spans import to_spans
from momentkit.models.momentdiff import Condition, Draws
from momentkit.models.registry import create_model
from momentkit.train.run import create_run_model
from momentkit.train.run_config import read_run_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("momentdiff_*.toml"))
BATCH = random_batch([11, 4, 7], [5, 2, 3])


def model(**options) -> torch.nn.Module:
    return tiny_model("momentdiff", **options)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(model: torch.nn.Module, **options):
    with torch.no_grad():
        return model.sample(BATCH, generator=seeded(), **options)


def last_spans(trace) -> torch.Tensor:
    return trace[-1].aside.spans_cw_NBQ2[-1]


def test_more_spans_leave_the_first_as_they_are() -> None:
    """Spans do not look at each other, and their noise does not depend on how many there are."""
    few, many = (last_spans(sample(model(), queries=count)[1]) for count in (3, 40))
    assert many.shape == (3, 40, 2)
    assert_close(many[:, :3], few, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_steps_are_free_after_training(steps: int, eta: float) -> None:
    small = model(decoder_layers=1)
    _, trace = sample(small, queries=2, steps=steps, eta=eta)
    assert len(trace) == steps
    spans = last_spans(trace)
    assert torch.isfinite(spans).all() and (spans > 0).all() and (spans < 1).all()


def test_the_options_of_sampling_may_be_changed_on_a_model() -> None:
    changed = model()
    changed.config = replace(changed.config, steps=5, queries=9)
    with torch.no_grad():
        answer = changed(BATCH, generator=seeded())
    assert len(answer.trace) == 5 and answer.spans_BQ2.shape == (3, 9, 2)
    assert_close(answer.spans_BQ2, cw_to_se(last_spans(sample(model(), steps=5, queries=9)[1])))


def test_a_video_meets_its_sentence_once_however_many_steps() -> None:
    counted, calls = model(), []
    for part in (counted.video_in, counted.text_in, *counted.cross, *counted.encoder, counted.similarity):
        part.register_forward_hook(lambda *_: calls.append("condition"))
    for layer in counted.denoiser.layers:
        layer.ca_v_proj.register_forward_hook(lambda *_: calls.append("memory"))
        layer.ca_kpos_proj.register_forward_hook(lambda *_: calls.append("memory"))
        layer.register_forward_hook(lambda *_: calls.append("step"))
    sample(counted, steps=7)
    assert calls.count("condition") == 2 + len(counted.cross) + len(counted.encoder) + 1
    assert calls.count("memory") == 2 * len(counted.denoiser.layers)
    assert calls.count("step") == 7 * len(counted.denoiser.layers)


@pytest.mark.parametrize("intensity,moves", [(0.0, False), (0.1, True)])
def test_the_noise_level_is_felt_only_with_its_code(intensity: float, moves: bool) -> None:
    felt = model(intensity=intensity)
    with torch.no_grad():
        seen = felt.condition(felt.project(BATCH), BATCH)
        x_BQ2 = torch.randn(3, 5, 2, generator=seeded())
        low, high = (felt.denoiser(x_BQ2, torch.full((3,), time), seen).spans_cw_NBQ2 for time in (3, 900))
    assert torch.equal(low, high) != moves


def test_a_span_embedded_by_its_clips_is_their_mean() -> None:
    roi = model(span_embedding="roi")
    assert roi.denoiser.span_in is None
    memory_BTd = torch.randn(2, 8, 16)
    mask_BT = torch.arange(8)[None] < torch.tensor([8, 4])[:, None]
    memory_BTd[1, 4:] = 1e6  # padding
    seen = Condition(memory_BTd, memory_BTd[:, 0], memory_BTd, mask_BT, memory_BTd[..., 0])
    spans_se = torch.tensor([[0.25, 0.5], [0.0, 1.0], [0.6, 0.6], [0.99, 1.4], [-0.5, -0.2], [0.2, 0.3]])
    spans_cw = torch.stack([spans_se.mean(-1), spans_se[:, 1] - spans_se[:, 0]], -1).expand(2, -1, -1)
    inside = [
        [(2, 4), (0, 8), (4, 5), (7, 8), (0, 1), (1, 3)],
        [(1, 2), (0, 4), (2, 3), (3, 4), (0, 1), (0, 2)],
    ]
    embedded = roi.denoiser.embed(spans_cw, seen)
    for row, ranges in enumerate(inside):
        for span, (first, stop) in enumerate(ranges):
            assert_close(embedded[row, span], memory_BTd[row, first:stop].mean(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"span_embedding": "roi"}, {"intensity": 0.0}, {"decoder_layers": 1}])
def test_a_variant_trains_all_it_has(options) -> None:
    variant = model(**options).train()
    variant.losses(BATCH, generator=seeded()).total.backward()
    assert [name for name, p in variant.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_noisy_spans_are_truth_first_then_placeholders() -> None:
    """At step 0 nearly nothing of the signal is lost."""
    noisy, quiet = model(), torch.zeros(2, 5, 2)
    truth = [torch.tensor([[0.3, 0.2]]), torch.tensor([[0.6, 0.4], [0.2, 0.1]])]
    normal = torch.randn(2, 5, 2, generator=seeded())
    normal[0, 1, 1] = -9  # a width far below zero
    draws = Draws(torch.zeros(2, dtype=torch.long), quiet, normal)
    spans = to_spans(noisy.noisy_spans(truth, draws), 2.0)
    assert_close(spans[0, :1], truth[0], rtol=0, atol=1e-4)
    assert_close(spans[1, :2], truth[1], rtol=0, atol=1e-4)
    expected = normal / 6 + 0.5
    expected[0, 1, 1] = 0.01
    assert_close(spans[0, 1:], expected[0, 1:].clamp(0, 1), rtol=0, atol=1e-4)
    assert_close(spans[1, 2:], expected[1, 2:].clamp(0, 1), rtol=0, atol=1e-4)


def test_of_more_moments_than_spans_some_are_taken_by_chance() -> None:
    crowded = model(queries=2)
    truth = [torch.stack([torch.linspace(0.1, 0.9, 9), torch.full((9,), 0.1)], -1)]
    draws = Draws(torch.zeros(1, dtype=torch.long), torch.zeros(1, 2, 2), torch.randn(1, 2, 2))
    taken = set()
    for seed in range(20):
        spans = to_spans(crowded.noisy_spans(truth, draws, seeded(seed)), 2.0)
        distance = (spans[0, :, None, 0] - truth[0][None, :, 0]).abs()
        assert (distance.amin(1) < 1e-3).all() and len(distance.argmin(1).unique()) == 2
        taken |= set(distance.argmin(1).tolist())
    assert len(taken) > 5


@pytest.mark.parametrize("moments", [0, 9])
def test_a_video_of_no_moment_or_of_many_trains(moments: int) -> None:
    assert BATCH.targets is not None
    windows = tuple(torch.rand(moments, 2).cumsum(1) for _ in range(3))
    odd = replace(BATCH, targets=replace(BATCH.targets, windows_clip=windows))
    losses = model().train().losses(odd, generator=seeded())
    assert torch.isfinite(losses.total)


@pytest.mark.parametrize("kind", ["plain", "scaled", "paper", "none"])
def test_similarity_losses_are_an_option(kind: str) -> None:
    losses = model(similarity=kind).losses(BATCH, generator=seeded())
    assert ("similarity" in losses.terms) == (kind != "none")
    set_losses = {"span", "giou", "label", "span_0", "giou_0", "label_0"}
    assert set_losses == losses.terms.keys() - {"similarity"} and torch.isfinite(losses.total)


def test_graded_labels_count_as_relevant_or_not() -> None:
    assert BATCH.targets is not None
    binary = replace(BATCH.targets, saliency_BT=(BATCH.targets.saliency_BT > 0).float())
    one, other = (
        model().losses(replace(BATCH, targets=targets), generator=seeded()).terms["similarity"]
        for targets in (BATCH.targets, binary)
    )
    assert torch.equal(one, other) and int(BATCH.targets.saliency_BT.max()) == 4


@pytest.mark.parametrize("faithful", [True, False])
def test_the_published_mask_mixes_samples_and_ours_does_not(faithful: bool) -> None:
    mixing, alone = model(faithful=faithful), pick(BATCH, [0])
    with torch.no_grad():
        ours = mixing.condition(mixing.project(BATCH), BATCH).memory_BTd[0]
        its_own = mixing.condition(mixing.project(alone), alone).memory_BTd[0]
    assert torch.allclose(ours, its_own, atol=1e-5) != faithful


def test_a_larger_scale_drowns_later() -> None:
    spans = [torch.full((1, 2), 0.9)]
    draws = Draws(torch.tensor([400]), torch.randn(1, 1, 2, generator=seeded()), torch.zeros(1, 1, 2))
    off = []
    for scale in (0.5, 4.0):
        scaled = model(signal_scale=scale, queries=1)
        off.append(float((to_spans(scaled.noisy_spans(spans, draws), scale) - 0.9).abs().max()))
    assert off[1] < off[0]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("steps", 0),
        ("steps", 1001),
        ("eta", 1.5),
        ("signal_scale", 0.0),
        ("hidden", 18),
        ("queries", 0),
        ("intensity", -1.0),
    ],
)
def test_options_that_cannot_be_are_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=option):
        create_model("momentdiff", **{option: value})


def test_an_unknown_kind_of_embedding_is_refused() -> None:
    with pytest.raises(ConfigError, match="span_embedding"):
        create_model("momentdiff", span_embedding="box")


def test_the_default_has_the_published_parameters_that_are_used() -> None:
    """8,080,018 published, of which 1,556,611 never get a gradient (momentdiff.md section 12)."""
    assert sum(p.numel() for p in create_model("momentdiff").parameters()) == 8_080_018 - 1_556_611


def test_an_authors_checkpoint_tells_its_options(tmp_path: Path) -> None:
    published = load_file(Path(__file__).parents[1] / "parity" / "momentdiff" / "a_weights.safetensors")
    torch.save({"model": published, "epoch": 3}, tmp_path / "model.ckpt")
    card = convert(tmp_path / "model.ckpt", "momentdiff", tmp_path / "ours.safetensors", heads=4)
    expected = {"video_dim": 26, "text_dim": 20, "hidden": 32, "feed_forward": 48, "decoder_layers": 2}
    assert expected.items() <= card.options.items() and card.options["span_embedding"] == "fc"
    _, tensors = read_weights(tmp_path / "ours.safetensors")
    create_model("momentdiff", **card.options).load_state_dict(tensors)
    first = published["transformer.diffusion_decoder.noise_embed.layers.0.weight"]
    assert torch.equal(tensors["denoiser.span_in.weight"], first)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_builds_its_model(path: Path) -> None:
    run = read_run_config(path)
    with torch.device("meta"):
        built = create_run_model(run)
    ten = any(name in path.stem for name in ("qvhighlights", "synthetic"))
    assert built.config.queries == (10 if ten else 5)
    assert built.config.video_dim == run.data.contract.video_dim
    assert (built.config.similarity == "scaled") == any(
        name in path.stem for name in ("_len_", "_mom_", "qvh", "tacos")
    )


def test_there_is_a_configuration_for_each_published_run() -> None:
    assert len(CONFIGS) >= 9
