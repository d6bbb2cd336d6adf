"""Mean, softmax and maximum over real entries; defined on a row that is all padding.

Shapes   any; the mask is bool, True = real, and broadcasts against the values.
"""

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Mean of the real entries along `dim`; 0 where there are none."""
    mask = mask.expand_as(values)
    return values.masked_fill(~mask, 0).sum(dim) / mask.sum(dim).clamp(min=1)


def masked_softmax(scores: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Softmax over the real entries along `dim`; zeros on padding, and everywhere where none is real."""
    scores = scores.masked_fill(~mask, -torch.inf)
    peak = scores.amax(dim, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    weights = (scores - peak).exp()
    return weights / weights.sum(dim, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)


def masked_max(values: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Maximum of the real entries along `dim`; the smallest finite number where there are none."""
    return values.masked_fill(~mask, torch.finfo(values.dtype).min).amax(dim)
