"""Multi-scale temporal features: a pyramid of halvings.

Shapes   B videos   T clips   d width
Source   FlashVTG section 3.3; kernel = stride, so a cell reads its own clips and nothing beside them
"""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


class Pyramid(nn.Module):
    """Level k: k halvings of the clip features, each level with its own chain.

    Args:
        d: width.
        levels: how many; level 0 is the input.
    """

    def __init__(self, d: int, levels: int) -> None:
        super().__init__()
        chains = range(levels)
        self.convs = nn.ModuleList(
            nn.ModuleList(nn.Conv1d(d, d, 2, stride=2) for _ in range(k)) for k in chains
        )
        self.norms = nn.ModuleList(nn.ModuleList(nn.LayerNorm(d) for _ in range(k)) for k in chains)

    def forward(self, x_BTd: Tensor) -> list[Tensor]:
        """(B, T, d) -> a level (B, floor(T / stride), d) for each stride not longer than T."""
        levels = []
        for k, (convs, norms) in enumerate(zip(self.convs, self.norms, strict=True)):
            if x_BTd.shape[1] < 2**k:
                break
            level = x_BTd
            for conv, norm in zip(cast(nn.ModuleList, convs), cast(nn.ModuleList, norms), strict=True):
                level = F.relu(norm(conv(level.transpose(1, 2)).transpose(1, 2)))
            levels.append(level)
        return levels
