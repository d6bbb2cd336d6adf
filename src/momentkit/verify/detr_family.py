"""The blocks that the DETR family shares, each against stored runs of the published codes' blocks.

Each file of the folder is one case; the README beside them says what it holds.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from momentkit.core.spans import pairwise_giou, pairwise_iou, se_to_cw
from momentkit.losses.matching import match
from momentkit.losses.saliency import margin, negative_pair, rank
from momentkit.losses.spans import label_cross_entropy, label_focal, span_distance, span_giou
from momentkit.models.bm_detr import FixedAnchorDecoder
from momentkit.nn.attention import BareAttention, PackedAttention
from momentkit.nn.decoder import (
    AnchorDecoder,
    AnchorDecoderLayer,
    logit,
    loop,
    predict_moments,
    span_positions,
)
from momentkit.nn.pointwise import PReLU
from momentkit.nn.positions import clip_positions
from momentkit.nn.transformer import CrossLayer, EncoderLayer, released_mask
from momentkit.predict.decode import PostProcess, decode
from momentkit.predict.suppress import temporal_nms
from momentkit.verify.report import CaseResult, StageResult, compare

TOLERANCE = 2e-5
Tensors = Mapping[str, Tensor]


@torch.no_grad()
def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every file of the folder, one result each."""
    config = json.loads((golden / "config.json").read_text())

    def stored(name: str) -> Tensors:
        return {key: torch.from_numpy(np.array(value)) for key, value in np.load(golden / name).items()}

    layers, decoders = (load_file(golden / f"{name}.safetensors") for name in ("layers", "decoders"))
    yield CaseResult("encodings", tuple(_encodings(stored("encodings.npz"))))
    yield CaseResult("spans and matching", tuple(_matching(stored("spans_and_matching.npz"))))
    yield CaseResult("saliency losses", tuple(_saliency(stored("saliency_losses.npz"))))
    yield CaseResult("layers", tuple(_layers(stored("layers.npz"), layers, config)))
    yield CaseResult("decoders", tuple(_decoders(stored("decoders.npz"), decoders, config)))
    cases = json.loads((golden / "postprocessing.json").read_text())
    yield CaseResult("post-processing", tuple(_post_processing(cases)))


def _same(stage: str, ours: Tensor, stored: Tensors) -> StageResult:
    return compare(stage, ours, stored[stage], TOLERANCE)


def _encodings(stored: Tensors) -> list[StageResult]:
    mask, spans = stored["video_mask"].bool(), stored["spans_cw"]
    results = [_same("inverse_sigmoid_out", logit(stored["inverse_sigmoid_in"]), stored)]
    for width in (32, 256):
        results += [
            _same(f"sine_pos_{width}", clip_positions(mask, width), stored),
            _same(f"span_sine_center_first_{width}", span_positions(spans, width), stored),
            _same(f"span_sine_width_first_{width}", span_positions(spans.flip(-1), width), stored),
        ]
    return results


def _matching(stored: Tensors) -> list[StageResult]:
    a, b = stored["a_xx"], stored["b_xx"]
    targets = stored["targets"].split(stored["target_counts"].tolist())
    logits, spans = stored["pred_logits"], stored["pred_spans"]
    results = [
        _same("a_cw", se_to_cw(a), stored),
        _same("iou", pairwise_iou(a, b)[0], stored),
        _same("giou", pairwise_giou(a, b), stored),
    ]
    for name, costs in (("a", (10.0, 1.0, 4.0)), ("b", (1.0, 8.0, 8.0))):
        parts = zip(("batch", "query", "target"), match(logits, spans, targets, costs), strict=True)
        results += [
            compare(f"match_{name}.{part}", v, stored[f"match_{name}.{part}"], 0.0) for part, v in parts
        ]
    matching = match(logits, spans, targets)
    return [
        *results,
        _same("loss_span", span_distance(spans, targets, matching), stored),
        _same("loss_giou", span_giou(spans, targets, matching), stored),
        _same("loss_label", label_cross_entropy(logits, matching), stored),
        _same("loss_label_focal", label_focal(logits, matching), stored),
    ]


def _saliency(stored: Tensors) -> list[StageResult]:
    score, negative, label = stored["scores"], stored["scores_neg"], stored["labels"]
    mask = stored["video_mask"].bool()
    both = torch.cat([score, negative], 1), nn.functional.pad(label, (0, label.shape[1])), mask.repeat(1, 2)
    ours = {
        "margin": margin(score, stored["pos_index"], stored["neg_index"]),
        "neg_pair": negative_pair(negative, mask),
        "rank_with_negatives": rank(*both),
        "rank_without_negatives": rank(score, label, mask),
    }
    ours["total_with_negatives"] = ours["margin"] + ours["rank_with_negatives"] + ours["neg_pair"]
    ours["total_without_negatives"] = ours["margin"] + ours["rank_without_negatives"]
    return [_same(name, value, stored) for name, value in ours.items()]


def _layers(stored: Tensors, weights: Tensors, config: Mapping[str, Any]) -> list[StageResult]:
    width, heads, hidden = config["d_model"], config["heads"], config["feedforward"]
    clips, none = config["video_length"], nn.Identity()
    encoder = EncoderLayer(width, heads, hidden, 0.0, none, PReLU())
    packed = CrossLayer(PackedAttention(width, heads, 0.0), width, hidden, 0.0, none, PReLU())
    bare = CrossLayer(BareAttention(width, heads, 0.0), width, hidden, 0.0, none, PReLU())
    for name, layer in (("encoder_layer", encoder), ("cross_layer", packed), ("dummy_cross_layer", bare)):
        _load(layer, weights, f"{name}.")
    src, pos, valid = stored["src"], stored["pos"], stored["valid"]
    x, words, mask, word_mask = src[:, :clips], src[:, clips:], valid[:, :clips], valid[:, clips:]
    place, keys = pos[:, :clips], words + pos[:, clips:]
    blocked = released_mask(mask, word_mask, heads)
    tiled, _ = packed(x, place, keys, words, word_mask, blocked)
    clean, _ = packed(x, place, keys, words, word_mask)
    alone = stored["cross_layer_out_one_sample_at_a_time"][:, :clips]
    bank, bank_mask = stored["dummy_src"][:, clips:], stored["dummy_valid"][:, clips:]
    dummies = config["num_dummies"]
    out, seen = bare(
        stored["dummy_src"][:, :clips],
        stored["dummy_pos"][:, :clips],
        bank + stored["dummy_pos"][:, clips:],
        bank[:, dummies:],
        bank_mask,
        released_mask(stored["dummy_valid"][:, :clips], bank_mask, heads),
    )
    token = stored["single_token_in"] + bare.self_attn.out_proj.bias  # a token that has nothing to look at
    token = bare.norm2(token + bare.linear2(bare.activation(bare.linear1(bare.norm1(token)))))
    return [
        _same("encoder_layer_out", encoder(src, pos, valid), stored),
        compare("cross_layer_out", tiled, stored["cross_layer_out"][:, :clips], TOLERANCE),
        compare("clean cross layer, real clips", clean[mask], alone[mask], TOLERANCE),
        compare("tiled_attention_mask", blocked.flatten(0, 1), stored["tiled_attention_mask"], 0.0),
        compare("dummy_cross_layer_out", out, stored["dummy_cross_layer_out"][:, :clips], TOLERANCE),
        _same("dummy_cross_layer_weights", seen, stored),
        _same("single_token_out", token, stored),
    ]


def _decoders(stored: Tensors, weights: Tensors, config: Mapping[str, Any]) -> list[StageResult]:
    width, count = config["d_model"], config["decoder_layers"]

    def layers() -> list[AnchorDecoderLayer]:
        sizes = width, config["heads"], config["feedforward"], 0.0
        return [AnchorDecoderLayer(*sizes, nn.Identity(), PReLU(), index == 0) for index in range(count)]

    refined, leaving = AnchorDecoder(layers(), width), AnchorDecoder(layers(), width)
    static = FixedAnchorDecoder(layers(), width)
    _load(refined, weights, "refined.")
    _load(leaving, weights, "output_refs.")
    _load(static, weights, "static.")
    content, anchors = stored["content"], stored["anchors"]
    given = stored["memory"], stored["video_mask"].bool(), stored["memory_pos"], anchors
    zero, results = torch.zeros_like(content), []
    for name, start in (("refined", zero), ("refined_content", content)):
        decoded = refined(start, *given)
        results.append(_same(f"{name}.hs", decoded.hidden_NBQD, stored))
        results.append(_same(f"{name}.references", decoded.entering_NBQ2, stored))
    for loops in range(1, 5):
        decoded = loop(lambda start: refined(start, *given), zero, loops)
        results.append(_same(f"loop{loops}.hs", decoded.hidden_NBQD, stored))
        results.append(_same(f"loop{loops}.references", decoded.entering_NBQ2, stored))
    # UVCOM's decoder adds a table to what comes in.
    decoded = leaving(content + weights["output_refs.span_embed.weight"], *given)
    results.append(_same("output_refs.hs", decoded.hidden_NBQD, stored))
    results.append(_same("output_refs.references", decoded.leaving_NBQ2, stored))
    memory, valid, place = stored["static.memory"], stored["static.valid"], stored["static.memory_pos"]
    fixed = static(zero, memory, valid, place, anchors)
    results.append(_same("static.hs", fixed.hidden_NBQd, stored))
    expected = fixed.anchors_Q2.expand_as(stored["static.references"])
    return [*results, _same("static.references", expected, stored)]


def _load(module: nn.Module, weights: Tensors, prefix: str) -> None:
    own = module.state_dict()
    named = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    # UVCOM's content table and BM-DETR's second, unread width are no part of the blocks.
    named.pop("span_embed.weight", None)
    module.load_state_dict(
        {name: value[: len(own[name])] if value.ndim else value for name, value in named.items()}
    )


def _post_processing(cases: list[dict[str, Any]]) -> list[StageResult]:
    results = []
    for number, case in enumerate(cases):
        logits, spans = torch.tensor(case["logits"])[None], torch.tensor(case["spans_cw"])[None]
        prediction = predict_moments(logits, spans, torch.zeros(1, 4))
        for name in ("ranked", "windows"):
            rounds = name == "windows"
            post = PostProcess(
                top=len(case["logits"]),
                clamp=case["clamp_to_duration"],
                maximum_s=case["max_timestamp"] if rounds and "clip_ts" in case["steps"] else 0.0,
                step_s=case["clip_length"] if rounds else 0.0,
            )
            (answer,) = decode(prediction, [4], case["clip_length"], [case["duration"]], post)
            results.append(compare(f"{number}.{name}", answer.windows_N3, case[name], TOLERANCE))
        kept = temporal_nms(torch.tensor(case["windows"]), 0.7)
        results.append(compare(f"{number}.nms_0_7", kept, case["nms_0_7"], TOLERANCE))
    return results
