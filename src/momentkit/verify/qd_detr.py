"""QD-DETR, and LD-DETR's two plug-ins on it, against stored runs of the published code."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from momentkit.convert.keys import rename
from momentkit.core.types import Batch
from momentkit.models.qd_detr import QDDETR, QDDETRConfig
from momentkit.verify.detr import (
    Arrays,
    Case,
    batch_of,
    compare_scaled,
    read_cases,
    run_cases,
    set_stages,
    without_dropout,
)
from momentkit.verify.report import CaseResult, StageResult, compare, compare_relative


def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every case of a folder, one result each."""
    yield from run_cases(golden, "qd_detr", build, batch_of, _stages)
    if (golden / "plugins").is_dir():
        yield _plugins(golden)


def build(case: Case) -> QDDETR:
    """The network of a stored case."""
    options = case.config["options"]
    return QDDETR(
        QDDETRConfig(
            video_dim=options["v_feat_dim"],
            text_dim=options["t_feat_dim"],
            hidden=options["hidden_dim"],
            heads=options["nheads"],
            feed_forward=options["dim_feedforward"],
            input_layers=options["n_input_proj"],
            cross_layers=options["enc_layers"],
            encoder_layers=options["enc_layers"],
            decoder_layers=options["dec_layers"],
            queries=options["num_queries"],
            task="moments" if "match.last.query" in case.trained else "highlights",
            weight_saliency=options["lw_saliency"],
            faithful=True,
        )
    )


def _stages(model: QDDETR, batch: Batch, stored: Arrays) -> list[StageResult]:
    stages = model.stages(batch)
    clips = batch.video_BTD.shape[1]
    sequence = torch.cat([stages.fused.global_Bd[:, None], stages.fused.memory_BTd], 1)
    ours = {
        "mid.vid_proj": stages.video_BTd,
        "mid.txt_proj": stages.text_BLd,
        "mid.pos_vid": stages.positions_BTd,
        "mid.encoder": sequence.transpose(0, 1),
        "mid.decoder.0": stages.decoded.hidden_NBQD,
        "mid.decoder.1": stages.decoded.entering_NBQ2,
        "saliency_scores": stages.fused.saliency_BT,
        "saliency_scores_neg": model.negative_pass(stages, batch).saliency_BT,
    }
    results = [compare_scaled(name, value, stored) for name, value in ours.items() if name in stored]
    if "mid.t2v_encoder" in stored:  # there the token stands in front of the clips and the words behind them
        crossed = {"clips": stored["mid.t2v_encoder"][1 : 1 + clips]}
        results.append(compare_scaled("clips", stages.fused.cross_BTd.transpose(0, 1), crossed))
    return results + set_stages(stages.logits_NBQ2, stages.spans_cw_NBQ2, stored)


def _plugins(golden: Path) -> CaseResult:
    """Loops 1 to 4, and one training call of Distill Align at three points of its first epoch."""
    config = json.loads((golden / "plugins" / "config.json").read_text())
    stored = dict(np.load(golden / "plugins" / "outputs.npz"))
    case = next(case for case in read_cases(golden) if case.name == config["host_case"])
    batch, weights = batch_of(case), rename(case.weights, "qd_detr")
    results = []
    for loops in range(1, 5):
        model = QDDETR(replace(build(case).config, decoder_loops=loops)).eval()
        model.load_state_dict(weights)
        with torch.no_grad():
            stages = model.stages(batch)
        prefix = f"loops{loops}."
        arrays = {name.removeprefix(prefix): v for name, v in stored.items() if name.startswith(prefix)}
        results += [
            StageResult(f"{prefix}{result.stage}", result.difference, result.tolerance)
            for result in set_stages(stages.logits_NBQ2, stages.spans_cw_NBQ2, arrays)
        ]
    for name, call in config["losses"].items():
        model = QDDETR(replace(build(case).config, distill_align=True, distill_memory=config["queue_length"]))
        model.load_state_dict(weights | _distill_state(golden / "plugins" / "plugins.safetensors"))
        batches = call["batches_per_epoch"]
        epoch = call["epoch"] + call["batch_index"] / batches if batches else float("inf")
        results += _distill_stages(name, without_dropout(model).train(), batch, epoch, call, stored)
    return CaseResult("plugins", tuple(results))


def _distill_state(path: Path) -> dict[str, torch.Tensor]:
    """Stored plug-in tensors under our names."""
    stored = load_file(path)
    inputs = {
        name.replace("momentum_", "input_").replace("txt", "txt_proj").replace("vid", "vid_proj"): value
        for name, value in stored.items()
        if name.startswith("momentum")
    }
    state = {f"distill.{name}": value for name, value in rename(inputs, "qd_detr").items()}
    return state | {
        "distill.temperature": stored["distill.temp"],
        "distill.predict.weight": stored["distill.h.weight"],
        "distill.predict.bias": stored["distill.h.bias"],
        "distill.video_memory_QD": stored["distill.vid_queue"].T,
        "distill.text_memory_QD": stored["distill.txt_queue"].T,
        "distill.place": stored["distill.queue_ptr"].reshape(()),
    }


def _distill_stages(
    name: str, model: Any, batch: Batch, epoch: float, call: dict[str, Any], stored: Arrays
) -> list[StageResult]:
    terms = model.losses(batch, epoch=epoch).terms
    distill = model.distill
    with torch.no_grad():
        ours = {
            "g_vid": distill.pooled(model.video_in(batch.video_BTD), batch.video_mask_BT),
            "g_txt": distill.pooled(model.text_in(batch.text_BLE), batch.text_mask_BL),
            "g_vid_m": distill.pooled(distill.video_in(batch.video_BTD), batch.video_mask_BT),
            "g_txt_m": distill.pooled(distill.text_in(batch.text_BLE), batch.text_mask_BL),
            f"{name}.vid_queue": distill.video_memory_QD.T,
            f"{name}.txt_queue": distill.text_memory_QD.T,
            f"{name}.queue_ptr": distill.place.reshape(1),
        }
    losses = (("loss_align", "align"), ("loss_sim", "similarity"))
    return [compare(stage, value, stored[stage], 2e-5) for stage, value in ours.items()] + [
        compare_relative(f"{name}.{published}", float(terms[term].detach()), call[published], 1e-5, 1.0)
        for published, term in losses
    ]
