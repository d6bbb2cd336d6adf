"""Moment-DETR beyond the stored runs: both places of the norms, the contrast, its configurations."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from claims.models import pad, random_batch, tiny_model
from momentkit.convert.checkpoint import convert
from momentkit.core.errors import ConfigError
from momentkit.core.weights import read_weights
from momentkit.losses.matching import Matching
from momentkit.models.moment_detr import (
    DecoderLayer,
    MomentDETR,
    MomentDETRConfig,
    PreNormEncoderLayer,
    contrast,
)
from momentkit.models.registry import build_model
from momentkit.nn.transformer import EncoderLayer
from momentkit.train.run import create_run_model
from momentkit.train.run_config import read_run_config

CONFIGS = Path(__file__).parents[2] / "configs"
# Published counts (moment_detr.md 6), which hold learned word positions that no run uses; our saliency offset
# is a buffer.
UNUSED = 32 * 256 + 2 * 256
COUNTS = {
    "qvhighlights_slowfast_clip": 4_823_305,
    "qvhighlights_clip": 4_228_873,
    "charades_slowfast_clip": 4_823_305,
    "subtitles_clip": 4_228_873,
}


@pytest.mark.parametrize("pre_norm", [False, True])
def test_encoder_and_decoder_layers_equal_the_library_s_without_positions(pre_norm: bool) -> None:
    torch.manual_seed(0)
    x_BMd, query_BQd = torch.randn(3, 7, 8), torch.randn(3, 4, 8)
    mask_BM = torch.arange(7)[None] < torch.tensor([7, 3, 5])[:, None]
    library = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=pre_norm)
    ours = (PreNormEncoderLayer if pre_norm else EncoderLayer)(8, 2, 12, 0.0, nn.Identity(), nn.ReLU())
    ours.load_state_dict(library.state_dict())
    wanted = library(x_BMd, src_key_padding_mask=~mask_BM)
    assert_close(ours(x_BMd, torch.zeros_like(x_BMd), mask_BM)[mask_BM], wanted[mask_BM])
    other = nn.TransformerDecoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=pre_norm)
    layer = DecoderLayer(8, 2, 12, 0.0, pre_norm)
    layer.load_state_dict(other.state_dict())
    got = layer(query_BQd, torch.zeros(4, 8), x_BMd, x_BMd, mask_BM)
    assert_close(got, other(query_BQd, x_BMd, memory_key_padding_mask=~mask_BM))


def test_the_norms_in_front_answer_alike_in_any_padding_and_have_one_norm_more() -> None:
    model, batch = tiny_model("moment_detr", pre_norm=True), random_batch([9, 4], [3, 5])
    assert model.encoder_norm is not None
    with torch.no_grad():
        plain, loud = model(batch), model(pad(batch, clips=5, words=3, fill=1e3))
    assert_close(loud.spans_BQ2, plain.spans_BQ2)
    model.train().losses(batch).total.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.encoder_norm.parameters())


def test_positions_reach_queries_and_keys_alone() -> None:
    """Against the same attention written out: the value never carries a position."""
    torch.manual_seed(0)
    layer = PreNormEncoderLayer(8, 2, 12, 0.0, nn.Identity(), nn.ReLU())
    x_BMd, place_BMd, mask_BM = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    z_BMd = layer.norm1(x_BMd)
    reference = nn.MultiheadAttention(8, 2, batch_first=True)
    reference.load_state_dict(layer.self_attn.state_dict())
    at_BMd = z_BMd + place_BMd
    attended = x_BMd + reference(at_BMd, at_BMd, z_BMd)[0]
    wanted = attended + layer.linear2(layer.linear1(layer.norm2(attended)).relu())
    assert_close(layer(x_BMd, place_BMd, mask_BM), wanted)


def test_the_contrast_is_logsumexp_less_the_mean_of_the_matched() -> None:
    score_BQ = torch.tensor([[1.0, 2.0, 4.0], [0.5, 0.0, -1.0]])
    matching = Matching(torch.tensor([0, 0]), torch.tensor([0, 2]), torch.tensor([1, 0]))
    wanted = (score_BQ[0].logsumexp(0) - 2.5) / 2  # the second sample has no moment and counts 0
    assert_close(contrast(score_BQ, matching), wanted)


def test_the_published_contrast_counts_padded_words_and_ours_does_not() -> None:
    batch = random_batch([9, 4], [5, 2])
    padded = pad(batch, clips=0, words=4, fill=10.0)
    for faithful, moves in ((False, False), (True, True)):
        model = tiny_model("moment_detr", dropout=0.0, input_dropout=0.0, faithful=faithful)
        plain, loud = (float(model.losses(b).terms["contrast"].detach()) for b in (batch, padded))
        assert (abs(plain - loud) > 1e-3) == moves


def test_highlights_alone_train_the_saliency() -> None:
    assert tiny_model("moment_detr", task="highlights").losses(random_batch([5], [2])).terms.keys() == {
        "saliency"
    }


@pytest.mark.parametrize("loops", [1, 3])
def test_plug_ins_serve_as_in_their_paper(loops: int) -> None:
    torch.manual_seed(0)
    plain = tiny_model("moment_detr").config
    model = MomentDETR(replace(plain, decoder_loops=loops, distill_align=True, distill_memory=6))
    batch = random_batch([9, 4], [3, 5])
    losses = model.train().losses(batch, epoch=0.5)
    assert {"align", "similarity"} <= losses.terms.keys() and losses.weights["align"] == 0.6
    with torch.no_grad():
        once = MomentDETR(replace(model.config, decoder_loops=1, distill_align=False)).eval()
        once.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("distill.")})
        same = torch.allclose(model.eval()(batch).spans_BQ2, once(batch).spans_BQ2, atol=1e-6)
    assert same == (loops == 1)


@pytest.mark.parametrize("option", [{"contrast": -1}, {"temperature": 0.0}, {"temperature": float("nan")}])
def test_options_that_cannot_be_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        MomentDETRConfig(**option)


@pytest.mark.parametrize("name", COUNTS)
def test_a_published_configuration_has_the_published_size(name: str) -> None:
    config = read_run_config(CONFIGS / f"moment_detr_{name}.toml")
    with torch.device("meta"):
        model = create_run_model(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == COUNTS[name] - UNUSED - model.saliency_bias.numel()
    assert config.data.max_windows == 5 and not config.predict.clamp and config.predict.maximum_s == 150


@pytest.mark.parametrize(("pre_norm", "contrast_width"), [(False, 0), (True, 4)])
def test_an_authors_checkpoint_tells_its_options(tmp_path: Path, pre_norm: bool, contrast_width: int) -> None:
    options = {"video_dim": 10, "text_dim": 6, "hidden": 16, "heads": 4, "feed_forward": 24, "queries": 5}
    options |= {"pre_norm": pre_norm, "contrast": contrast_width}
    ours = build_model("moment_detr", options).state_dict()
    published = {_published(name): value for name, value in ours.items()}
    published["txt_position_embed.LayerNorm.weight"] = torch.ones(16)
    if contrast_width:
        published["contrastive_align_projection_vid.bias"] = torch.zeros(4)
    torch.save({"model": published, "epoch": 3}, tmp_path / "model.ckpt")
    card = convert(tmp_path / "model.ckpt", "moment_detr", tmp_path / "ours.safetensors", heads=4)
    assert card.options["pre_norm"] == pre_norm and card.options["contrast"] == contrast_width
    _, tensors = read_weights(tmp_path / "ours.safetensors")
    assert all(torch.equal(tensors[name], ours[name]) for name in ours)


def _published(name: str) -> str:
    """Our name -> the authors'."""
    for pattern, replacement in (
        (r"(video|text)_in\.norms\.(\d)\.", r"input_\1_proj.\2.LayerNorm."),
        (r"(video|text)_in\.linears\.(\d)\.", r"input_\1_proj.\2.net.1."),
        (r"encoder\.(\d)", r"transformer.encoder.layers.\1"),
        (r"encoder_norm\.", "transformer.encoder.norm."),
        (r"decoder\.", "transformer.decoder."),
        (r"queries", "query_embed.weight"),
        (r"saliency\.", "saliency_proj."),
        (r"saliency_bias", "saliency_proj.bias"),
        (r"contrast_query\.", "contrastive_align_projection_query."),
        (r"contrast_text\.", "contrastive_align_projection_txt."),
    ):
        renamed, hits = re.subn(f"^{pattern}", replacement, name)
        if hits:
            return renamed.replace("input_video", "input_vid").replace("input_text", "input_txt")
    return name
