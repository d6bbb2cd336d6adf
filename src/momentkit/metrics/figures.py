"""The published dictionary of figures: its keys, its order, its rounding.

Source   metrics.md sections 2.6 to 2.8
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from momentkit.metrics.arrays import percent
from momentkit.metrics.moments import MAP_THRESHOLDS
from momentkit.metrics.overlap import Floats
from momentkit.metrics.protocols import MomentProtocol
from momentkit.metrics.saliency import LEVELS


def moment_figures(protocol: MomentProtocol, name: str, arrays: Mapping[str, Floats]) -> dict[str, Any]:
    """Figures of one length range, under its name.

    Args:
        protocol: decides which figures, and what an empty range becomes.
        name: of the range.
        arrays: "mr_ap" (Q, 10), "iou_top1" (Q,) and, for univtg, "iou_best5" (Q,), of the scored queries.
    """
    ap_QT, iou_Q = arrays["mr_ap"], arrays["iou_top1"]
    if not len(ap_QT):
        return {name: _zeros() if protocol.empty_range == "zeros" else None}
    ap_T = ap_QT.mean(0)
    precision = {str(t): percent(float(ap)) for t, ap in zip(MAP_THRESHOLDS, ap_T, strict=True)}
    precision["average"] = percent(float(ap_T.mean()))  # of the unrounded ten
    result: dict[str, Any] = {"MR-mAP": precision, "MR-R1": _recall(protocol, iou_Q)}
    if protocol.recall_at_five:
        result["MR-R5"] = _recall(protocol, arrays["iou_best5"])
    if protocol.mean_iou:
        result["MR-mIoU"] = percent(float(iou_Q.mean()))
    return {name: result}


def _recall(protocol: MomentProtocol, iou_Q: Floats) -> dict[str, float]:
    return {str(t): percent(float((iou_Q >= t).mean())) for t in protocol.recall_thresholds}


def _zeros() -> dict[str, dict[str, float]]:
    """What CG-DETR's evaluator writes for a range without true windows; its keys are sums of steps."""
    zeros = {str(float(t)): 0.0 for t in np.linspace(0.5, 0.95, 19)} | {"average": 0.0}
    return {"MR-mAP": zeros, "MR-R1": dict(zeros)}


def brief_figures(
    protocol: MomentProtocol, figures: Mapping[str, Any], *, moments: bool
) -> dict[str, float | None]:
    """The short list that papers print."""
    brief: dict[str, float | None] = {}
    if moments:
        brief |= _brief_full(protocol, figures["full"])
        ranges = {part.name for part in protocol.ranges} | set(protocol.absent_ranges)
        for name in sorted(ranges - {"full"}):
            part = figures.get(name)
            brief[f"MR-{name}-mAP"] = part["MR-mAP"]["average"] if part else None
            if protocol.recall_at_five:
                brief[f"MR-{name}-mIoU"] = part["MR-mIoU"] if part else None
    for level in LEVELS:
        if part := figures.get(f"HL-min-{level}"):
            suffix = "-key" if protocol.recall_at_five and level == "VeryGood" else ""
            brief[f"HL-min-{level}-mAP{suffix}"] = part["HL-mAP"]
            brief[f"HL-min-{level}-Hit1{suffix}"] = part["HL-Hit1"]
    return brief


def _brief_full(protocol: MomentProtocol, full: Mapping[str, Any] | None) -> dict[str, float | None]:
    suffix = "-key" if protocol.recall_at_five else ""
    brief: dict[str, float | None] = {}
    for metric in ("R1", "R5") if protocol.recall_at_five else ("R1",):
        for t in protocol.brief_recall:
            brief[f"MR-full-{metric}@{t}{suffix}"] = full[f"MR-{metric}"][str(t)] if full else None
    brief[f"MR-full-mAP{suffix}"] = full["MR-mAP"]["average"] if full else None
    for t in (0.5, 0.75):
        brief[f"MR-full-mAP@{t}{suffix}"] = full["MR-mAP"][str(t)] if full else None
    if protocol.mean_iou:
        brief[f"MR-full-mIoU{suffix}"] = full["MR-mIoU"] if full else None
    return brief
