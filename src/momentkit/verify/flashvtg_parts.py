"""FlashVTG's parts that stand alone against stored runs: targets, post-processing, highlight metrics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from momentkit.losses.points import assign_targets, make_points
from momentkit.metrics.highlights import tvsum_ap, youtube_ap
from momentkit.predict.suppress import clip_and_round, decay_nms
from momentkit.verify.report import CaseResult, StageResult, compare

Arrays = dict[str, NDArray[Any]]


def arrays(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def suppressed(name: str, windows_N3: Tensor, normal: Any, linear: Any) -> list[StageResult]:
    """Both suppressions; windows of score 0 have no defined order and are compared as a set."""
    results = [
        compare(f"{name} nms normal", _ordered(decay_nms(windows_N3, 0.7, "normal")), _ordered(normal), 1e-5)
    ]
    if linear is not None:
        ours = decay_nms(windows_N3, 0.7, "linear")
        results.append(compare(f"{name} nms linear", _ordered(ours), _ordered(linear), 1e-5))
    return results


def _ordered(windows: Any) -> NDArray[Any]:
    rows = np.asarray(windows, dtype=np.float64)
    return rows[np.lexsort((rows[:, 1], rows[:, 0], -rows[:, 2]))]


def targets_case(folder: Path) -> CaseResult:
    stored = arrays(folder / "targets.npz")
    results = []
    for i, entry in enumerate(json.loads((folder / "targets.json").read_text())):
        points_P4 = make_points(entry["n_clips"], tuple(entry["strides"]))
        results.append(compare(f"t{i} points", points_P4, stored[f"t{i}_points"], 1e-5))
        windows = [torch.tensor(sample).float() * (1 / entry["clip_length"]) for sample in entry["windows"]]
        padded = torch.nn.utils.rnn.pad_sequence(windows, batch_first=True, padding_value=torch.inf)
        positive_BP, distance_BP2 = assign_targets(points_P4, padded, 1.5)
        results.append(compare(f"t{i} classes", positive_BP, stored[f"t{i}_cls"], 1e-5))
        results.append(compare(f"t{i} distances", distance_BP2, stored[f"t{i}_reg"], 1e-5))
    return CaseResult("standalone targets", tuple(results))


def post_process_case(folder: Path) -> CaseResult:
    results = []
    stored = json.loads((folder / "postprocess.json").read_text())
    steps: dict[str, tuple[float | None, float]] = {
        "hl": (150.0, 2.0),
        "charades": (150.0, 1.0),
        "other": (None, 2.0),
    }
    for i, entry in enumerate(stored):
        windows_N3 = torch.tensor(entry["input"], dtype=torch.float32)
        for name, (maximum_s, step_s) in steps.items():
            rounded = clip_and_round(windows_N3, maximum_s, step_s)
            results.append(compare(f"{i} {name}", rounded, entry[name], 1e-5))
            normal, linear = entry[f"{name}_nms_normal_0.7"], entry[f"{name}_nms_linear_0.7"]
            results += suppressed(f"{i} {name}", rounded, normal, linear)
            half = _ordered(decay_nms(rounded, 0.5, "normal"))
            results.append(
                compare(f"{i} {name} nms 0.5", half, _ordered(entry[f"{name}_nms_normal_0.5"]), 1e-5)
            )
    return CaseResult("standalone post-processing", tuple(results))


def highlights_case(folder: Path) -> CaseResult:
    """TVSum and YouTube figures of one video; the published ranking is torch's unstable sort."""
    stored, expected = arrays(folder / "hd_metric.npz"), json.loads((folder / "hd_metric.json").read_text())
    results = []
    for name in ("tvsum", "youtube_uni"):
        label_CR = stored[f"{name}.label"]
        score_T = stored[f"{name}.scores"][: len(label_CR)]
        order_T = torch.argsort(torch.from_numpy(score_T), descending=True).numpy()
        if name == "tvsum":
            area = tvsum_ap(score_T, label_CR, order_T)
        else:
            area = np.array([youtube_ap(score_T, label_CR[:, 0], order_T)])
        results.append(compare(name, round(float(area.mean()), 5), expected[name], 1e-5))
    return CaseResult("standalone highlight metrics", tuple(results))
