"""MS-2D-TAN and 2D-TAN against stored runs of the published codes.

`config.json` and `config_2d_tan.json` hold the options of every variant, `<variant>_weights.safetensors` its
weights, `<variant>_<case>.npz` the arrays, `pieces.npz` what needs no network. A case or an
array that is not there is not compared. Layout and tolerances are those of the README beside the stored runs.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from momentkit.convert.keys import our_name, rename
from momentkit.core.types import Batch, Targets
from momentkit.losses.maps import iou_targets, map_bce, rescale
from momentkit.metrics.ranking import RankProtocol, map_rankings, rank_scores, suppress
from momentkit.models.ms_2d_tan import MS2DTAN, MS2DTANConfig, Stages
from momentkit.nn.map_encoder import Windows, sample_edges
from momentkit.nn.maps import cell_spans, merge_maps
from momentkit.verify.report import CaseResult, StageResult, compare, compare_relative

Arrays = dict[str, NDArray[Any]]
FORWARD, PLANE, LOSS = 1e-5, 2e-5, 1e-6  # tolerances of the README; 2D-TAN's map outputs are PLANE
# Where the longest length has a single real window in a training batch, batch norm divides by a spread near
# zero and float32 rounding grows: the stored float32 arrays themselves lie this far from float64.
MAGNIFIED, GRADIENT = 3e-4, 1e-3  # of the last scale's maps; of gradients, relative to the largest entry


def run(golden: Path) -> Iterator[CaseResult]:
    """Replay every case of a folder, one result each."""
    for name, entry in _config(golden / "config.json").items():
        for case, settings in entry["cases"].items():
            if (golden / f"{name}_{case}.npz").exists():
                yield _case(golden, name, case, entry["options"], settings)
    for name, options in _config(golden / "config_2d_tan.json").items():
        if (golden / f"{name}.npz").exists():
            yield _plane_case(golden, name, options)
    if (golden / "pieces.npz").exists():
        yield _pieces(_arrays(golden / "pieces.npz"))


def _config(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _arrays(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def build(options: dict[str, Any], weights: dict[str, Tensor], *, resampled: bool = False) -> MS2DTAN:
    """Our network with a variant's options and weights; `resampled`: its input is resampled already."""
    plane = "sample_clips" in options
    layers = options["layers"] if plane else options["num_layers"]
    kinds: dict[str, Windows] = {"MaxPool": "pool", "ConvTanhBN": "conv", "Conv": "plain"}
    fixed = options["sample_clips"] if plane else options["input_clips"]
    config = MS2DTANConfig(
        video_dim=options["vis_dim"],
        text_dim=options["txt_dim"],
        hidden=options["hidden"],
        text_hidden=options["txt_hidden"],
        text_layers=3 if plane else options["lstm_layers"],
        text_pooling="last" if plane else "mean",
        samples=fixed,
        resample="none" if resampled or options.get("sw") else "mean" if plane else "pick",
        pool=options["pool"],
        scales=len(layers),
        columns=layers[0],
        windows=next(kind for ending, kind in kinds.items() if options["prop"].endswith(ending)),
        geometry="plane" if plane else "scales",
        convs="counted" if plane else "gated",
        map_layers=len(options["paddings"]) if plane else options["L"],
        kernel=options["kernel"],
        low=options.get("min_iou", 0.5),
        high=options.get("max_iou", 1.0),
        faithful=True,
    )
    model = MS2DTAN(config)
    model.load_state_dict(rename(weights, "ms_2d_tan"))
    return model


def _batch(video_BTD: NDArray[Any], mask_BT: NDArray[Any], stored: Arrays, window_BG2: Tensor) -> Batch:
    samples = len(video_BTD)
    nothing = torch.zeros(samples, 1, dtype=torch.long)
    return Batch(
        video_BTD=torch.from_numpy(np.ascontiguousarray(video_BTD)),
        video_mask_BT=torch.from_numpy(mask_BT).bool(),
        text_BLE=torch.from_numpy(stored["word_vectors"]),
        text_mask_BL=torch.from_numpy(stored["txt_mask"][..., 0]).bool(),
        targets=Targets(
            windows_clip=tuple(window_BG2),
            saliency_BT=torch.zeros(mask_BT.shape),
            positive_clip_BP=nothing,
            negative_clip_BP=nothing,
        ),
    )


def _raw_features(stored: Arrays, samples: int) -> list[NDArray[Any]]:
    raws = (torch.from_numpy(stored[f"raw_feats_{b}"]) for b in range(samples))
    return [F.normalize(raw, dim=1).numpy() for raw in raws]


def _case(
    golden: Path, name: str, case: str, options: dict[str, Any], settings: dict[str, Any]
) -> CaseResult:
    """A batch of MS-2D-TAN: every stage, losses, merged map, kept moments, figures, gradients."""
    stored = _arrays(golden / f"{name}_{case}.npz")
    weights = load_file(golden / f"{name}_weights.safetensors")
    windows_s = torch.from_numpy(stored["gt_times"]).float()
    duration_s_B = torch.from_numpy(stored["durations"]).float()
    sliding, clips = options["sw"], options["input_clips"]
    unit_s_B = torch.full_like(duration_s_B, options["tau"]) if sliding else duration_s_B / clips
    shifted_s = windows_s - settings.get("crop", 0) * options["tau"]
    batch = _batch(
        stored["video_features"].transpose(0, 2, 1),
        stored["vis_mask"][:, 0],
        stored,
        (shifted_s / unit_s_B[:, None])[:, None],
    )
    trained = settings.get("mode") == "train"
    model = build(options, weights, resampled=True).train(trained)
    if trained:  # float64: what is left is the rounding of the stored arrays, the same on every machine
        model = model.double()
        batch = replace(batch, video_BTD=batch.video_BTD.double(), text_BLE=batch.text_BLE.double())
    stages = model.stages(batch)
    magnified = trained and int((stages.count_B >= model.windows.needed_clips).sum()) < 2
    results = _stages(stages, stored, magnified) + _targets(model, stages, batch, stored)
    if not sliding:
        results += _resampled(build(options, weights).eval(), stages, stored)
    if trained:
        results += _running_statistics(model, stored)  # of one forward pass
    losses = model.losses(batch)
    per_scale = torch.stack([*losses.terms.values()]).detach()
    results.append(compare("loss per scale", per_scale, stored["loss_per_scale"], LOSS))
    results.append(compare("loss total", losses.total.detach(), stored["loss_total"], LOSS))
    if trained:
        losses.total.backward()
        results += _gradients(model, stored, magnified)
    results += _ranked(stages, stored, unit_s_B * options["pool"], windows_s, options["nms"])
    note = "the longest length has one window" if magnified else ""
    return CaseResult(f"{name}_{case}", tuple(results), note)


def _running_statistics(model: MS2DTAN, stored: Arrays) -> list[StageResult]:
    buffers = dict(model.named_buffers())
    names = {key: our_name(key.removeprefix("after."), "ms_2d_tan") for key in stored if key[:6] == "after."}
    return [
        compare(key, buffers[name], stored[key], FORWARD) for key, name in names.items() if name is not None
    ]


def _gradients(model: MS2DTAN, stored: Arrays, magnified: bool) -> list[StageResult]:
    results, named = [], dict(model.named_parameters())
    for key in (key for key in stored if key.startswith("grad.")):
        name = str(our_name(key.removeprefix("grad."), "ms_2d_tan"))
        gradient, array = named[name].grad, stored[key]
        assert gradient is not None
        through_chain = name.startswith(("clips.", "windows."))
        tolerance = GRADIENT * float(np.abs(array).max()) if magnified and through_chain else FORWARD
        results.append(compare(key, gradient.reshape(array.shape), array, tolerance))
    return results


def _stages(stages: Stages, stored: Arrays, magnified: bool) -> list[StageResult]:
    last = len(stages.maps) - 1
    rounded = (f"prop_h_{last}", f"fused_{last}") if magnified else ()
    mask_BN = torch.arange(stages.clips_BdN.shape[2]) < stages.count_B[:, None]
    ours = {
        "clip_h": stages.clips_BdN,
        "clip_mask": mask_BN[:, None],
        "lstm_out": stages.words_BLh,
        **{f"prop_h_{k}": value for k, value in enumerate(stages.maps)},
        **{f"map_mask_{k}": value[:, None] for k, value in enumerate(stages.valid)},
        **{f"fused_{k}": value for k, value in enumerate(stages.fused)},
        **{f"map_h_{k}": value for k, value in enumerate(stages.compared)},
        **{f"pred_{k}": value[:, None] for k, value in enumerate(stages.probabilities)},
    }
    return [
        compare(
            name,
            value.detach(),
            stored[name],
            0.0 if "mask" in name else MAGNIFIED if name in rounded else FORWARD,
        )
        for name, value in ours.items()
        if name in stored
    ]


def _targets(model: MS2DTAN, stages: Stages, batch: Batch, stored: Arrays) -> list[StageResult]:
    """Targets on the valid cells; beyond them the published ones count rows of padding."""
    assert batch.targets is not None
    results = []
    for k, iou in enumerate(model.targets(stages, batch.targets.windows_clip)):
        valid = stages.valid[k].numpy()
        results.append(
            compare(f"target_iou_{k}", iou.numpy() * valid, stored[f"target_iou_{k}"][:, 0] * valid, FORWARD)
        )
    return results


def _resampled(model: MS2DTAN, stages: Stages, stored: Arrays) -> list[StageResult]:
    """The same network from features of the videos' own lengths."""
    rows = _raw_features(stored, len(stages.count_B))
    longest = max(map(len, rows))
    video = np.stack([np.pad(row, ((0, longest - len(row)), (0, 0))) for row in rows])
    mask = np.stack([np.arange(longest) < len(row) for row in rows])
    with torch.no_grad():
        own = model.stages(_batch(video, mask, stored, torch.zeros(len(rows), 0, 2)))
    return [
        compare(f"from raw features {k}", value[:, None], stored[f"pred_{k}"], FORWARD)
        for k, value in enumerate(own.probabilities)
    ]


def _ranked(
    stages: Stages, stored: Arrays, unit_s_B: Tensor, windows_s: Tensor, threshold: float
) -> list[StageResult]:
    """Merged map, the moments that suppression keeps, and the figures."""
    merged = merge_maps([value.detach() for value in stages.probabilities], 0.0)
    mask = merge_maps([value.float() for value in stages.valid], 0.0)
    results = [
        compare("merged", merged[:, None], stored["merged"], FORWARD),
        compare("merged_mask", mask[:, None], stored["merged_mask"], 0.0),
    ]
    protocol = RankProtocol(overlaps=(0.5, 0.7), suppress_above=threshold)
    rankings = map_rankings(merged.numpy(), mask.numpy(), unit_s_B.double().numpy())
    kept_QK2, real_QK = suppress(rankings, protocol)
    results += [
        compare(f"kept_{b}", kept[real], stored[f"kept_{b}"], FORWARD)
        for b, (kept, real) in enumerate(zip(kept_QK2, real_QK, strict=True))
    ]
    scores = rank_scores(rankings, windows_s.double().numpy(), protocol)
    results.append(compare("eval_ranks", scores.rank, stored["eval_ranks"], FORWARD))
    return [*results, compare("eval_miou", scores.miou, stored["eval_miou"], FORWARD)]


def _plane_case(golden: Path, name: str, options: dict[str, Any]) -> CaseResult:
    """A batch of 2D-TAN: from the resampled features, and from the videos' own."""
    stored = _arrays(golden / f"{name}.npz")
    weights = load_file(golden / f"{name}_weights.safetensors")
    samples = len(stored["durations"])
    unit_s_B = torch.from_numpy(stored["durations"]).float() / options["sample_clips"]
    windows = torch.from_numpy(stored["gt_times"]).float() / unit_s_B[:, None]
    mask = np.ones(stored["visual_input"].shape[:2], dtype=bool)
    batch = _batch(stored["visual_input"], mask, stored, windows[:, None])
    model = build(options, weights, resampled=True).eval()
    with torch.no_grad():
        stages, losses, prediction = model.stages(batch), model.losses(batch), model(batch)
    ours = {
        "frame_h": stages.clips_BdN,
        "map_mask": stages.valid[0][:, None],
        "map_h": stages.maps[0],
        "fused": stages.fused[0],
        "map_out": stages.compared[0],
        "logits": stages.logits[0][:, None] * stages.valid[0][:, None],
        "joint_prob": stages.probabilities[0][:, None],
    }
    tolerance = {"map_mask": 0.0, "map_out": PLANE, "logits": PLANE}
    results = [compare(key, value, stored[key], tolerance.get(key, FORWARD)) for key, value in ours.items()]
    results.append(compare_relative("loss", float(losses.total), float(stored["loss"]), LOSS))
    results += _targets(model, stages, batch, {"target_iou_0": stored["target_iou"]})
    results += _resampled(build(options, weights).eval(), stages, stored | {"pred_0": stored["joint_prob"]})
    for b in range(samples):  # ranked by the stored scores: neighbours may differ by 1e-5 only
        cells = (prediction.spans_BQ2[b] / options["pool"]).round().long()
        score_Q = torch.from_numpy(stored["joint_prob"][b, 0])[cells[:, 0], cells[:, 1] - 1]
        order_Q = score_Q.argsort(descending=True, stable=True)
        ranked = (prediction.spans_BQ2[b, order_Q] * unit_s_B[b]).double().numpy()
        results.append(compare(f"ranked_{b}", ranked[:40], stored[f"ranked_{b}"], FORWARD))
        kept, real = suppress([ranked], RankProtocol(suppress_above=options["nms"]))
        results.append(compare(f"kept_{b}", kept[0][real[0]], stored[f"kept_{b}"], FORWARD))
    return CaseResult(name, tuple(results))


def _pieces(stored: Arrays) -> CaseResult:
    """What needs no network: targets, resampling, suppression, loss, merging."""
    results = []
    for j, (start, end, duration, rows, columns) in enumerate(stored["ioumap.args"]):
        unit = duration / rows
        spans_nA2 = cell_spans(int(rows), int(columns), 1)
        ours = iou_targets([torch.tensor([[start / unit, end / unit]])], spans_nA2)[0]
        # The published map is zero past the end, except in row 0.
        kept = (spans_nA2[..., 1] <= rows) | (spans_nA2[..., 0] == 0)
        results.append(compare(f"ioumap.{j}", ours * kept, stored[f"ioumap.{j}"], FORWARD))
    for j in range(_number(stored, "sampling")):
        clips, count, *picked = stored[f"sampling.{j}"].astype(int)
        edge = sample_edges(torch.tensor([clips]), int(count))[0]
        results.append(compare(f"sampling.{j}", (edge[:-1] + edge[1:]) // 2, picked, 0.0))
    for j in range(_number(stored, "nms", ".dets")):
        threshold, top = stored[f"nms.{j}.args"]
        candidates = stored[f"nms.{j}.dets"].astype(np.float64)
        most = len(candidates) if top < 0 else int(top)
        kept, real = suppress([candidates], RankProtocol(ranks=(most,), suppress_above=float(threshold)))
        results.append(compare(f"nms.{j}", kept[0][real[0]], stored[f"nms.{j}.kept"], FORWARD))
    results += [_loss_piece(stored, j) for j in range(_number(stored, "loss", ".pred"))]
    for j in range(_number(stored, "merge", ".out")):
        maps = [
            torch.from_numpy(stored[f"merge.{j}.in_{k}"])[:, 0]
            for k in range(_number(stored, f"merge.{j}.in_", sep=""))
        ]
        results.append(
            compare(f"merge.{j}", merge_maps(maps, 0.0)[:, None], stored[f"merge.{j}.out"], FORWARD)
        )
    return CaseResult("pieces", tuple(results))


def _number(stored: Arrays, prefix: str, ending: str = "", sep: str = ".") -> int:
    return next(j for j in range(len(stored) + 1) if f"{prefix}{sep}{j}{ending}" not in stored)


def _loss_piece(stored: Arrays, j: int) -> StageResult:
    """Where the target has fewer rows the published loss cuts the others, but counts all valid cells."""
    probability, mask, iou = (
        torch.from_numpy(stored[f"loss.{j}.{n}"])[:, 0] for n in ("pred", "mask", "iou")
    )
    low, high, bias = (float(value) for value in stored[f"loss.{j}.args"])
    rows, real = iou.shape[1], mask > 0
    logit = torch.logit(torch.where(real, probability, 0.5))  # invalid cells are stored as 0
    ours = map_bce(logit[:, :rows], rescale(iou, low, high, bias), real[:, :rows])
    share = mask[:, :rows].sum() / mask.sum()
    return compare(f"loss.{j}", ours * share, stored[f"loss.{j}.value"], LOSS)
