"""Blocks of the DETR family: input projection, encoder layer, cross layer, stacks of both, MLP.

Shapes   B samples   T clips or tokens of the first sequence   M of the second   D width
Source   detr_family.md 3.1, 3.4 to 3.6; parameter names below a block are the published ones
"""

from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.nn.attention import BareAttention, PackedAttention
from momentkit.nn.pointwise import Dropout


class Mlp(nn.Module):
    """Linear layers with ReLU between them and none after the last.

    Args:
        widths: input, hidden ones, output.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        pairs = pairwise(widths)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., widths[0]) -> (..., widths[-1])."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class InputProjection(nn.Module):
    """Features to the model's width: layers of norm, dropout, linear; ReLU after all but the last.

    Args:
        width_in: channels of the features.
        width: D.
        layers: how many.
        dropout: rate between norm and linear.
    """

    def __init__(self, width_in: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        widths = [width_in, *[width] * layers]
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in widths[:-1])
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width_in) -> (B, T, D)."""
        last = len(self.linears) - 1
        for index, (norm, linear) in enumerate(zip(self.norms, self.linears, strict=True)):
            x = linear(self.dropout(norm(x)))
            if index < last:
                x = F.relu(x)
        return x


class PathDrop(nn.Module):
    """Stochastic depth: a sample's whole branch is zeroed with probability `rate`, survivors are rescaled."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> the same shape."""
        if not self.training or self.rate == 0:
            return x
        keep = x.new_empty(x.shape[0], *[1] * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)


class EncoderLayer(nn.Module):
    """Post-norm self-attention and feed-forward; positions are added to queries and keys only.

    Args:
        width: D.
        heads: attention heads.
        feed_forward: hidden width.
        dropout: rate on attention weights and hidden units.
        residual: what both branches pass through before they are added: `Dropout` or `PathDrop`.
        activation: `PReLU()` (one learned slope) or `nn.ReLU()`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: int,
        dropout: float,
        residual: nn.Module,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.self_attn = PackedAttention(width, heads, dropout)
        self.linear1 = nn.Linear(width, feed_forward)
        self.linear2 = nn.Linear(feed_forward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.activation = activation
        self.dropout = Dropout(dropout)
        self.residual = residual

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D), (B, T, D), (B, T) -> (B, T, D)."""
        at = x + positions
        attended, _ = self.self_attn(at, at, x, mask)
        x = self.norm1(x + self.residual(attended))
        hidden = self.linear2(self.dropout(self.activation(self.linear1(x))))
        return self.norm2(x + self.residual(hidden))


class CrossLayer(nn.Module):
    """One sequence looks at another, which stays as it is.

    The second residual starts from the sum *before* the first norm (detr_family.md F2).

    Args:
        attention: `PackedAttention` or `BareAttention`.
        width, feed_forward, dropout, residual, activation: as in `EncoderLayer`.
    """

    def __init__(
        self,
        attention: PackedAttention | BareAttention,
        width: int,
        feed_forward: int,
        dropout: float,
        residual: nn.Module,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.self_attn = attention
        self.linear1 = nn.Linear(width, feed_forward)
        self.linear2 = nn.Linear(feed_forward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.activation = activation
        self.dropout = Dropout(dropout)
        self.residual = residual

    def forward(
        self,
        x: Tensor,
        x_positions: Tensor,
        keys: Tensor,
        values: Tensor,
        key_mask: Tensor,
        blocked: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Look from `x` at the context.

        Args:
            x, x_positions: (B, T, D).
            keys: (B, M, D), positions added.
            values: (B, V, D), V <= M (see `attend`).
            key_mask: (B, M).
            blocked: (B, H, T, M), only for the published mask order.

        Returns:
            (B, T, D) and the mean attention weights (B, T, M).
        """
        attended, weights = self.self_attn(x + x_positions, keys, values, key_mask, blocked)
        total = x + self.residual(attended)
        hidden = self.linear2(self.dropout(self.activation(self.linear1(self.norm1(total)))))
        return self.norm2(total + self.residual(hidden)), weights


def encode(layers: Iterable[nn.Module], x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    """`EncoderLayer`s one after the other: (B, T, D), (B, T, D), (B, T) -> (B, T, D)."""
    for layer in layers:
        x = layer(x, positions, mask)
    return x


def encode_behind(
    tokens: Tensor,
    token_positions: Tensor,
    layers: Iterable[nn.Module],
    x: Tensor,
    positions: Tensor,
    mask: Tensor,
) -> Tensor:
    """`encode` with K tokens in front of the sequence.

    Args:
        tokens, token_positions: (K, D) or (B, K, D); never masked.
        layers, x, positions, mask: as in `encode`.

    Returns:
        (B, K + T, D).
    """
    sequence, place = (
        torch.cat([front.expand(len(x), -1, -1), rest], 1)
        for front, rest in ((tokens, x), (token_positions, positions))
    )
    return encode(layers, sequence, place, F.pad(mask, (tokens.shape[-2], 0), value=True))


def look(
    layers: Iterable[nn.Module],
    x: Tensor,
    x_positions: Tensor,
    keys: Tensor,
    values: Tensor,
    key_mask: Tensor,
    blocked: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """`CrossLayer`s one after the other, all at the same context.

    Returns:
        (B, T, D), and each layer's attention weights (B, T, M).
    """
    maps = []
    for layer in layers:
        x, weights = layer(x, x_positions, keys, values, key_mask, blocked)
        maps.append(weights)
    return x, maps


def draw_xavier(*modules: nn.Module) -> None:
    """Redraw every parameter of two axes and more: how the family starts a transformer (detr_family.md 9)."""
    for module in modules:
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)


def released_mask(x_mask: Tensor, context_mask: Tensor, heads: int) -> Tensor:
    """The pair mask of the released code, tiled in the wrong order (detr_family.md F1); for parity only.

    Head h of sample b is blocked by the padding of sample (b * H + h) mod B.

    Args:
        x_mask: (B, T).
        context_mask: (B, M).

    Returns:
        (B, H, T, M), True = blocked.
    """
    samples = x_mask.shape[0]
    blocked_BTM = ~x_mask[:, :, None] & ~context_mask[:, None, :]
    index_BH = torch.arange(samples * heads, device=x_mask.device).view(samples, heads) % samples
    return blocked_BTM[index_BH]
