"""TR-DETR: one encoder used twice, alignment losses that can be off, relevant clips."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from claims.models import random_batch, tiny_model
from momentkit.convert.checkpoint import convert
from momentkit.core.errors import ConfigError
from momentkit.core.weights import read_weights
from momentkit.models.registry import build_model
from momentkit.models.tr_detr import TRDETRConfig, relevant_clips

PARITY = Path(__file__).parents[1] / "parity" / "tr_detr"


def test_highlights_weigh_the_clips_and_the_same_encoder_reads_them_again():
    model, batch = tiny_model("tr_detr"), random_batch([5, 3], [2, 4])
    stages = model.stages(batch)
    score = model.saliency(stages.encoded_BTd).sum(-1) / 4.0
    share = score.masked_fill(~batch.video_mask_BT, -torch.inf).softmax(1)
    x = stages.encoded_BTd + stages.cross_BTd * share[..., None]
    for layer in model.encoder:
        x = layer(x, stages.positions_BTd, batch.video_mask_BT)
    assert_close(stages.memory_BTd, x)


def test_an_alignment_loss_of_weight_zero_is_left_out():
    batch = random_batch([5, 3], [2, 4])
    own = set(tiny_model("tr_detr").losses(batch).terms)
    plugin = tiny_model("tr_detr", weight_global=0.0, weight_local=0.0, distill_align=True, distill_memory=6)
    assert own - set(plugin.losses(batch).terms) == {"global", "local"}
    assert set(plugin.losses(batch).terms) - own == {"align", "similarity"}


def test_highlights_alone_learn_without_moments():
    model = tiny_model("tr_detr", task="highlights")
    assert set(model.losses(random_batch([5, 3], [2, 4])).terms) == {"saliency", "global", "local"}


def test_relevant_clips_are_rated_ones_or_the_upper_half():
    label = torch.tensor([[0.0, 3.0, 0.0, 1.0, 9.0], [5.0, 2.0, 7.0, 0.0, 0.0]])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    assert relevant_clips(label, mask, "moments").tolist() == [
        [False, True, False, True, True],
        [True, True, True, False, False],
    ]
    # Of 5 clips the 3 highest, the later of equal ones; of 3 clips the 2 highest.
    assert relevant_clips(label, mask, "highlights").tolist() == [
        [False, True, False, True, True],
        [True, False, True, False, False],
    ]


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ConfigError, match="temperature must be positive"):
        TRDETRConfig(temperature=0.0)


def test_an_authors_checkpoint_becomes_our_weights(tmp_path: Path):
    torch.save({"model": load_file(PARITY / "pad4" / "state_dict.safetensors")}, tmp_path / "model.ckpt")
    convert(tmp_path / "model.ckpt", "tr_detr", tmp_path / "ours.safetensors", heads=4)
    card, tensors = read_weights(tmp_path / "ours.safetensors")
    build_model("tr_detr", card.options).load_state_dict(tensors)
    assert card.options["hidden"] == 32 and card.options["heads"] == 4
