"""Telling a network how noisy its input is: time vectors, stylization; attention that mixes in a condition.

Shapes   B samples   C tokens (cells of a map)   M tokens of the condition   d width   e time width
Source   MotionDiffuse (stylization, time vectors) and ReMoDiffuse (mixed attention), as the map-diffusion
         paper cites them; map_diffusion.md sections 4 and 6
"""

from collections.abc import Callable
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.nn.attention import attend

Norm = Callable[[Tensor, Tensor], Tensor]  # tokens (B, C, d) and which are real (B, C) -> (B, C, d)


def time_vectors(time_B: Tensor, width: int) -> Tensor:
    """(B, width) cosines, then sines, of falling frequency; an odd width ends in a zero.

    Args:
        time_B: steps of the schedule.
        width: of the result, at least 2.
    """
    half = width // 2
    frequency = torch.exp(-log(1e4) / half * torch.arange(half, device=time_B.device))
    angle = time_B.float()[:, None] * frequency
    return F.pad(torch.cat([angle.cos(), angle.sin()], 1), (0, width % 2))


class TokenNorm(nn.LayerNorm):
    """Layer norm of each token."""

    def forward(self, x_BCd: Tensor, real_BC: Tensor) -> Tensor:  # type: ignore[override]
        """Tokens -> the same; `real_BC` makes no difference."""
        return super().forward(x_BCd)


class MaskedGroupNorm(nn.Module):
    """Group norm whose statistics are those of the real tokens: padding changes nothing.

    Args:
        width: d.
        groups: at most so many; the largest number up to it that divides d is taken.
        eps: added to the variance.
    """

    def __init__(self, width: int, groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups = next(count for count in range(min(groups, width), 0, -1) if width % count == 0)
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x_BCd: Tensor, real_BC: Tensor) -> Tensor:
        """(B, C, d), (B, C) -> (B, C, d)."""
        x_BCgw = x_BCd.float().unflatten(2, (self.groups, -1))
        real_BC11 = real_BC[..., None, None]
        count_B111 = (real_BC11.sum(1, keepdim=True) * x_BCgw.shape[3]).clamp(min=1)
        mean_B1g1 = (x_BCgw * real_BC11).sum((1, 3), keepdim=True) / count_B111
        centred = x_BCgw - mean_B1g1
        var_B1g1 = (centred**2 * real_BC11).sum((1, 3), keepdim=True) / count_B111
        normed_BCd = (centred / (var_B1g1 + self.eps).sqrt()).flatten(2)
        return normed_BCd * self.weight + self.bias


class Stylization(nn.Module):
    """Scale and shift by the time vector, SiLU, a linear layer that starts at zero (eq. 6 with 1 + scale).

    Args:
        d: width.
        time_width: e.
        norm: before the scale.
    """

    def __init__(self, d: int, time_width: int, norm: nn.Module) -> None:
        super().__init__()
        self.style, self.norm, self.out = nn.Linear(time_width, 2 * d), norm, nn.Linear(d, d)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BCd: Tensor, time_Be: Tensor, real_BC: Tensor) -> Tensor:
        """(B, C, d), (B, e), (B, C) -> (B, C, d), what a residual branch adds."""
        scale_B1d, shift_B1d = self.style(F.silu(time_Be))[:, None].chunk(2, 2)
        styled_BCd: Tensor = self.norm(x_BCd, real_BC) * (1 + scale_B1d) + shift_B1d
        out: Tensor = self.out(F.silu(styled_BCd))
        return out


class MixedAttention(nn.Module):
    """Queries from the tokens; keys and values from the condition and the tokens, side by side.

    Args:
        d: width of the tokens.
        condition_dim: width of the condition; 0 = none, plain self-attention.
        heads: H.
        scaled: divide by the root of a head's width; the code that this is after does not.
    """

    def __init__(self, d: int, condition_dim: int, heads: int, scaled: bool) -> None:
        super().__init__()
        self.heads, self.scaled = heads, scaled
        self.norm, self.query = nn.LayerNorm(d), nn.Linear(d, d)
        self.key, self.value = nn.Linear(d, d), nn.Linear(d, d)
        self.condition = nn.ModuleDict()
        if condition_dim:
            self.condition["norm"] = nn.LayerNorm(condition_dim)
            self.condition["key"] = nn.Linear(condition_dim, d)
            self.condition["value"] = nn.Linear(condition_dim, d)

    def forward(
        self,
        x_BCd: Tensor,
        real_BC: Tensor,
        condition_BMf: Tensor | None = None,
        real_BM: Tensor | None = None,
    ) -> Tensor:
        """(B, C, d), (B, C), (B, M, f), (B, M) -> (B, C, d), before stylization."""
        normed = self.norm(x_BCd)
        query, key, value, real = self.query(normed), self.key(normed), self.value(normed), real_BC
        if not self.scaled:
            query = query * (query.shape[2] / self.heads) ** 0.5
        if condition_BMf is not None and real_BM is not None:
            seen = self.condition["norm"](condition_BMf)
            key = torch.cat([self.condition["key"](seen), key], 1)
            value = torch.cat([self.condition["value"](seen), value], 1)
            real = torch.cat([real_BM, real], 1)
        real = real | ~real.any(1, keepdim=True)  # a scale that is too coarse for a video has no real cell
        joined, _ = attend(query, key, value, self.heads, real)
        return joined
