"""Positions: the sine code on which everything positional in the DETR family is built, and the time channels.

Shapes   B videos   T clips   L words   D channels
Source   detr_family.md 3.2; Carion et al. 2020, as modified by Moment-DETR
"""

from math import log, pi

import torch
from torch import Tensor, nn

from momentkit.core.errors import FeatureError
from momentkit.nn.pointwise import Dropout


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


class TextPositions(nn.Module):
    """Learned word positions, an option of the family that is off by default.

    The result is used as an additive position although it already contains the words (detr_family.md 3.3).

    Args:
        words: most words a sentence may have.
        channels: D.
        dropout: rate on the result.
    """

    def __init__(self, words: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.position_embeddings = nn.Embedding(words, channels)
        self.LayerNorm = nn.LayerNorm(channels)
        self.dropout = Dropout(dropout)

    def forward(self, text_BLD: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D).

        Raises:
            FeatureError: a sentence longer than the table.
        """
        words, most = text_BLD.shape[1], self.position_embeddings.num_embeddings
        if words > most:
            raise FeatureError(
                f"text: a sentence has {words} word features, text positions reach {most}; "
                f"cut sentences with data.max_words, or raise the model's max_words"
            )
        return self.dropout(self.LayerNorm(text_BLD + self.position_embeddings.weight[:words]))


def step_code(time_B: Tensor, channels: int) -> Tensor:
    """(B,) noise steps -> (B, channels): sines, then cosines, at frequencies from 1 down to 1/10000."""
    half = channels // 2
    frequency = (-log(10000.0) / (half - 1) * torch.arange(half, device=time_B.device)).exp()
    angle = time_B[:, None].float() * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)
