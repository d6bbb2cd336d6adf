"""Targets and losses on maps of candidate moments.

Shapes   B samples   G true moments   n rows   A columns; all spans in clips of the finest map
Source   ms_2d_tan.md sections 4 and 5, map_diffusion.md sections 1 and 7
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from momentkit.core.spans import pairwise_iou


def iou_targets(
    windows_clip: Sequence[Tensor], spans_nA2: Tensor, several: Literal["max", "mean"] = "max"
) -> Tensor:
    """(B, n, A) IoU of each cell with the true moment.

    Args:
        windows_clip: B tensors (G, 2); G may be 0, and a moment may lie partly outside the video.
        spans_nA2: start and end of each cell.
        several: of several true moments the best IoU, or the mean.
    """
    windows = [window.to(spans_nA2.device).float() for window in windows_clip]
    padded_BG2 = torch.nn.utils.rnn.pad_sequence(windows, batch_first=True)  # length zero: IoU 0
    if padded_BG2.shape[1] == 0:
        return spans_nA2.new_zeros(len(windows), *spans_nA2.shape[:2], dtype=torch.float32)
    iou_BGC, _ = pairwise_iou(padded_BG2, spans_nA2.flatten(0, 1).float())
    if several == "max":
        iou_BC = iou_BGC.amax(1)
    else:
        count_B = torch.tensor([max(1, len(window)) for window in windows], device=iou_BGC.device)
        iou_BC = iou_BGC.sum(1) / count_B[:, None]
    return iou_BC.unflatten(1, spans_nA2.shape[:2])


def rescale(iou: Tensor, low: float, high: float, bias: float = 0.0) -> Tensor:
    """IoU -> [0, 1]: 0 up to `low`, then linear up to 1 at `high`; `bias` is added where it is positive."""
    scaled = (iou - low) * (1 - bias) / (high - low)
    return torch.where(scaled > 0, scaled + bias, scaled).clamp(0, 1)


def map_bce(logit_BnA: Tensor, target_BnA: Tensor, valid_BnA: Tensor) -> Tensor:
    """Binary cross entropy, mean over the valid cells of the batch (not of each sample)."""
    loss_BnA = F.binary_cross_entropy_with_logits(logit_BnA, target_BnA, reduction="none")
    return _mean(loss_BnA, valid_BnA)


def map_mse(value_BnA: Tensor, target_BnA: Tensor, valid_BnA: Tensor) -> Tensor:
    """Squared error, mean over the valid cells of the batch."""
    return _mean((value_BnA - target_BnA) ** 2, valid_BnA)


def _mean(loss_BnA: Tensor, valid_BnA: Tensor) -> Tensor:
    return (loss_BnA * valid_BnA).sum() / valid_BnA.sum().clamp(min=1)
