"""A denoiser of a vector of scores, one a clip, given a sentence.

Shapes   B samples   T clips   D width
Source   DiffusionVMR eq. 10, 11, which are the denoiser of Jin et al., "DiffusionRet", ICCV 2023, with
         clips in place of candidate videos
"""

from typing import Literal

import torch
from torch import Tensor, nn

from momentkit.nn.masks import masked_softmax


class SetDenoiser(nn.Module):
    """The sentence looks at all clips; the noisy scores are added to what it sees.

    The last layer has no bias: it would move all clips alike, and the softmax behind it would drop it.

    Args:
        width: D.
        head: readings of eq. 11, which as printed gives one vector for all clips. "pool_concat": that vector
            beside each clip (DiffusionRet); "elementwise": each clip times its weight.
        scaled: divide the attention scores by sqrt(D), which neither source does.
    """

    def __init__(self, width: int, head: Literal["pool_concat", "elementwise"], *, scaled: bool) -> None:
        super().__init__()
        self.scale = width**-0.5 if scaled else 1.0
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.project = nn.Linear(width, width) if head == "pool_concat" else None
        inner = 2 * width if head == "pool_concat" else width
        self.decode = nn.Sequential(nn.Linear(inner, inner), nn.ReLU(), nn.Linear(inner, 1, bias=False))

    def forward(
        self, sentence_BD: Tensor, clips_BTD: Tensor, mask_BT: Tensor, noisy_BT: Tensor, step_BD: Tensor
    ) -> Tensor:
        """Logits over clips.

        Args:
            sentence_BD: one vector a sentence.
            clips_BTD, mask_BT: what it looks at.
            noisy_BT: the noisy scores; on padding any number.
            step_BD: sine code of the noise step.

        Returns:
            (B, T) float32; padding holds anything.
        """
        step_BD = self.time(step_BD)
        query_BD = self.query(sentence_BD + step_BD)  # eq. 10
        at_BTD = clips_BTD + step_BD[:, None]
        score_BT = (self.key(at_BTD) @ query_BD[..., None])[..., 0].float() * self.scale + noisy_BT
        weight_BT = masked_softmax(score_BT, mask_BT, 1)  # eq. 11
        seen_BTD = self.value(at_BTD)
        if self.project is None:
            return self.decode(weight_BT[..., None] * seen_BTD)[..., 0].float()
        context_B1D = self.project(weight_BT[:, None].to(seen_BTD) @ seen_BTD)
        beside_BTC = torch.cat([context_B1D.expand_as(clips_BTD), clips_BTD], -1)
        return self.decode(beside_BTC)[..., 0].float() + weight_BT
