"""Parts of models without public code, against stored runs of the codes they were taken from.

Each file of the folder is one case; `config.json` says how it was made, the README beside it what it holds.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from momentkit.core.spans import cw_to_se, se_to_cw
from momentkit.diffusion.samplers import add_noise, ddim
from momentkit.diffusion.schedules import cosine_betas, linear_betas, schedule, signal_share, step_times
from momentkit.diffusion.spans import random_spans, same_size, to_signal, to_spans
from momentkit.models.diffusion_vmr import DiffusionVMR, DiffusionVMRConfig
from momentkit.nn.positions import step_code
from momentkit.nn.roi import apply_offset
from momentkit.nn.set_denoiser import SetDenoiser
from momentkit.verify.report import CaseResult, StageResult, compare

Tensors = Mapping[str, Tensor]
Replay = Callable[[Tensors, Mapping[str, Any]], list[StageResult]]


@torch.no_grad()
def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every part, one result each."""
    config = json.loads((golden / "config.json").read_text())
    for name, (section, replay) in PARTS.items():
        path = golden / f"{name}.npz"
        if not path.is_file():
            yield CaseResult(name, note=f"{path} is missing")
            continue
        stored = {
            key: _tensor(value) for key, value in dict(np.load(path)).items() if value.dtype.kind != "U"
        }
        yield CaseResult(name, tuple(replay(stored, config[section])))


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape)


def _scaled(stage: str, ours: Tensor, stored: Tensor, tolerance: float) -> StageResult:
    """Largest difference over max(1, largest stored number)."""
    scale = max(1.0, float(stored.abs().max()))
    return compare(stage, ours / scale, stored / scale, tolerance)


def rcnn_head(stored: Tensors, config: Mapping[str, Any]) -> list[StageResult]:
    """DiffusionDet's layer; its class and box towers, which DiffusionVMR does not have, are rebuilt here."""
    tolerance, samples, count = 2e-6, config["B"], config["N"]
    model = DiffusionVMR(
        DiffusionVMRConfig(
            video_dim=1,
            text_dim=1,
            hidden=config["d"],
            heads=config["heads"],
            feed_forward=config["ff"],
            bins=config["res"] ** 2,
            dynamic_width=config["dyn"],
        )
    ).eval()
    assert model.decoder is not None and model.time is not None
    layer: Any = model.decoder[0]
    load_layer(layer, stored)
    model.time.load_state_dict({f"{ours}": stored[f"time.{theirs}"] for ours, theirs in _TIME.items()})
    roi_BQRd = stored["roi"].flatten(2).transpose(1, 2).unflatten(0, (samples, count))
    time_Bh = model.time(step_code(stored["t"], config["d"]))
    single = layer.interaction(stored["dyn_in"].view(samples, count, -1), roi_BQRd)
    results = [
        compare("sinus", step_code(stored["t"], config["d"]), stored["sinus"], tolerance),
        _scaled("time_emb", time_Bh, stored["time_emb"], tolerance),
        _scaled("dyn_out", single.flatten(0, 1), stored["dyn_out"], tolerance),
        _scaled(
            "applied",
            _move_box(stored["boxes"].flatten(0, 1), stored["deltas"]),
            stored["applied"],
            tolerance,
        ),
    ]
    before = stored["prev_feat"].view(samples, count, -1)
    for name, feature_BQd in (("first", roi_BQRd.mean(2)), ("next", before)):
        after_BQd = layer.interact(feature_BQd, roi_BQRd, None)
        told_BQd = layer.tell(after_BQd, time_Bh)
        classes = _linear(_tower(told_BQd, stored, "cls_module", config["ncls"]), stored, "class_logits")
        deltas = _linear(_tower(told_BQd, stored, "reg_module", config["nreg"]), stored, "bboxes_delta")
        results += [
            _scaled(
                f"{name}_feat", after_BQd.view(1, samples * count, -1), stored[f"{name}_feat"], tolerance
            ),
            _scaled(f"{name}_logits", classes, stored[f"{name}_logits"], tolerance),
            _scaled(f"{name}_boxes", _move_box(stored["boxes"], deltas), stored[f"{name}_boxes"], tolerance),
        ]
    return results


_TIME = {"0.weight": "1.weight", "0.bias": "1.bias", "2.weight": "3.weight", "2.bias": "3.bias"}
_LAYER = {
    "self_attn": "attention",
    "inst_interact.dynamic_layer": "interaction.generate",
    "inst_interact.norm1": "interaction.norm1",
    "inst_interact.norm2": "interaction.norm2",
    "inst_interact.norm3": "interaction.norm3",
    "inst_interact.out_layer": "interaction.out",
    "linear1": "linear1",
    "linear2": "linear2",
    "norm1": "norm1",
    "norm2": "norm2",
    "norm3": "norm3",
    "block_time_mlp.1": "time",
}


def load_layer(layer: nn.Module, stored: Tensors) -> None:
    """Published weights into a denoising layer; its heads keep their own."""
    renamed = {
        f"{ours}.{name.removeprefix(f'w.{theirs}.')}": tensor
        for name, tensor in stored.items()
        for theirs, ours in _LAYER.items()
        if name.startswith(f"w.{theirs}.")
    }
    heads = {
        name: value for name, value in layer.state_dict().items() if name.startswith(("label.", "span."))
    }
    layer.load_state_dict(renamed | heads)


def _linear(x: Tensor, stored: Tensors, name: str) -> Tensor:
    return nn.functional.linear(x, stored[f"w.{name}.weight"], stored[f"w.{name}.bias"])


def _tower(x: Tensor, stored: Tensors, name: str, depth: int) -> Tensor:
    for index in range(0, 3 * depth, 3):
        x = x @ stored[f"w.{name}.{index}.weight"].T
        norm = stored[f"w.{name}.{index + 1}.weight"], stored[f"w.{name}.{index + 1}.bias"]
        x = nn.functional.layer_norm(x, x.shape[-1:], *norm).relu()
    return x


def _move_box(boxes: Tensor, deltas: Tensor) -> Tensor:
    """The offset of spans, for each axis of a box x1 y1 x2 y2 by itself."""
    axes = [cw_to_se(apply_offset(se_to_cw(boxes[..., axis::2]), deltas[..., axis::2])) for axis in (0, 1)]
    return torch.stack(axes, -1).flatten(-2)


def ddim_span(stored: Tensors, config: Mapping[str, Any]) -> list[StageResult]:
    """DiffusionDet's noising, padding and sampler, on a toy network."""
    tolerance, total, scale = 1e-6, config["T"], float(stored["scale"])
    share_T = schedule("cosine", total)

    def denoise(x: Tensor, time: int) -> tuple[Tensor, None]:
        spans = to_spans(x, scale).float()
        wave = 0.1 * torch.sin(torch.tensor(6.0 * time / total))
        return to_signal((spans @ stored["W"] + wave).sigmoid(), scale), None

    _, trace = ddim(
        denoise,
        stored["x_in"][0],
        share_T,
        config["S"],
        eta=float(stored["eta"]),
        fresh=list(stored["noise"]),
    )
    results = [
        compare("betas", cosine_betas(total), stored["betas"], 1e-12),
        compare("alphas_cumprod", share_T, stored["alphas_cumprod"], 1e-12),
        compare("times", torch.tensor(step_times(total, config["S"])), stored["times"], 0.0),
    ]
    for index, step in enumerate(trace):
        results += [
            compare(f"x_in {index}", step.x, stored["x_in"][index], tolerance),
            compare(f"x0 {index}", step.start, stored["x0"][index], tolerance),
            compare(f"eps {index}", step.noise, stored["eps"][index], tolerance),
        ]
    for index in range(len(config["tq"])):
        results.append(_noising(index, stored, share_T, scale, tolerance))
    return results


def _noising(index: int, stored: Tensors, share_T: Tensor, scale: float, tolerance: float) -> StageResult:
    truth_G2, noise_N2 = stored[f"q{index}_gt"], stored[f"q{index}_noise"]
    normal_N2 = torch.cat([torch.zeros_like(truth_G2), stored[f"q{index}_pad_normal"]])
    order = torch.arange(len(truth_G2))
    clean = same_size([truth_G2], random_spans(normal_N2, "normal")[None], [order])
    noisy = add_noise(to_signal(clean, scale), noise_N2[None], share_T, stored[f"q{index}_t"].view(1))
    return compare(f"q{index}_span", to_spans(noisy, scale)[0], stored[f"q{index}_span"], tolerance)


def gaussian(stored: Tensors, config: Mapping[str, Any]) -> list[StageResult]:
    """Schedules, noising and DDIM of guided-diffusion, on the steps that its respacing kept."""
    total = config["T"]
    betas = {"linear": linear_betas(total), "cosine": cosine_betas(total)}
    results = []
    for name, betas_T in betas.items():
        results += [
            compare(f"betas_{name}", betas_T, stored[f"betas_{name}"], 1e-12),
            compare(f"ac_{name}", signal_share(betas_T), stored[f"ac_{name}"], 1e-12),
        ]
    for index, (name, _, eta, clip) in enumerate(config["runs"]):
        # The second run loses digits in the published float32 arithmetic: 1e-3, as the README says.
        results += _gaussian_run(
            f"run{index}_", stored, signal_share(betas[name]), eta, clip, 1e-3 if index else 5e-6
        )
    return results


def _gaussian_run(
    run: str, stored: Tensors, share_T: Tensor, eta: float, clip: bool, tolerance: float
) -> list[StageResult]:
    def denoise(x: Tensor, time: int) -> tuple[Tensor, None]:
        clean = torch.tanh(x @ stored["W"]) * 0.8 + 1e-4 * time
        return clean.clamp(-1, 1) if clip else clean, None

    kept = stored[f"{run}map"]
    last, trace = ddim(
        denoise,
        stored[f"{run}x"][0],
        share_T,
        kept.flip(0).tolist(),
        eta=eta,
        fresh=list(stored[f"{run}noise"]),
    )
    states = torch.stack([*(step.x for step in trace), last])
    noised = add_noise(stored[f"{run}q_x0"], stored[f"{run}q_noise"], share_T, kept[stored[f"{run}q_t"]])
    return [
        compare(f"{run}x", states, stored[f"{run}x"], tolerance),
        compare(f"{run}q", noised, stored[f"{run}q"], 5e-6),
    ]


def set_denoiser(stored: Tensors, config: Mapping[str, Any]) -> list[StageResult]:
    """DiffusionRet's denoiser; the pooling of a candidate's frames, which ours does not have, is given."""
    tolerance = 1e-6
    ours = SetDenoiser(config["d"], "pool_concat", scaled=False).eval()
    names = {
        "q_proj": "query",
        "k_proj": "key",
        "v_proj": "value",
        "proj": "project",
        "embed_timestep.time_embed": "time",
        "decoder": "decode",
    }
    weights = {
        f"{new}.{name.removeprefix(f'w.{old}.')}": tensor
        for name, tensor in stored.items()
        for old, new in names.items()
        if name.startswith(f"w.{old}.")
    }
    bias = weights.pop("decode.2.bias")  # moves all scores alike; ours has none
    ours.load_state_dict(weights)
    everyone = torch.ones(stored["x"].shape, dtype=torch.bool)
    logits = ours(stored["text"], stored["pooled"], everyone, stored["x"], stored["pe_at_t"])
    return [
        compare("time_emb", ours.time(stored["pe_at_t"]), stored["time_emb"], tolerance),
        compare("out", logits + bias, stored["out"], tolerance),
    ]


PARTS: dict[str, tuple[str, Replay]] = {
    "rcnn_head": ("rcnn", rcnn_head),
    "ddim_span": ("ddim", ddim_span),
    "gaussian": ("gauss", gaussian),
    "set_denoiser": ("ret", set_denoiser),
}
"""Name of the file -> section of config.json, and what replays it."""
