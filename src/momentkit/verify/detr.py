"""The family's models against stored runs of the published codes: what all of them share.

A case is a folder of config.json (options, sample lengths), state_dict.safetensors (or the name of the case
that holds it), inputs.npz, targets.npz, eval_outputs.npz, train.npz and train.json, as the README beside the
stored runs says. A model's own file says how its options are named and which stages it compares.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from momentkit.convert.keys import our_name, rename
from momentkit.core.spans import cw_to_se
from momentkit.core.types import Batch, GroundingModel, Losses, Targets
from momentkit.losses.matching import match
from momentkit.verify.report import CaseResult, StageResult, compare, compare_relative

Arrays = Mapping[str, NDArray[Any]]
FORWARD, LOSS, GRADIENT = 2e-5, 1e-5, 1e-3  # tolerances of the README
LOSS_NAMES = {"loss_span": "span", "loss_giou": "giou", "loss_label": "label", "loss_saliency": "saliency"}


@dataclass(frozen=True)
class Case:
    """One stored case, read.

    Attributes:
        name: of its folder.
        config: config.json.
        weights: published state dictionary.
        inputs, targets, evaluated, trained: the arrays.
        losses: train.json.
    """

    name: str
    config: dict[str, Any]
    weights: dict[str, Tensor]
    inputs: Arrays
    targets: Arrays
    evaluated: Arrays
    trained: Arrays
    losses: dict[str, Any]


def read_cases(golden: Path) -> Iterator[Case]:
    """Every case below a folder."""
    for folder in sorted(path.parent for path in golden.glob("*/train.json")):
        config = json.loads((folder / "config.json").read_text())
        weights = load_file(golden / config["weights_from"] / "state_dict.safetensors")
        names = ("inputs", "targets", "eval_outputs", "train")
        inputs, targets, evaluated, trained = (dict(np.load(folder / f"{name}.npz")) for name in names)
        losses = json.loads((folder / "train.json").read_text())
        weights = {name: tensor.float() for name, tensor in weights.items()}
        yield Case(folder.name, config, weights, inputs, targets, evaluated, trained, losses)


def without_dropout(model: nn.Module) -> nn.Module:
    """The stored runs trained without any dropout."""
    for module in model.modules():
        for rate in ("p", "rate", "dropout"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    return model


def batch_of(case: Case, **more: Any) -> Batch:
    """Inputs and targets of a case; `more` are further fields of the batch."""
    inputs, stored = case.inputs, case.targets
    mask_BT = torch.from_numpy(inputs["src_vid_mask"]).bool()
    spans = [torch.from_numpy(stored["spans"][a:b]) for a, b in pairwise(stored["span_offsets"])]
    targets = Targets(
        windows_clip=tuple(cw_to_se(s) * n for s, n in zip(spans, mask_BT.sum(1), strict=True)),
        saliency_BT=torch.from_numpy(stored["saliency_all_labels"]).float(),
        positive_clip_BP=torch.from_numpy(stored["saliency_pos_labels"]),
        negative_clip_BP=torch.from_numpy(stored["saliency_neg_labels"]),
    )
    return Batch(
        video_BTD=torch.from_numpy(inputs["src_vid"]),
        video_mask_BT=mask_BT,
        text_BLE=torch.from_numpy(inputs["src_txt"]),
        text_mask_BL=torch.from_numpy(inputs["src_txt_mask"]).bool(),
        targets=targets,
        **more,
    )


def run_cases(
    golden: Path,
    name: str,
    build: Callable[[Case], nn.Module],
    batch: Callable[[Case], Batch],
    stages: Callable[[Any, Batch, Arrays], list[StageResult]],
    loss_names: Mapping[str, str] = LOSS_NAMES,
    costs: tuple[float, float, float] = (10.0, 1.0, 4.0),
) -> Iterator[CaseResult]:
    """Replay every case of a folder: forward, matchings, losses, gradients.

    Args:
        golden: folder of cases.
        name: registry name.
        build: a case's network, without weights.
        batch: a case's batch.
        stages: compares the arrays of a forward pass.
        loss_names: published names of loss terms and ours.
        costs: of the matcher.
    """
    for case in read_cases(golden):
        model = without_dropout(build(case))
        model.load_state_dict(rename(case.weights, name))
        data = batch(case)
        with torch.no_grad():
            results = stages(model.eval(), data, case.evaluated)
        model.train()
        results += _matchings(model, data, case, costs)
        epoch = case.config.get("call", {}).get("epoch", inf)
        losses = cast(GroundingModel, model).losses(data, epoch=epoch)
        losses.total.backward()
        results += compare_losses(losses, case.losses, loss_names)
        results += compare_gradients(model, name, case)
        yield CaseResult(case.name, tuple(results), str(case.config.get("note", "")))


def set_stages(logits_NBQ2: Tensor, spans_cw_NBQ2: Tensor, stored: Arrays) -> list[StageResult]:
    """Logits and spans of every decoder layer."""
    results = []
    last = len(logits_NBQ2) - 1
    for index in range(last + 1):
        prefix = "" if index == last else f"aux{index}."
        if f"{prefix}pred_logits" not in stored:
            continue
        results.append(compare_scaled(f"{prefix}pred_logits", logits_NBQ2[index], stored))
        results.append(compare_scaled(f"{prefix}pred_spans", spans_cw_NBQ2[index], stored))
    return results


def compare_scaled(name: str, ours: Tensor, stored: Arrays, tolerance: float = FORWARD) -> StageResult:
    """Largest difference over max(1, largest stored number)."""
    scale = max(1.0, float(np.abs(stored[name]).max(initial=0.0)))
    return compare(name, ours.detach() / scale, stored[name] / scale, tolerance)


def _matchings(
    model: nn.Module, batch: Batch, case: Case, costs: tuple[float, float, float]
) -> list[StageResult]:
    if "match.last.query" not in case.trained:
        return []
    truth_cw = [
        torch.from_numpy(case.targets["spans"][a:b]) for a, b in pairwise(case.targets["span_offsets"])
    ]
    with torch.no_grad():
        stages = cast(Any, model).stages(batch)
    last = len(stages.logits_NBQ2) - 1
    results = []
    for index in range(last + 1):
        name = "last" if index == last else f"aux{index}"
        if f"match.{name}.query" not in case.trained:
            continue
        ours = match(stages.logits_NBQ2[index], stages.spans_cw_NBQ2[index], truth_cw, costs)
        for part, values in zip(("batch", "query", "target"), ours, strict=True):
            results.append(compare(f"match.{name}.{part}", values, case.trained[f"match.{name}.{part}"], 0.0))
    return results


def compare_losses(
    losses: Losses, stored: Mapping[str, Any], loss_names: Mapping[str, str]
) -> list[StageResult]:
    """Every unweighted term and the weighted total."""
    results = []
    for published, value in stored["losses"].items():
        base, _, layer = published.rpartition("_")
        known = published if published in loss_names else base
        if known not in loss_names:
            if published.startswith("class_error"):
                continue  # logged only
            results.append(StageResult(f"{published} has no counterpart", float("inf"), LOSS))
            continue
        ours = loss_names[known] + (f"_{layer}" if known != published else "")
        term = float(losses.terms[ours].detach()) if ours in losses.terms else float("nan")
        results.append(compare_relative(published, term, value, LOSS, 1.0))
    total = float(losses.total.detach())
    return [*results, compare_relative("total", total, stored["total"], LOSS, 1.0)]


def compare_gradients(model: nn.Module, name: str, case: Case) -> list[StageResult]:
    """The norm of every parameter's gradient, and the full gradients that are stored."""
    # A number that no loss depends on is a buffer here; its published gradient is zero, as a buffer's is.
    ours = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    results = []
    for published, norm in case.losses["grad_norms"].items():
        renamed = our_name(published, name)
        if renamed is None:
            continue
        gradient = ours[renamed].grad
        size = 0.0 if gradient is None else float(gradient.norm())
        results.append(compare_relative(f"grad_norm {published}", size, norm or 0.0, GRADIENT, 0.1))
        if f"grad.{published}" in case.trained and gradient is not None:
            array = case.trained[f"grad.{published}"]
            scale = max(1.0, float(np.abs(array).max()))
            results.append(
                compare(f"grad {published}", gradient.reshape(array.shape) / scale, array / scale, GRADIENT)
            )
    return results
