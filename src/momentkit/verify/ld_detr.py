"""LD-DETR against stored runs of the published code: evaluation, training steps, and the full size.

A file of the folder is a case. Weights are not read but rebuilt from the recipe of the README, bit by bit.
Stored variants: `loops__` the decoder loops, `cleanmask__` the cross-attention mask is not tiled.
"""

import copy
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from momentkit.convert.keys import our_name, rename
from momentkit.core.types import Batch
from momentkit.models.ld_detr import LDDETR, LDDETRConfig
from momentkit.nn.distill_align import DistillAlign
from momentkit.verify import ld_detr_parts as parts
from momentkit.verify.detr import Arrays, compare_scaled, without_dropout
from momentkit.verify.report import CaseResult, StageResult, compare, compare_relative

VARIANTS = {  # prefix of the stored arrays -> options beside `faithful`
    "": {"decoder_loops": 1},
    "loops__": {"decoder_loops": 3},
    "cleanmask__": {"decoder_loops": 1, "tiled_mask": False},
    "loops_cleanmask__": {"decoder_loops": 3, "tiled_mask": False},
}
EVALUATION, FIRST, LATER, GRADIENT = 2e-5, 1e-5, 1e-4, 2e-3  # tolerances of the README


def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every file of a folder that is there, one result each."""
    cases = {
        "small_eval": _evaluation,
        "full256": _evaluation,
        "small_train": _training,
        "distill_align": parts.distill_align,
        "distill_align_clamp": parts.distill_align_clamp,
        "highlight_head": parts.highlight_head,
        "loop_decoder": parts.loop_decoder,
        "criterion_graded": parts.criterion,
        "criterion_binary": parts.criterion,
        "criterion_hd_only": parts.criterion,
        "postprocess": parts.postprocess,
        "labels": parts.labels,
    }
    for name, case in cases.items():
        if (golden / f"{name}.json").is_file():
            yield CaseResult(name, tuple(case(golden / name)))


def build(config: Mapping[str, Any], **options: Any) -> LDDETR:
    """The network of a stored file with the weights of the recipe, without dropout."""
    sizes = config["constructor"]
    model = LDDETR(
        LDDETRConfig(
            video_dim=sizes["vid_dim"],
            text_dim=sizes["txt_dim"],
            hidden=sizes["hidden_dim"],
            heads=config["nhead"],
            feed_forward=config["dim_feedforward"],
            queries=sizes["num_queries"],
            distill_memory=sizes["queue_length"],
            faithful=True,
            **options,
        )
    )
    published = recipe(config)
    model.load_state_dict(rename(published, "ld_detr") | distill_state(published))
    without_dropout(model)
    return model


def recipe(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The published state dictionary, drawn as the README says."""
    drawn = {}
    for name, shape in config["state_dict_shapes"].items():
        value = _draw(name, shape, config["weight_seed"])
        kind = np.int64 if name.endswith(("queue_ptr", "num_batches_tracked")) else np.float32
        drawn[name] = torch.from_numpy(np.asarray(value).astype(kind).reshape(shape))
    return drawn


def _draw(name: str, shape: list[int], seed: int) -> Any:
    rng = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    if name.endswith(("queue_ptr", "num_batches_tracked")):
        return np.zeros(shape)
    if name.endswith("distill_align.temp"):
        return 0.07
    if name.endswith("running_var"):
        return 0.5 + rng.random_sample(shape)
    if name.endswith("activation.weight"):
        return 0.1 + 0.3 * rng.random_sample(shape)
    normal = rng.standard_normal(shape)
    if name.endswith("running_mean"):
        return 0.1 * normal
    if name.endswith("_queue"):
        return normal / np.linalg.norm(normal, axis=0)
    if len(shape) == 1:
        return 1 + 0.1 * normal if name.endswith("weight") else 0.05 * normal
    scale = {
        "class_embed.weight": 5.0,
        "ca_qpos_sine_proj.weight": 4.0,
        "ca_kpos_proj.weight": 3.0,
        "cross_attn.out_proj.weight": 3.0,
        "ref_point_head.layers.1.weight": 3.0,
        "query_embed.weight": 1.5,
    }
    factor = next((value for ending, value in scale.items() if name.endswith(ending)), 1.0)
    if name in ("query_embed.weight", "txt_position_embed.position_embeddings.weight"):
        return factor * normal
    if name.endswith(("w4C", "w4Q", "v2t_extractor.weight")):
        return normal / np.sqrt(shape[0])
    return factor * (normal / np.sqrt(shape[-1] if name.endswith("w4mlu") else np.prod(shape[1:])))


def distill_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored tensors of Distill Align under our names."""
    state = {}
    for name, value in published.items():
        ours = distill_name(name)
        if ours is not None:
            state[ours] = value.T if name.endswith("_queue") else value
    return state | {"distill.place": published["distill_align.queue_ptr"].reshape(())}


def distill_name(published: str) -> str | None:
    """Our name of a tensor of Distill Align; None for any other."""
    if published.startswith("momentum_"):
        return f"distill.{our_name(published.removeprefix('momentum_'), 'ld_detr')}"
    names = {"temp": "temperature", "h.weight": "predict.weight", "h.bias": "predict.bias"}
    names |= {"vid_queue": "video_memory_QD", "txt_queue": "text_memory_QD", "queue_ptr": "place"}
    known = names.get(published.removeprefix("distill_align."))
    return f"distill.{known}" if known and published.startswith("distill_align.") else None


def _plugin(model: LDDETR) -> DistillAlign:
    assert model.distill is not None
    return model.distill


def batch_of(stored: Arrays, prefix: str = "") -> Batch:
    """Inputs, and targets where a file has them."""
    inputs = {
        name: torch.from_numpy(stored[f"{prefix}in__{name}"])
        for name in ("src_vid", "src_vid_mask", "src_txt", "src_txt_mask")
    }
    video_mask_BT = inputs["src_vid_mask"].bool()
    return Batch(
        video_BTD=inputs["src_vid"],
        video_mask_BT=video_mask_BT,
        text_BLE=inputs["src_txt"],
        text_mask_BL=inputs["src_txt_mask"].bool(),
        targets=parts.targets_of(stored, video_mask_BT, prefix) if f"{prefix}spans0" in stored else None,
    )


def _evaluation(path: Path) -> list[StageResult]:
    """All four variants; stages and Distill Align of the first."""
    config, stored = parts.read(path)
    results = _stored_weights(path, config)
    if "input_seed" in config:
        stored = dict(stored) | _drawn_inputs(config)
        results += _input_checks(config, stored)
    batch = batch_of(stored)
    for prefix, options in VARIANTS.items():
        model = build(config, **options).eval()
        with torch.no_grad():
            stages = model.stages(batch)
        ours = {
            "pred_logits": stages.logits_NBQ2[-1],
            "pred_spans": stages.spans_cw_NBQ2[-1],
            "aux0_pred_logits": stages.logits_NBQ2[0],
            "aux0_pred_spans": stages.spans_cw_NBQ2[0],
            "saliency_scores": stages.saliency_BT,
        }
        results += [compare_scaled(f"{prefix}{name}", value, stored) for name, value in ours.items()]
        if not prefix:
            results += _inside(model, batch, stored)
    return results


def _inside(model: LDDETR, batch: Batch, stored: Arrays) -> list[StageResult]:
    stages, plugin = model.stages(batch), _plugin(model)
    plugin.train()  # the released copies follow in evaluation too
    align, similarity = plugin(batch, model.video_in, model.text_in, stages.video_BTd, stages.text_BLd, inf)
    slow_video_BTd, slow_text_BLd = plugin.video_in(batch.video_BTD), plugin.text_in(batch.text_BLE)
    chosen_BTd, length_B = model.gate.clips_of_best(
        stages.video_BTd, batch.video_mask_BT, stages.logits_NBQ2[-1], stages.spans_cw_NBQ2[-1]
    )
    ours = {
        "loss_align": align,
        "loss_sim": similarity,
        "mid__vid_latent": stages.video_BTd,
        "mid__txt_latent": stages.text_BLd,
        "mid__vid_latent_m": slow_video_BTd,
        "mid__txt_latent_m": slow_text_BLd,
        "mid__g_v": plugin.pooled(stages.video_BTd, batch.video_mask_BT),
        "mid__g_t": plugin.pooled(stages.text_BLd, batch.text_mask_BL),
        "mid__g_mv": plugin.pooled(slow_video_BTd, batch.video_mask_BT),
        "mid__g_mt": plugin.pooled(slow_text_BLd, batch.text_mask_BL),
        "mid__v2t_out": stages.fused["v2t"],
        "mid__enc1_out": stages.fused["encoder1"],
        "mid__conv_out": stages.fused["conv"],
        "mid__memory": stages.fused["encoder2"],
        "mid__hs": stages.decoded.hidden_NBQD,
        "mid__reference": stages.decoded.entering_NBQ2,
        "mid__gru_input": chosen_BTd,
        "mid__gru_hidden": model.gate.moment(chosen_BTd, length_B),
        "after__momentum_video_encoder.linear2.weight": plugin.get_parameter("video_in.linears.1.weight"),
    }
    results = [compare_scaled(name, value, stored) for name, value in ours.items() if name in stored]
    if "mid__t2v_out" in stored:  # there the words stand behind the clips
        crossed_BTd = stages.fused["t2v"]
        clips = {"mid__t2v_out": stored["mid__t2v_out"][:, : crossed_BTd.shape[1]]}
        results.append(compare_scaled("mid__t2v_out", crossed_BTd, clips))
    return results


def _stored_weights(path: Path, config: Mapping[str, Any]) -> list[StageResult]:
    """What the folder says about the weights agrees with what the recipe draws."""
    drawn, results = recipe(config), []
    weights = path.with_name(f"{path.name}_weights.npz")
    if weights.is_file():
        with np.load(weights, allow_pickle=False) as stored:
            results += [
                compare(f"weight {name}", value, stored[name].reshape(value.shape), 0.0)
                for name, value in drawn.items()
            ]
    for name, check in config.get("weight_checks", {}).items():
        results.append(compare(f"weight {name}", drawn[name].flatten()[:3], check["first3"], 1e-7))
        results.append(compare_relative(f"weight {name}", float(drawn[name].sum()), check["sum"], 1e-5, 1.0))
    return results


def _drawn_inputs(config: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """The inputs of the recipe, padded with zeros to the longest."""
    rng = np.random.RandomState(config["input_seed"])

    def rows(count: int, width: int) -> NDArray[np.float32]:
        drawn = rng.standard_normal((count, width)).astype(np.float32)
        return drawn / (np.linalg.norm(drawn, axis=1, keepdims=True) + np.float32(1e-5))

    def time(count: int) -> NDArray[np.float32]:
        start = np.arange(count, dtype=np.float32) / count
        return np.stack([start, start + np.float32(1 / count)], 1).astype(np.float32)

    def padded(samples: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        most = max(map(len, samples))
        return np.stack([np.pad(sample, ((0, most - len(sample)), (0, 0))) for sample in samples])

    lengths, words = config["lengths_video"], config["lengths_text"]
    videos = [np.concatenate([rows(n, 2304), rows(n, 512), time(n)], 1) for n in lengths]
    texts = [rows(n, 512) for n in words]
    return {
        "in__src_vid": padded(videos),
        "in__src_txt": padded(texts),
        "in__src_vid_mask": padded([np.ones((n, 1), np.float32) for n in lengths])[..., 0],
        "in__src_txt_mask": padded([np.ones((n, 1), np.float32) for n in words])[..., 0],
    }


def _input_checks(config: Mapping[str, Any], stored: Arrays) -> list[StageResult]:
    results = []
    for name in ("src_vid", "src_txt"):
        drawn, checks = stored[f"in__{name}"], config["input_checks"]
        results.append(compare(f"{name} first", drawn.ravel()[:5], checks[f"{name}_first5"], 1e-7))
        total = float(drawn.sum(dtype=np.float64))
        results.append(compare_relative(f"{name} sum", total, checks[f"{name}_sum"], 1e-5, 1.0))
    return results


def _training(path: Path) -> list[StageResult]:
    """Four optimiser steps as released, and the first two with loops and without the tiled mask."""
    config, stored = parts.read(path)
    start, _ = parts.read(path.with_name("small_eval"))  # the same network and start weights
    config["state_dict_shapes"] = start["state_dict_shapes"]
    clean = config["variant_loops_cleanmask_first_two_steps"]
    steps = config["steps"]
    results = _steps(build(config, **VARIANTS[""]), config, stored, steps, "")
    shared = [{**steps[index], "grad_norms": {}} | step for index, step in enumerate(clean)]
    model = build(config, **VARIANTS["loops_cleanmask__"])
    return results + _steps(model, config, stored, shared, "loops_cleanmask ")


def _steps(
    model: LDDETR, config: Mapping[str, Any], stored: Arrays, steps: list[dict[str, Any]], tag: str
) -> list[StageResult]:
    settings = config["optimizer"]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        learning, settings["lr"], settings["betas"], settings["eps"], settings["weight_decay"]
    )
    results = []
    for index, step in enumerate(steps):
        model.train()
        batch = batch_of(stored, f"step{index}__")
        name = f"{tag}step {index}"
        tolerance = LATER if index else FIRST
        with torch.no_grad():  # on a copy: a forward pass in training moves the batch statistics
            stages = copy.deepcopy(model).stages(batch)
        for layer, pairs in ((-1, step["match"]), (0, step["match_aux"][0])):
            logits_BQ2, spans_cw_BQ2 = stages.logits_NBQ2[layer], stages.spans_cw_NBQ2[layer]
            matched = f"{name} matching {layer}"
            results.append(parts.compare_matching(matched, logits_BQ2, spans_cw_BQ2, batch, pairs))
        epoch = step["epoch_i"] + step["batch_idx"] / step["train_loader_length"]
        losses = model.losses(batch, epoch=epoch)
        used = float(_plugin(model).temperature.detach())
        optimiser.zero_grad()
        losses.total.backward()
        results += parts.compare_terms(f"{name} ", losses, step, tolerance)
        results += _gradients(name, model, step)
        norm = torch.nn.utils.clip_grad_norm_(learning, settings["grad_clip_norm"])
        results.append(
            compare_relative(f"{name} norm", float(norm), step["grad_total_norm_before_clip"], GRADIENT)
        )
        optimiser.step()
        if not tag:
            results.append(compare(f"{name} temperature", used, step["temp_used"], 1e-6))
            results += _after(name, model, stages, step, stored, f"step{index}__")
    return results


def _gradients(name: str, model: LDDETR, step: Mapping[str, Any]) -> list[StageResult]:
    """Norm of every parameter's gradient."""
    ours = dict(model.named_parameters())
    results = []
    for published, norm in step["grad_norms"].items():
        renamed = our_name(published, "ld_detr") or distill_name(published)
        if renamed is None:
            continue
        result = parts.compare_norm(published, ours[renamed].grad, norm)
        results.append(replace(result, stage=f"{name} {result.stage}"))
    return results


def _after(
    name: str, model: LDDETR, stages: Any, step: Mapping[str, Any], stored: Arrays, prefix: str
) -> list[StageResult]:
    plugin = _plugin(model)
    norm: Any = model.get_submodule("fuser.conv.0.norms.0")
    ours = {
        "pred_logits": stages.logits_NBQ2[-1],
        "pred_spans": stages.spans_cw_NBQ2[-1],
        "saliency_scores": stages.saliency_BT,
        "vid_queue": plugin.video_memory_QD.T,
        "txt_queue": plugin.text_memory_QD.T,
        "momentum_video_encoder.linear2.weight": plugin.get_parameter("video_in.linears.1.weight"),
        "momentum_text_encoder.linear1.bias": plugin.get_parameter("text_in.linears.0.bias"),
        "momentum_video_encoder.norm1.weight": plugin.get_parameter("video_in.norms.0.weight"),
        "conv0_bn1_running_mean": norm.running_mean,
        "conv0_bn1_running_var": norm.running_var,
    }
    tolerance = LATER if step["epoch_i"] + step["batch_idx"] else EVALUATION
    results = [compare_scaled(f"{prefix}{key}", value, stored, tolerance) for key, value in ours.items()]
    results.append(compare(f"{name} pointer", plugin.place, step["queue_ptr"], 0.0))
    temperature = float(plugin.temperature.detach())
    return [*results, compare(f"{name} temperature after", temperature, step["temp_after_step"], 1e-6)]
