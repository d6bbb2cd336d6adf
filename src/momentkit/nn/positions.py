"""Positions: the sine code on which everything positional in the DETR family is built, and the time channels.

Shapes   B videos   T clips   D channels
Source   detr_family.md 3.2; Carion et al. 2020, as modified by Moment-DETR
"""

from math import pi

import torch
from torch import Tensor


def sine(values: Tensor, channels: int) -> Tensor:
    """(...) -> (..., channels): sin (even j) or cos (odd j) of value / 10000^(2 floor(j/2) / channels).

    The argument is used as given; callers scale it by 2 pi.
    """
    index = torch.arange(channels, device=values.device)
    frequency = 10000.0 ** (2 * (index // 2).to(values.dtype) / channels)
    angle = values[..., None] / frequency
    return torch.where(index % 2 == 0, angle.sin(), angle.cos())


def clip_positions(mask_BT: Tensor, channels: int) -> Tensor:
    """(B, T) mask -> (B, T, channels): clip i of n is at 2 pi (i + 1) / n; padding repeats the last."""
    count_BT = mask_BT.cumsum(1, dtype=torch.float32)
    return sine(2 * pi * count_BT / (count_BT[:, -1:] + 1e-6), channels)
