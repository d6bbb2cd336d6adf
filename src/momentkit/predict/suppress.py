"""Suppression and rounding of windows, exactly as the published programs do them.

Shapes   N windows; a row is start_s, end_s, score. All is float32: its rounding decides published figures.
Source   metrics.md section 7, flashvtg.md section 8
"""

from typing import Literal

import torch
from torch import Tensor

from momentkit.core.spans import pairwise_iou


def clip_and_round(windows_N3: Tensor, maximum_s: float | None, step_s: float | None) -> Tensor:
    """Clamp start and end to [0, maximum_s], then round them to multiples of `step_s`, half to even.

    Args:
        windows_N3: not written to.
        maximum_s: None = no clamp.
        step_s: None = no rounding.
    """
    windows_N3 = windows_N3.clone()
    if maximum_s is not None:
        windows_N3[:, :2] = windows_N3[:, :2].clamp(0, maximum_s)
    if step_s is not None:
        windows_N3[:, :2] = (windows_N3[:, :2] / step_s).round() * step_s
    return windows_N3


def decay_nms(windows_N3: Tensor, threshold: float, kind: Literal["normal", "linear"]) -> Tensor:
    """FlashVTG's suppression: scores decay, no window is removed; the result is sorted by score.

    Args:
        windows_N3: any order.
        threshold: for "normal", a window whose IoU with a better one is at least this gets score 0.
        kind: "normal" zeroes; "linear" multiplies every later score by 1 - IoU, whatever the threshold.

    Returns:
        (N, 3), highest score first; among equal scores the earlier row first. Two windows of length zero have
        IoU 0 here (the published code gets NaN, which spreads under "linear").
    """
    rows = windows_N3.clone()
    for index in range(len(rows) - 1):
        best = index + int(rows[index:, 2].argmax())
        rows[[index, best]] = rows[[best, index]]
        current, later = rows[index], rows[index + 1 :]
        inner = (torch.minimum(current[1], later[:, 1]) - torch.maximum(current[0], later[:, 0])).clamp(min=0)
        union = (current[1] - current[0]) + (later[:, 1] - later[:, 0]) - inner
        iou = torch.where(union > 0, inner / union, 0.0)
        decay = 1 - iou if kind == "linear" else (iou < threshold).to(iou.dtype)
        rows[index + 1 :, 2] *= decay
    return rows[rows[:, 2].argsort(descending=True, stable=True)]


def temporal_nms(windows_N3: Tensor, threshold: float, max_before: int = 10, max_after: int = 10) -> Tensor:
    """Moment-DETR's suppression: greedy; removes windows whose hull overlap exceeds the threshold.

    Args:
        windows_N3: in file order; only the first `max_before` are read. A single window stays as it is.
        threshold: overlap = intersection / hull, strictly greater is removed.
    """
    if len(windows_N3) <= 1:
        return windows_N3.clone()
    rows = windows_N3[:max_before]
    rows = rows[rows[:, 2].argsort(descending=True, stable=True)]
    kept: list[Tensor] = []
    for row in rows:
        if len(kept) < max_after and all(_hull_overlap(row, other) <= threshold for other in kept):
            kept.append(row)
    return torch.stack(kept)


def greedy_nms(windows_N3: Tensor, threshold: float, keep: int) -> Tensor:
    """The suppression of map models: a window goes when its IoU with a better one that is kept is larger.

    Args:
        windows_N3: best first; all are read.
        threshold: a window that overlaps exactly as much stays.
        keep: stop after so many.
    """
    kept: list[Tensor] = []
    while len(windows_N3) and len(kept) < keep:
        best = windows_N3[0]
        kept.append(best)
        iou_N, _ = pairwise_iou(best[None, :2], windows_N3[1:, :2])
        windows_N3 = windows_N3[1:][iou_N[0] <= threshold]
    return torch.stack(kept) if kept else windows_N3


def _hull_overlap(a: Tensor, b: Tensor) -> float:
    inner = float(torch.minimum(a[1], b[1]) - torch.maximum(a[0], b[0]))
    hull = float(torch.maximum(a[1], b[1]) - torch.minimum(a[0], b[0]))
    return max(inner, 0.0) / hull if hull > 0 else 0.0
