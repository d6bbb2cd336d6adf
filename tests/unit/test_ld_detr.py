"""LD-DETR: the parts of the fuser, their order, and convolutions that see no padding."""

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from claims.models import random_batch, tiny_model
from momentkit.convert.checkpoint import convert
from momentkit.core.errors import ConfigError
from momentkit.core.weights import read_weights
from momentkit.models.ld_detr import LDDETRConfig, ResidualBlock
from momentkit.models.registry import build_model, create_model
from momentkit.verify.ld_detr import recipe

PARITY = Path(__file__).parents[1] / "parity" / "ld_detr"
PARTS = ("v2t", "t2v", "encoder1", "conv", "encoder2")
TABLE_8 = [
    ("conv", "v2t", "t2v", "encoder1", "encoder2"),
    ("v2t", "conv", "t2v", "encoder1", "encoder2"),
    ("v2t", "t2v", "conv", "encoder1", "encoder2"),
    PARTS,
    ("v2t", "t2v", "encoder1", "encoder2", "conv"),
]
TABLE_9 = [tuple(part for part in PARTS if part != left_out) for left_out in PARTS]


@pytest.mark.parametrize("fuser", TABLE_8 + TABLE_9, ids="-".join)
def test_the_fuser_has_the_parts_it_is_given_in_their_order(fuser: tuple[str, ...]):
    model, batch = tiny_model("ld_detr", fuser=fuser), random_batch([5, 3], [2, 4])
    stages = model.stages(batch)
    assert tuple(stages.fused) == fuser and set(model.fuser) == set(fuser)
    assert torch.isfinite(model.losses(batch).total)
    # Each part reads what the one before gives: the last one's output is the memory of the decoder.
    shared = {name: value for name, value in model.state_dict().items() if not name.startswith("fuser.")}
    other = tiny_model("ld_detr", fuser=tuple(reversed(fuser)))
    other.load_state_dict(shared, strict=False)
    other.fuser.load_state_dict(model.fuser.state_dict())
    assert not torch.allclose(other.stages(batch).logits_NBQ2, stages.logits_NBQ2)


@pytest.mark.parametrize("fuser", [("encoder1", "conv"), ("v2t", "t2v", "v2t"), ()])
def test_a_fuser_without_words_or_with_a_part_twice_is_refused(fuser: tuple[str, ...]):
    with pytest.raises(ConfigError, match="fuser lists its parts in order"):
        LDDETRConfig(fuser=fuser)  # type: ignore[arg-type]


def test_a_block_of_one_convolution_is_the_single_convolution_of_table_7():
    options = {"video_dim": 4, "text_dim": 4, "hidden": 16, "feed_forward": 8, "distill_align": False}
    model = create_model("ld_detr", conv_blocks=1, block_convolutions=1, **options)
    assert sum(isinstance(module, torch.nn.Conv1d) for module in model.modules()) == 1


@pytest.mark.parametrize("training", [False, True])
def test_convolutions_and_batch_statistics_see_no_padding(training: bool):
    torch.manual_seed(0)
    block = ResidualBlock(4, 2, faithful=False).train(training)
    video = torch.randn(2, 5, 4)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    loud = torch.cat([video.masked_fill(~mask[..., None], 1e3), torch.full((2, 4, 4), -1e3)], 1)
    wide = torch.cat([mask, torch.zeros(2, 4, dtype=torch.bool)], 1)
    plain = block(video, mask)
    mean = block.norms[0].running_mean.clone()
    block.norms[0].reset_running_stats()
    padded = block(loud, wide)
    assert_close(padded[:, :5][mask], plain[mask])
    if training:
        assert_close(block.norms[0].running_mean, mean)
        real = block.convs[0](video[:1].transpose(1, 2)).transpose(1, 2)[0]
        short = block.convs[0](video[1:, :3].transpose(1, 2)).transpose(1, 2)[0]
        assert_close(mean, 0.1 * torch.cat([real, short]).mean(0).detach())


def test_a_training_batch_of_a_single_clip_has_finite_losses():
    model, batch = tiny_model("ld_detr").train(), random_batch([1], [3])
    model.losses(batch).total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_highlights_alone_learn_from_the_saliency_loss_alone():
    model = tiny_model("ld_detr", task="highlights")
    assert set(model.losses(random_batch([5, 3], [2, 4])).terms) == {"saliency"} and model.distill is None


def test_distill_align_and_its_memory_change_no_answer():
    batch = random_batch([5, 3], [2, 4])
    with_it, without = tiny_model("ld_detr"), tiny_model("ld_detr", distill_align=False)
    without.load_state_dict({k: v for k, v in with_it.state_dict().items() if not k.startswith("distill.")})
    assert torch.equal(with_it(batch).spans_BQ2, without(batch).spans_BQ2)
    assert {"align", "similarity"} <= set(with_it.losses(batch).terms)


def test_an_authors_checkpoint_becomes_our_weights(tmp_path: Path):
    config = json.loads((PARITY / "small_eval.json").read_text())
    torch.save({"model": recipe(config)}, tmp_path / "model.ckpt")
    convert(tmp_path / "model.ckpt", "ld_detr", tmp_path / "ours.safetensors")
    card, tensors = read_weights(tmp_path / "ours.safetensors")
    model = build_model("ld_detr", card.options)
    model.load_state_dict(tensors)
    assert model.config.fuser == PARTS and model.config.conv_blocks == 5 and model.config.decoder_loops == 1
    assert not model.config.distill_align


def test_mixed_precision_trains_and_keeps_the_alignment_in_float32():
    model, batch = tiny_model("ld_detr", dropout=0.0, input_dropout=0.0), random_batch([7, 3, 1], [3, 4, 1])
    full = model.losses(batch)
    model.distill.train()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.losses(batch)
    mixed.total.backward()
    assert_close(mixed.terms["similarity"], full.terms["similarity"], rtol=0.05, atol=0.05)
    assert mixed.terms["align"].dtype == torch.float32
    assert model.distill.video_memory_QD.norm(dim=1).sub(1).abs().max() < 1e-5  # remembered with all digits
