"""CG-DETR beyond the stored runs: false negatives, the adaptive token, clean against published, configs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from claims.models import random_batch, tiny_model
from momentkit.convert.checkpoint import convert
from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch
from momentkit.losses.saliency import rank
from momentkit.models.cg_detr import CGDETR, CGDETRConfig, Clips, unlike
from momentkit.train.run import create_run_model
from momentkit.train.run_config import read_run_config

ROOT = Path(__file__).parents[2]
CONFIGS = [  # of published rows
    path for path in sorted((ROOT / "configs").glob("cg_detr_*.toml")) if path.stem != "cg_detr_charades_clip"
]
STATE = ROOT / "tests" / "parity" / "cg_detr" / "pad4" / "state_dict.safetensors"
# Published count (cg_detr.md 6), less the word positions and the projection that nothing reads.
COUNT = 12_615_467 - (32 * 256 + 2 * 256) - 132_352


def _batch(keys: tuple[str, ...] = ()) -> Batch:
    """Three samples of the same lengths: nothing is padded."""
    return replace(random_batch([8, 8, 8], [4, 4, 4]), video_keys=keys)


def _terms(batch: Batch, **options: Any) -> dict[str, torch.Tensor]:
    model = tiny_model("cg_detr", dropout=0.0, input_dropout=0.0, **options)
    return {name: term.detach() for name, term in model.losses(batch).terms.items()}


@pytest.mark.parametrize("keys", [(), ("a", "a", "a"), ("a", "b", "c")])
def test_without_padding_and_false_negatives_the_published_arithmetic_is_ours(keys: tuple[str, ...]) -> None:
    clean, published = (_terms(_batch(keys), faithful=faithful) for faithful in (False, True))
    assert_close(published, clean, rtol=1e-5, atol=1e-6)


def test_a_single_false_negative_is_ranked_like_any_other_sample() -> None:
    batch = _batch(("a", "a", "b"))  # sample 0 and the next are the same video
    assert batch.targets is not None
    clean, published = (_terms(batch, faithful=faithful)["saliency"] for faithful in (False, True))
    with torch.no_grad():
        fused = tiny_model("cg_detr").stages(batch).fused
    label_1T, mask_1T = batch.targets.saliency_BT[:1], batch.video_mask_BT[:1]
    scores = fused.saliency_BT[:1], fused.word_mass_BT[:1]
    assert_close(clean - published, sum(rank(score, label_1T, mask_1T) for score in scores))


def test_only_a_sentence_of_another_video_is_a_negative() -> None:
    model, batch = tiny_model("cg_detr"), _batch(("a", "a", "b"))
    with torch.no_grad():
        stages = model.stages(batch)
        real_B, negative = model.negative_pass(stages, batch)
        swapped = replace(batch, text_BLE=batch.text_BLE.roll(-1, 0), text_mask_BL=batch.text_mask_BL)
        wanted_BT = model.stages(swapped).fused.saliency_BT
        _, none = model.negative_pass(stages, _batch(("a", "a", "a")))
    assert real_B.tolist() == [False, True, True] and none is None
    assert_close(negative.saliency_BT, wanted_BT[1:])


def test_the_adaptive_token_is_the_mean_clip_and_the_nearest_prompts() -> None:
    """Against the definition, one video and one clip at a time."""
    torch.manual_seed(0)
    model = tiny_model("cg_detr").requires_grad_(False)
    mask_BT = torch.arange(5)[None] < torch.tensor([5, 3])[:, None]
    video_BTd, mass_BT = torch.randn(2, 5, 16), torch.rand(2, 5)
    got_B1d = model.adaptive_token(Clips(video_BTd, torch.zeros_like(video_BTd), mask_BT), mass_BT)
    for video, mass, clips, got_1d in zip(video_BTd, mass_BT, (5, 3), got_B1d, strict=True):
        context = video[:clips].mean(0)
        share = torch.zeros(4)
        for clip in range(clips):
            cosine = [
                torch.cosine_similarity(video[clip] - context, prompt, dim=0) for prompt in model.prompts
            ]
            share += torch.stack(cosine).softmax(0) * mass[clip] / mass[:clips].sum()
        best = sorted(range(4), key=lambda prompt: -float(share[prompt]))[:2]
        wanted = context + sum(share[prompt] * model.prompts[prompt] for prompt in best)
        assert_close(got_1d[0], wanted)


def test_a_video_of_one_clip_has_an_ordinary_gradient() -> None:
    model = tiny_model("cg_detr")
    model.losses(random_batch([1, 1], [3, 2])).total.backward()
    assert all(p.grad is None or float(p.grad.norm()) < 1e3 for p in model.parameters())


def test_a_moment_without_clips_costs_nothing_to_distil() -> None:
    batch = _batch()
    assert batch.targets is not None
    targets = replace(batch.targets, saliency_BT=torch.zeros_like(batch.targets.saliency_BT))
    terms = _terms(replace(batch, targets=targets))
    assert terms["distillation"] == 0 and all(torch.isfinite(term) for term in terms.values())


def test_rows_that_point_alike_cost_and_a_single_row_does_not() -> None:
    assert unlike(torch.tensor([[3.0, 4.0]])) == 0
    assert_close(unlike(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])), torch.tensor(0.5))  # 2 of 4 entries


def test_highlights_alone_train_the_saliency() -> None:
    assert _terms(_batch(), task="highlights").keys() == {"saliency"}


@pytest.mark.parametrize("loops", [1, 3])
def test_plug_ins_serve_as_in_their_paper(loops: int) -> None:
    torch.manual_seed(0)
    plain = tiny_model("cg_detr").config
    model = CGDETR(replace(plain, decoder_loops=loops, distill_align=True, distill_memory=6))
    batch = random_batch([9, 4], [3, 5])
    losses = model.train().losses(batch, epoch=0.5)
    assert {"align", "similarity"} <= losses.terms.keys() and losses.weights["align"] == 0.6
    with torch.no_grad():
        once = CGDETR(replace(model.config, decoder_loops=1, distill_align=False)).eval()
        once.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("distill.")})
        same = torch.allclose(model.eval()(batch).spans_BQ2, once(batch).spans_BQ2, atol=1e-6)
    assert same == (loops == 1)


@pytest.mark.parametrize("option", [{"dummies": 0}, {"top_prompts": 0}, {"prompts": 3, "top_prompts": 4}])
def test_options_that_cannot_be_are_refused(option: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="top_prompts"):
        CGDETRConfig(**option)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_published_configuration_builds_its_model(path: Path) -> None:
    config = read_run_config(path)
    with torch.device("meta"):
        model = create_run_model(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    extra_dummies, columns = model.config.dummies - 45, model.config.video_dim - 2818
    words = model.config.text_dim - 512
    assert count == COUNT + extra_dummies * 2 * 256 + (columns + words) * (256 + 2)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_authors_checkpoint_tells_its_options(tmp_path: Path, prefix: str) -> None:
    published = {f"{prefix}{name}": value for name, value in load_file(STATE).items()}
    torch.save({"model": published, "epoch": 3}, tmp_path / "model.ckpt")
    card = convert(tmp_path / "model.ckpt", "cg_detr", tmp_path / "ours.safetensors", heads=8)
    wanted = {"hidden": 32, "dummies": 4, "prompts": 5, "decoder_layers": 2, "sentence_layers": 1}
    assert {name: card.options[name] for name in wanted} == wanted
