"""FlashVTG against stored runs of the published code: every case folder of a directory.

`model_<name>.json` and `.safetensors` serve the cases whose folder name starts with `<name>_`; a case holds
inputs, outputs and losses. Layout and tolerances are those of the README beside the stored runs.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from momentkit.convert.keys import our_name, rename
from momentkit.core.types import Batch, Targets
from momentkit.models.flashvtg import FlashVTG, FlashVTGConfig, Stages
from momentkit.predict.decode import PostProcess, decode
from momentkit.predict.suppress import clip_and_round
from momentkit.verify.flashvtg_parts import (
    Arrays,
    arrays,
    highlights_case,
    post_process_case,
    suppressed,
    targets_case,
)
from momentkit.verify.report import CaseResult, StageResult, compare, compare_relative

POST = {  # published post-processing, by the data set's name in the stored runs (flashvtg.md section 8)
    "hl": {"maximum_s": 150.0},
    "charadesSTA": {"maximum_s": 150.0},
}
LOSS_NAMES = {
    "loss_reg": "regression",
    "loss_cls": "classification",
    "loss_sal": "nce",
    "loss_saliency": "saliency",
    "loss_label": "clip_aware",
}


def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every case of a folder, one result each."""
    for case in sorted(path.parent for path in golden.glob("*/case.json")):
        name = case.name.split("_")[0]
        options = json.loads((golden / f"model_{name}.json").read_text())
        weights = load_file(golden / f"model_{name}.safetensors")
        settings = json.loads((case / "case.json").read_text())
        if case.name.endswith("_many"):
            yield _many_case(case, options, weights)
        elif settings["mode"].startswith("eval"):
            yield _eval_case(case, settings, options, weights)
        else:
            yield _train_case(case, settings, options, weights, "")
            if (case / "losses_aligned_mask.json").exists():
                yield _train_case(case, settings, options, weights, "_aligned_mask")
    if (golden / "standalone").is_dir():
        yield targets_case(golden / "standalone")
        yield post_process_case(golden / "standalone")
        yield highlights_case(golden / "standalone")


def build(options: dict[str, Any], weights: dict[str, Tensor], **more: Any) -> FlashVTG:
    """Our network with the stored weights; `more` are options beside the stored ones."""
    direction = options["sampled_nce_direction"]
    config = FlashVTGConfig(
        video_dim=options["v_feat_dim"],
        text_dim=options["t_feat_dim"],
        hidden=options["hidden_dim"],
        heads=options["nheads"],
        feed_forward=options["dim_feedforward"],
        input_layers=options["n_input_proj"],
        dummies=options["num_dummies"],
        dummy_layers=options["dummy_layers"],
        cross_layers=options["t2v_layers"],
        encoder_layers=options["enc_layers"],
        strides=tuple(options["strides"]),
        kernel=options["kernel_size"],
        score_convs=options["num_conv_layers"],
        score_layers=options["num_mlp_layers"],
        radius=options["sample_radius"],
        task="moments" if options["reg_loss"] else "highlights",
        nce_columns="col" in direction,
        **more,
    )
    model = FlashVTG(config)
    model.load_state_dict(rename(weights, "flashvtg"))
    for module in model.modules():  # the stored runs trained without any dropout
        for rate in ("p", "rate", "dropout"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    return model


def _batch(inputs: Arrays, keys: tuple[str, ...] = (), targets: Targets | None = None) -> Batch:
    return Batch(
        video_BTD=torch.from_numpy(inputs["src_vid"]),
        video_mask_BT=torch.from_numpy(inputs["src_vid_mask"]).bool(),
        text_BLE=torch.from_numpy(inputs["src_txt"]),
        text_mask_BL=torch.from_numpy(inputs["src_txt_mask"]).bool(),
        video_keys=keys,
        targets=targets,
    )


def _forward_stages(model: FlashVTG, stages: Stages, stored: Arrays, tolerance: float) -> list[StageResult]:
    """Every array of the network that both sides have."""
    dummies, fused = model.config.dummies, stages.fused
    ours: dict[str, Tensor] = {
        "vid_proj": stages.video_BTd,
        "txt_proj": stages.text_BLd,
        "pos_vid": stages.positions_BTd,
        "dummy_tokens": stages.dummies_BKd,
        "aca_out": fused.cross_BTd,
        "aca_attn": fused.attention_BTM,
        "encoder_out": fused.encoded_BTd,
        "video_emb": stages.features_BTd,
        "query_emb": stages.query_Bd[:, None],
        "points": stages.points_P4,
        "intra_logits": stages.intra_BP[..., None],
        "inter_logits": stages.inter_BP[..., None],
        "final_logits": stages.logit_BP[..., None],
        "coord_raw": stages.distance_raw_BP2,
        "coord": stages.distance_BP2,
        "saliency_scores": fused.saliency_BT,
        "t2v_attn_values": fused.word_mass_BT,
    }
    ours |= {f"pyramid_{k}": level for k, level in enumerate(stages.levels)}
    if "dummy_encoder_out" in stored:
        stored = stored | {"dummy_tokens": stored["dummy_encoder_out"][:, :dummies]}
    return [
        compare(name, value.detach(), stored[name], tolerance)
        for name, value in ours.items()
        if name in stored
    ]


def _tolerance(options: dict[str, Any]) -> float:
    return 2e-5 if options["hidden_dim"] <= 32 else 5e-5


@torch.no_grad()
def _eval_case(
    case: Path, settings: dict[str, Any], options: dict[str, Any], weights: dict[str, Tensor]
) -> CaseResult:
    """One sample through the network and the published post-processing."""
    inputs, stored = arrays(case / "inputs.npz"), arrays(case / "outputs.npz")
    padded = not (inputs["src_vid_mask"].all() and inputs["src_txt_mask"].all())
    model = build(options, weights, faithful=padded).eval()
    batch = _batch(inputs)
    results = _forward_stages(model, model.stages(batch), stored, _tolerance(options))
    if (case / "predictions.json").exists():
        clip_length_s = float(options["clip_length"])
        prediction = model(batch)
        top = decode(prediction, [batch.video_BTD.shape[1]], clip_length_s, [1e9], PostProcess(clamp=False))
        results.append(compare("boundary_sorted", top[0].windows_N3, stored["boundary_sorted"], 5e-4))
        for name, expected in json.loads((case / "predictions.json").read_text()).items():
            duration_s = float(expected["duration"])
            plain = decode(
                prediction, [batch.video_BTD.shape[1]], clip_length_s, [duration_s], PostProcess()
            )[0]
            results += _predictions(name, plain.windows_N3, plain.saliency_T, expected, clip_length_s)
    return CaseResult(case.name, tuple(results), "faithful padding" if padded else "")


def _predictions(
    name: str,
    windows_N3: NDArray[Any],
    saliency_T: NDArray[Any],
    expected: dict[str, Any],
    clip_length_s: float,
) -> list[StageResult]:
    rounded = torch.from_numpy(np.array(expected["windows_clamped_rounded4"], dtype=np.float32))
    maximum_s = POST.get(name, {}).get("maximum_s")
    final = clip_and_round(rounded, maximum_s, clip_length_s)
    results = [
        compare(f"{name} windows", windows_N3, expected["windows_clamped_rounded4"], 1.5e-4),
        compare(f"{name} saliency", saliency_T, expected["saliency"], 1.5e-4),
        compare(f"{name} final", final, expected["windows_final"], 1e-5),
    ]
    return results + suppressed(
        name, final, expected["windows_nms_normal_0.7"], expected["windows_nms_linear_0.7"]
    )


@torch.no_grad()
def _many_case(case: Path, options: dict[str, Any], weights: dict[str, Tensor]) -> CaseResult:
    """One padded batch of ours against each sample run alone by the published code."""
    stored = arrays(case / "outputs.npz")
    model = build(options, weights).eval()
    stages = model.stages(batch := _batch(arrays(case / "inputs.npz")))
    prediction = model(batch)
    clips_B = batch.video_mask_BT.sum(1).tolist()
    decoded = decode(
        prediction, clips_B, float(options["clip_length"]), [1e9] * len(clips_B), PostProcess(clamp=False)
    )
    results = []
    for i, clips in enumerate(clips_B):
        valid = stages.valid_BP[i]
        ours = {
            "final_logits": stages.logit_BP[i, valid][None, :, None],
            "coord": stages.distance_BP2[i, valid][None],
            "saliency_scores": stages.fused.saliency_BT[i, None, :clips],
        }
        results += [compare(f"s{i}.{k}", v, stored[f"s{i}.{k}"], 2e-5) for k, v in ours.items()]
        results.append(
            compare(f"s{i}.boundary", decoded[i].windows_N3, stored[f"s{i}.boundary_sorted"], 5e-4)
        )
    return CaseResult(case.name, tuple(results), "one batch against samples run alone")


def _train_case(
    case: Path, settings: dict[str, Any], options: dict[str, Any], weights: dict[str, Tensor], variant: str
) -> CaseResult:
    """Losses, gradients and three optimiser steps."""
    inputs, stored = arrays(case / "inputs.npz"), arrays(case / f"outputs{variant}.npz")
    losses = json.loads((case / "losses.json").read_text())
    losses = {"weights": losses["weights"], **json.loads((case / f"losses{variant}.json").read_text())}
    weight = losses["weights"]
    model = build(
        options,
        weights,
        faithful=True,
        released_mask=not variant,
        negatives=settings["use_neg"],
        margin=settings["loss_options"]["saliency_margin"],
        weight_attention=settings["loss_options"]["lw_wattn"],
        weight_negative=0.0 if settings["dset_name"] == "youtube_uni" else 1.0,
        **{f"weight_{ours}": float(weight.get(name, 0.0)) for name, ours in LOSS_NAMES.items()},
    ).train()
    batch = _train_batch(inputs, settings)
    with torch.no_grad():
        stages = model.stages(batch)
        results = _forward_stages(model, stages, stored, _tolerance(options))
        results += _negative_stages(model, stages, batch, stored)
        results += _target_stages(model, stages, batch, stored)
    results += _optimiser_stages(model, batch, losses, stored)
    return CaseResult(case.name + variant, tuple(results), "aligned mask" if variant else "published mask")


def _train_batch(inputs: Arrays, settings: dict[str, Any]) -> Batch:
    windows = settings.get("windows") or [[] for _ in settings["vids"]]
    targets = Targets(
        windows_clip=tuple(torch.tensor(w).reshape(-1, 2).float() / settings["clip_length"] for w in windows),
        saliency_BT=torch.from_numpy(inputs["saliency_all_labels"]),
        positive_clip_BP=torch.from_numpy(inputs["saliency_pos_labels"]),
        negative_clip_BP=torch.from_numpy(inputs["saliency_neg_labels"]),
    )
    # Only QVHighlights names end in _start_end of a longer video (flashvtg.md section 6).
    cut = settings["dset_name"] == "hl"
    keys = tuple(vid.rsplit("_", 2)[0] if cut else vid for vid in settings["vids"])
    return _batch(inputs, keys, targets)


def _negative_stages(model: FlashVTG, stages: Stages, batch: Batch, stored: Arrays) -> list[StageResult]:
    real_B, negative = model.negative_pass(stages, batch)
    if negative is None:
        return []
    ours = {
        "real_neg_mask": real_B,
        "aca_out_neg": negative.cross_BTd,
        "aca_attn_neg": negative.attention_BTM,
        "encoder_out_neg": negative.encoded_BTd,
        "saliency_scores_neg": negative.saliency_BT,
        "t2v_attn_values_neg": negative.word_mass_BT,
    }
    return [compare(name, value, stored[name], 5e-5) for name, value in ours.items() if name in stored]


def _target_stages(model: FlashVTG, stages: Stages, batch: Batch, stored: Arrays) -> list[StageResult]:
    if "reg_target" not in stored or batch.targets is None:
        return []
    positive_BP, distance_BP2 = model.assigned(stages, batch.targets)
    return [
        compare("cls_target", positive_BP, stored["cls_target"], 1e-5),
        compare("reg_target", distance_BP2, stored["reg_target"], 1e-5),
    ]


def _optimiser_stages(
    model: FlashVTG, batch: Batch, losses: dict[str, Any], stored: Arrays
) -> list[StageResult]:
    """Each loss, each gradient, and the total over three clipped AdamW steps."""
    results, totals = [], []
    named = dict(model.named_parameters())
    names = {published: our_name(published, "flashvtg") for published in losses["grad_norm"]}
    options = losses.get("optimiser", {"lr": 0.0, "weight_decay": 0.0, "grad_clip": 0.1})
    optimiser = torch.optim.AdamW(model.parameters(), lr=options["lr"], weight_decay=options["weight_decay"])
    expected_totals = losses.get("total_after_steps", [losses["total"]])
    in_double = _double_gradients(model, batch)
    for step in range(len(expected_totals)):
        optimiser.zero_grad()
        loss = model.losses(batch)
        loss.total.backward()
        totals.append(float(loss.total.detach()))
        if step == 0:
            for published, value in losses["losses"].items():
                ours = float(loss.terms[LOSS_NAMES[published]].detach())
                results.append(compare_relative(published, ours, value, 1e-5, 1e-6))
            results.append(compare_relative("total", totals[0], losses["total"], 1e-5))
            results += [
                single if single.ok else double
                for single, double in zip(
                    _gradient_stages(named, names, losses, stored),
                    _gradient_stages(in_double, names, losses, stored, " in float64"),
                    strict=True,
                )
            ]
        torch.nn.utils.clip_grad_norm_(model.parameters(), options["grad_clip"])
        optimiser.step()
        if step == 0:
            results += [
                compare(
                    f"after_step.{name}",
                    named[ours].detach().reshape(stored[f"after_step.{name}"].shape),
                    stored[f"after_step.{name}"],
                    1e-5,
                )
                for name, ours in names.items()
                if ours in named and f"after_step.{name}" in stored
            ]
    pairs = zip(totals, expected_totals, strict=True)
    return results + [
        compare_relative(f"total after {k} steps", a, b, 1e-4) for k, (a, b) in enumerate(pairs)
    ]


def _double_gradients(model: FlashVTG, batch: Batch) -> dict[str, torch.nn.Parameter]:
    """The same gradients in float64.

    Some (the slope of an activation, a sum of large terms that cancel) depend on the processor in float32:
    the rounding of either side is then larger than what may be asked for; float64 has none of ours.
    """
    double = copy.deepcopy(model).double()
    assert batch.targets is not None
    targets = replace(batch.targets, saliency_BT=batch.targets.saliency_BT.double())
    video_BTD, text_BLE = batch.video_BTD.double(), batch.text_BLE.double()
    double.losses(replace(batch, video_BTD=video_BTD, text_BLE=text_BLE, targets=targets)).total.backward()
    return dict(double.named_parameters())


def _gradient_stages(
    named: dict[str, torch.nn.Parameter],
    names: dict[str, str | None],
    losses: dict[str, Any],
    stored: Arrays,
    suffix: str = "",
) -> list[StageResult]:
    results = []
    squares = 0.0
    for published, norm in losses["grad_norm"].items():
        ours = names[published]
        if ours is None:
            continue  # a parameter that the published network carries and never uses
        gradient = named[ours].grad
        size = 0.0 if gradient is None else float(gradient.norm())
        squares += size**2
        results.append(compare_relative(f"grad_norm {published}{suffix}", size, norm or 0.0, 2e-3, 1e-4))
        if gradient is not None and f"grad.{published}" in stored:
            array = stored[f"grad.{published}"]
            results.append(compare(f"grad {published}{suffix}", gradient.reshape(array.shape), array, 1e-3))
    return [
        compare_relative(f"grad_norm_total{suffix}", squares**0.5, losses["grad_norm_total"], 1e-4),
        *results,
    ]
