"""Parts of LD-DETR that stand alone against stored runs: a function a case, a case one or two files."""

import json
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from momentkit.core.spans import cw_to_se
from momentkit.core.types import Batch, Losses, Targets
from momentkit.data.labels import rated_labels, rater_labels, window_labels
from momentkit.losses.matching import match
from momentkit.losses.spans import targets_as_fractions
from momentkit.models.family import Given
from momentkit.models.ld_detr import LDDETR, LDDETRConfig, Stages
from momentkit.nn.decoder import AnchorDecoder, AnchorDecoderLayer, Decoded, loop, predict_moments
from momentkit.nn.distill_align import DistillAlign
from momentkit.nn.pointwise import PReLU
from momentkit.nn.refine import MomentGate
from momentkit.predict.decode import PostProcess, decode
from momentkit.verify.detr import LOSS_NAMES, Arrays, compare_scaled
from momentkit.verify.report import StageResult, compare, compare_relative

NAMES = LOSS_NAMES | {"loss_align": "align", "loss_sim": "similarity"}
FIRST, GRADIENT = 1e-5, 2e-3  # tolerances of the README: losses, gradient norms


def read(path: Path) -> tuple[dict[str, Any], Arrays]:
    """A case's JSON and arrays."""
    arrays = path.with_suffix(".npz")
    stored = dict(np.load(arrays, allow_pickle=False)) if arrays.is_file() else {}
    return json.loads(path.with_suffix(".json").read_text()), stored


def targets_of(stored: Arrays, video_mask_BT: Tensor, prefix: str = "") -> Targets:
    """Targets of a file; its spans are fractions, cw."""
    return Targets(
        windows_clip=tuple(
            cw_to_se(torch.from_numpy(stored[f"{prefix}spans{sample}"])) * clips
            for sample, clips in enumerate(video_mask_BT.sum(1))
        ),
        saliency_BT=torch.from_numpy(stored[f"{prefix}saliency_all_labels"]).float(),
        positive_clip_BP=torch.from_numpy(stored[f"{prefix}saliency_pos_labels"]),
        negative_clip_BP=torch.from_numpy(stored[f"{prefix}saliency_neg_labels"]),
    )


def compare_matching(
    name: str, logits_BQ2: Tensor, spans_cw_BQ2: Tensor, batch: Batch, stored: list[list[list[int]]]
) -> StageResult:
    """Matched pairs of a layer: [queries, moments] of each sample."""
    assert batch.targets is not None
    truth_cw = targets_as_fractions(batch.targets.windows_clip, batch.video_mask_BT)
    ours = match(logits_BQ2, spans_cw_BQ2, truth_cw)
    expected = np.concatenate([np.array(pairs) for pairs in stored], 1)
    return compare(name, torch.stack([ours.query_M, ours.target_M]), expected, 0.0)


def compare_terms(
    name: str, losses: Losses, stored: dict[str, Any], tolerance: float = FIRST
) -> list[StageResult]:
    """Every unweighted term of a stored run and the weighted total."""
    results = []
    for published, value in stored["losses"].items():
        if published.startswith("class_error"):
            continue  # logged only
        base, layer = (published[:-2], "_0") if published.endswith("_0") else (published, "")
        term = float(losses.terms[NAMES[base] + layer].detach())
        results.append(compare_relative(f"{name}{published}", term, value, tolerance, 1.0))
    total = float(losses.total.detach())
    return [*results, compare_relative(f"{name}total", total, stored["total"], tolerance, 1.0)]


def compare_norm(name: str, ours: Tensor | None, stored: float | None) -> StageResult:
    """Norm of a gradient: relative, or absolute below a twentieth (README)."""
    size, expected = 0.0 if ours is None else float(ours.norm()), stored or 0.0
    return StageResult(f"grad_norm {name}", abs(size - expected) / max(abs(expected), 0.05), GRADIENT)


def distill_align(path: Path) -> list[StageResult]:
    """Five calls in a row: losses, gradients, memory; the third batch is not remembered."""
    config, stored = read(path)
    return _calls(config, stored)


def distill_align_clamp(path: Path) -> list[StageResult]:
    """Temperatures beyond both bounds."""
    config, _ = read(path)
    results = []
    for side in ("high", "low"):
        stored = dict(np.load(path.with_name(f"{path.name}_{side}.npz"), allow_pickle=False))
        results += [
            replace(result, stage=f"{side} {result.stage}") for result in _calls(config[side], stored)
        ]
    return results


def _calls(config: dict[str, Any], stored: Arrays) -> list[StageResult]:
    plugin = DistillAlign(
        nn.Identity(),
        nn.Identity(),
        config["hidden_dim"],
        config["queue_length"],
        config["alpha"],
        faithful=True,
    )
    state = {
        "temperature": stored["in__temp"],
        "predict.weight": stored["in__h_weight"],
        "predict.bias": stored["in__h_bias"],
        "video_memory_QD": stored["in__vid_queue"].T,
        "text_memory_QD": stored["in__txt_queue"].T,
        "place": np.array(0),
    }
    plugin.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    results = []
    for index, call in enumerate(config["calls"]):
        results += _call(plugin, call, stored, f"call{index}__")
    return results


def _call(plugin: DistillAlign, call: dict[str, Any], stored: Arrays, prefix: str) -> list[StageResult]:
    g_v, g_t, g_mv, g_mt = (
        torch.from_numpy(stored[f"{prefix}{name}"]) for name in ("g_v", "g_t", "g_mv", "g_mt")
    )
    g_v.requires_grad_()
    g_t.requires_grad_()
    batches = call["train_loader_length"]
    epoch = call["epoch_i"] + call["batch_idx"] / batches if batches else inf
    align = plugin.align(g_v, g_t, g_mv, g_mt, epoch)
    similarity = plugin.similarity(g_v, g_t)
    if call["is_training"]:
        plugin.remember(g_mv, g_mt)
    ours = {"loss_align": align, "loss_sim": similarity}
    ours |= {"after_vid_queue": plugin.video_memory_QD.T, "after_txt_queue": plugin.text_memory_QD.T}
    for tag, loss, parameters in (
        ("dalign_d", align, {"g_v": g_v, "g_t": g_t, "temp": plugin.temperature}),
        (
            "dsim_d",
            similarity,
            {"g_v": g_v, "g_t": g_t, "h_weight": plugin.predict.weight, "h_bias": plugin.predict.bias},
        ),
    ):
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        ours |= {f"{tag}{name}": value for name, value in zip(parameters, gradients, strict=True)}
    results = [compare_scaled(f"{prefix}{name}", value, stored, FIRST) for name, value in ours.items()]
    temperature = plugin.temperature.detach()
    results.append(compare(f"{prefix}temperature", temperature, call["temp_after_clamp"], 1e-7))
    return [*results, compare(f"{prefix}pointer", plugin.place, call["queue_ptr_after"], 0.0)]


def highlight_head(path: Path) -> list[StageResult]:
    """The six kinds of slices."""
    config, stored = read(path)
    width = config["hidden_dim"]
    gate, saliency = MomentGate(width, faithful=True), nn.Linear(width, width)
    weights = {name[3:]: torch.from_numpy(stored[name]) for name in stored if name.startswith("w__")}
    gate.load_state_dict({name: value for name, value in weights.items() if name.startswith("gru")})
    saliency.load_state_dict(
        {name.split(".")[1]: value for name, value in weights.items() if name.startswith("saliency")}
    )
    logits, spans, memory, clips = (
        torch.from_numpy(stored[name]) for name in ("pred_logits", "pred_spans", "memory", "vid_latent")
    )
    mask = torch.ones(clips.shape[:2], dtype=torch.bool)
    chosen, length = gate.clips_of_best(clips, mask, logits, spans)
    weighed = memory * gate(clips, mask, logits, spans)[..., None] + memory
    ours = {
        "gru_input": chosen,
        "gru_hidden": gate.moment(chosen, length),
        "saliency_scores": saliency(weighed).sum(-1) / width**0.5,
    }
    return [compare_scaled(name, value, stored) for name, value in ours.items()]


def loop_decoder(path: Path) -> list[StageResult]:
    """One, two and three passes: features, anchors, and gradients through all passes."""
    config, stored = read(path)
    width = config["hidden_dim"]
    prefix = "w__transformer_decoder."
    results = []
    for tag, loops in (("published_loops3", 1), ("loops1", 1), ("loops2", 2), ("loops3", 3)):
        decoder = AnchorDecoder(
            [
                AnchorDecoderLayer(
                    width,
                    config["nhead"],
                    config["dim_feedforward"],
                    0.0,
                    nn.Identity(),
                    PReLU(),
                    first=index == 0,
                )
                for index in range(config["num_decoder_layers"])
            ],
            width,
        )
        decoder.load_state_dict(
            {n.removeprefix(prefix): torch.from_numpy(stored[n]) for n in stored if n.startswith(prefix)}
        )
        memory = torch.from_numpy(stored["memory"]).requires_grad_()
        anchors = torch.from_numpy(stored["refpoints"]).requires_grad_()
        results += _looped(decoder, memory, anchors, loops, stored, tag)
        norms = config[f"{tag}_grad_norms"]
        for name, parameter in decoder.named_parameters():
            gradient = compare_norm(name, parameter.grad, norms[f"transformer_decoder.{name}"])
            results.append(replace(gradient, stage=f"{tag} {gradient.stage}"))
    return results


def _looped(
    decoder: AnchorDecoder, memory: Tensor, anchors: Tensor, loops: int, stored: Arrays, tag: str
) -> list[StageResult]:
    mask, positions = torch.from_numpy(stored["vid_mask"]).bool(), torch.from_numpy(stored["pos_vid"])

    def decode_once(content: Tensor) -> Decoded:
        return decoder(content, memory, mask, positions, anchors)

    content = memory.new_zeros(len(memory), len(anchors), memory.shape[-1])
    decoded = loop(decode_once, content, loops)
    (decoded.hidden_NBQD[-1].pow(2).sum() + decoded.entering_NBQ2.sum()).backward()
    assert memory.grad is not None and anchors.grad is not None
    forward = {"hs": decoded.hidden_NBQD, "reference": decoded.entering_NBQ2}
    backward = {"grad_memory": memory.grad, "grad_refpoints": anchors.grad}
    results = [compare_scaled(f"{tag}__{name}", value, stored) for name, value in forward.items()]
    return results + [
        compare_scaled(f"{tag}__{name}", value, stored, GRADIENT) for name, value in backward.items()
    ]


class _Given(LDDETR):
    """The network's losses on outputs that are given."""

    given: Stages

    def stages(self, batch: Batch) -> Stages:
        return self.given


def criterion(path: Path) -> list[StageResult]:
    """Losses of stored outputs, their gradients, the matchings; the two alignment losses are given too."""
    config, stored = read(path)
    names = ("pred_logits", "pred_spans", "saliency_scores", "aux0_pred_logits", "aux0_pred_spans")
    outputs = {name: torch.from_numpy(stored[f"in__{name}"]).requires_grad_() for name in names}
    mask_BT = torch.from_numpy(stored["in__video_mask"]).bool()
    weights = config["weight_dict"]
    model = _Given(
        LDDETRConfig(
            video_dim=1,
            text_dim=1,
            hidden=8,
            feed_forward=8,
            task="moments" if config["use_matcher"] else "highlights",
            margin=config["saliency_margin"],
            weight_saliency=weights["loss_saliency"],
            distill_align=False,
        )
    )
    model.given = _only(
        torch.stack([outputs["aux0_pred_logits"], outputs["pred_logits"]]),
        torch.stack([outputs["aux0_pred_spans"], outputs["pred_spans"]]),
        outputs["saliency_scores"],
    )
    batch = Batch(
        video_BTD=torch.zeros(*mask_BT.shape, 1),
        video_mask_BT=mask_BT,
        text_BLE=torch.zeros(len(mask_BT), 1, 1),
        text_mask_BL=torch.ones(len(mask_BT), 1, dtype=torch.bool),
        targets=targets_of(stored, mask_BT),
    )
    losses = model.losses(batch)
    if config["use_matcher"]:
        given = {"align": "loss_align", "similarity": "loss_sim"}
        losses = Losses(
            {**losses.terms, **{n: torch.from_numpy(stored[f"in__{p}"]) for n, p in given.items()}},
            {**losses.weights, **{n: weights[p] for n, p in given.items()}},
        )
    losses.total.backward()
    results = compare_terms("", losses, config)
    for name, tensor in outputs.items():
        if f"grad_total__{name}" in stored:
            assert tensor.grad is not None
            results.append(compare_scaled(f"grad_total__{name}", tensor.grad, stored, FIRST))
    if config["use_matcher"]:
        for name, prefix, pairs in (("last", "", config["match"]), ("aux", "aux0_", config["match_aux"])):
            logits, spans = outputs[f"{prefix}pred_logits"], outputs[f"{prefix}pred_spans"]
            results.append(compare_matching(f"matching {name}", logits, spans, batch, pairs))
    return results


def _only(logits_NBQ2: Tensor, spans_cw_NBQ2: Tensor, saliency_BT: Tensor) -> Stages:
    """Stages of which nothing but the outputs is known."""
    none = torch.empty(0)
    given, decoded = Given(none, none, none, none, none), Decoded(none, none, none)
    return Stages(given, logits_NBQ2, spans_cw_NBQ2, saliency_BT, decoded, {}, none)


def postprocess(path: Path) -> list[StageResult]:
    """Ranked windows, and what each data set makes of them."""
    config, stored = read(path)
    logits, spans = torch.from_numpy(stored["pred_logits"]), torch.from_numpy(stored["pred_spans"])
    prediction = predict_moments(logits, spans, torch.zeros(len(logits), 1))
    settings = {"ranked": PostProcess()}
    for name, options in config.items():
        steps = options["process_func_names"]
        settings[f"final__{name}"] = PostProcess(
            maximum_s=options["max_ts_val"] if "clip_ts" in steps else 0.0,
            step_s=options["clip_length"] if "round_multiple" in steps else 0.0,
        )
    results = []
    for name, post in settings.items():
        answers = decode(prediction, [1] * len(logits), 1.0, list(stored["durations"]), post)
        windows = torch.from_numpy(np.stack([answer.windows_N3 for answer in answers]))
        results.append(compare_scaled(name, windows, stored, 1e-6))
    return results


def labels(path: Path) -> list[StageResult]:
    """Labels, spans, and the clips of the margin loss: best and worst exactly, random ones as members."""
    config, _ = read(path)
    rng = np.random.default_rng(0)
    results = []
    for index, entry in enumerate(config["qvhighlights"]):
        relevant, clips = entry["relevant_clip_ids"], entry["num_clips"]
        ours = rated_labels(relevant, entry["saliency_scores"], clips, rng)
        y_T = np.array(entry["y"])[:clips]
        name = f"qvhighlights {index}"
        results.append(compare(f"{name} y", ours.saliency_T, y_T, 0.0))
        # Where sums tie, any tied clip is right: their labels are compared.
        best, worst = ours.positive_clip_P[0], ours.negative_clip_P[0]
        results.append(compare(f"{name} best", y_T[best], y_T[entry["hard_pos"]], 0.0))
        results.append(compare(f"{name} worst", y_T[worst], y_T[entry["hard_neg"]], 0.0))
        results.append(_spans(name, entry, clips, 2.0))
    for index, entry in enumerate(config["charadesSTA_clip1"]):
        clips, name = entry["num_clips"], f"charadesSTA {index}"
        ours = window_labels(entry["relevant_windows"][:1], clips, entry["duration"] / clips, rng)
        y_T = np.array(entry["y"])
        results.append(compare(f"{name} y", ours.saliency_T, y_T, 0.0))
        for side, drawn, stored in (
            ("positive", ours.positive_clip_P, entry["one_draw_pos"]),
            ("negative", ours.negative_clip_P, entry["one_draw_neg"]),
        ):
            results.append(compare(f"{name} {side}", y_T[drawn], y_T[stored], 0.0))
        results.append(_spans(name, entry, clips, 1.0))
    for index, entry in enumerate(config["tvsum"]):
        ours = rater_labels(entry["label"], entry["num_clips"])
        y_T, name = np.array(entry["y"]), f"tvsum {index}"
        results.append(compare(f"{name} y", ours.saliency_T, y_T, 1e-5))
        results.append(compare(f"{name} best", y_T[ours.positive_clip_P], y_T[entry["pos"]], 0.0))
        results.append(compare(f"{name} worst", y_T[ours.negative_clip_P], y_T[entry["neg"]], 0.0))
    return results


def _spans(name: str, entry: dict[str, Any], clips: int, clip_length_s: float) -> StageResult:
    windows = torch.tensor(entry["relevant_windows"], dtype=torch.float32) / clip_length_s
    mask_1T = torch.ones(1, clips, dtype=torch.bool)
    return compare(f"{name} spans", targets_as_fractions([windows], mask_1T)[0], entry["spans"], 1e-6)
