"""Dropout and PReLU that do not hold up a training step on a CPU.

torch's own draw dropout masks one Bernoulli number at a time and sum the slope gradient of PReLU slowly:
together a fifth of a FlashVTG step on one core. On other devices, and in evaluation, torch's are used.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = (
    2**16
)  # a rate is rounded to a multiple of 1/65536; the scale uses the rounded rate, so means are kept


def dropout(x: Tensor, rate: float) -> Tensor:
    """Zero each entry with probability `rate` and rescale the others.

    Args:
        x: any shape.
        rate: in [0, 1).
    """
    cut = round(rate * LEVELS)
    if cut == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    # Four 16-bit draws at the price of one 64-bit word.
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= cut - LEVELS // 2
    return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - cut))


class Dropout(nn.Module):
    """`dropout` while training, nothing otherwise."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        return dropout(x, self.p) if self.training else x


class _LearnedSlope(torch.autograd.Function):
    """max(x, 0) + slope * min(x, 0), with a gradient for the slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.leaky_relu(x, float(slope))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        (gradient,) = gradients
        to_x = torch.where(x > 0, gradient, gradient * slope)
        to_slope = torch.dot(gradient.reshape(-1), x.clamp(max=0).reshape(-1))
        return to_x, to_slope.reshape(slope.shape)


class PReLU(nn.PReLU):
    """One learned slope for negative values, starting at 0.25; equal to torch's."""

    def forward(self, input: Tensor) -> Tensor:
        """Any shape -> the same."""
        if input.device.type != "cpu" or not (self.training and torch.is_grad_enabled()):
            return super().forward(input)
        result: Tensor = _LearnedSlope.apply(input, self.weight)
        return result
