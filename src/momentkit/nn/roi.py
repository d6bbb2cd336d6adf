"""What lies within a span of video, and what a proposal makes of it.

RoI align is written as one matrix of clip weights a span: features are weights times memory, which gives the
memory its gradient and the span none.

Shapes   B samples   T clips   N spans   R bins   D width   k inner width
         cw = centre,width, fractions of the real clips
Source   RoI align: He et al., "Mask R-CNN", ICCV 2017, in one dimension. Dynamic interaction: Sun et al.,
         "Sparse R-CNN", CVPR 2021. Offsets: Chen et al., "DiffusionDet", ICCV 2023
"""

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.spans import cw_to_se


@torch.no_grad()
def align_weights(spans_cw_BN2: Tensor, mask_BT: Tensor, bins: int) -> Tensor:
    """(B, N, R, T): each bin's middle, interpolated linearly between its two nearest clip middles.

    Empty spans and spans beyond the video need no special case: their bins fall on the nearest clip.

    Args:
        spans_cw_BN2: cut to the video.
        mask_BT: True = real.
        bins: R.
    """
    start_BN1, end_BN1, clips_B11 = _borders(spans_cw_BN2, mask_BT)
    share_R = (torch.arange(bins, device=mask_BT.device) + 0.5) / bins
    at_BNR = (start_BN1 + (end_BN1 - start_BN1) * share_R) * clips_B11 - 0.5
    at_BNR = torch.minimum(at_BNR.clamp(min=0), clips_B11 - 1)
    clip_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    return (1 - (at_BNR[..., None] - clip_T).abs()).clamp(min=0)


@torch.no_grad()
def select_weights(spans_cw_BN2: Tensor, mask_BT: Tensor) -> Tensor:
    """(B, N, 1, T): the mean of all clips that a span touches, at least one."""
    start_BN1, end_BN1, clips_B11 = _borders(spans_cw_BN2, mask_BT)
    first_BN1 = torch.minimum((start_BN1 * clips_B11).floor(), clips_B11 - 1)
    behind_BN1 = torch.minimum(torch.maximum((end_BN1 * clips_B11).ceil(), first_BN1 + 1), clips_B11)
    clip_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    inside_BNT = (clip_T >= first_BN1) & (clip_T < behind_BN1)
    return (inside_BNT / (behind_BN1 - first_BN1))[:, :, None]


def _borders(spans_cw_BN2: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Start and end of each span, (B, N, 1), inside the video, and the real clips (B, 1, 1)."""
    start_BN1, end_BN1 = cw_to_se(spans_cw_BN2.float()).clamp(0, 1).split(1, -1)
    return start_BN1, end_BN1, mask_BT.sum(1)[:, None, None].float()


class DynamicInteraction(nn.Module):
    """Each proposal makes the two matrices its own clips are filtered with (Sparse R-CNN).

    Args:
        width: D.
        inner: k.
        bins: R.
    """

    def __init__(self, width: int, inner: int, bins: int) -> None:
        super().__init__()
        self.width, self.inner = width, inner
        self.generate = nn.Linear(width, 2 * width * inner)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(inner), nn.LayerNorm(width), nn.LayerNorm(width)
        self.out = nn.Linear(bins * width, width)

    def forward(self, feature_BND: Tensor, roi_BNRD: Tensor) -> Tensor:
        """(B, N, D), (B, N, R, D) -> (B, N, D)."""
        first, second = self.generate(feature_BND).chunk(2, -1)
        seen_BNRk = F.relu(self.norm1(roi_BNRD @ first.unflatten(-1, (self.width, self.inner))))
        seen_BNRD = F.relu(self.norm2(seen_BNRk @ second.unflatten(-1, (self.inner, self.width))))
        return F.relu(self.norm3(self.out(seen_BNRD.flatten(2))))


def apply_offset(spans_cw: Tensor, offset: Tensor) -> Tensor:
    """DiffusionDet's box update: the centre moves by half widths, the width grows at most 6250 times."""
    (centre, width), (shift, growth) = spans_cw.unbind(-1), offset.unbind(-1)
    return torch.stack([centre + width * shift / 2, width * growth.clamp(max=log(100_000 / 16)).exp()], -1)
