"""Two parts that TR-DETR brought and LD-DETR keeps: words refine clips, and the best moment weighs them.

Shapes   B samples   T clips   L words   D width   Q queries
Source   ld_detr.md 3.6, 3.12; tr_detr.md section 1; context-query attention after VSLNet (Zhang et al. 2020)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.spans import cw_to_se
from momentkit.nn.masks import masked_softmax
from momentkit.nn.pointwise import Dropout


class VideoTextRefinement(nn.Module):
    """Each clip with its words, with the clips that share them, and with the sentence as a whole.

    Args:
        width: D.
        dropout: rate on both sides of the scores.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.clip_weight_D1 = nn.Parameter(torch.empty(width, 1))
        self.word_weight_D1 = nn.Parameter(torch.empty(width, 1))
        self.pair_weight_11D = nn.Parameter(torch.empty(1, 1, width))
        self.pool_weight_D1 = nn.Parameter(torch.empty(width, 1))
        self.join = nn.Linear(4 * width, width)
        self.out = nn.Linear(2 * width, width)
        self.dropout = Dropout(dropout)

    def forward(
        self, video_BTD: Tensor, text_BLD: Tensor, video_mask_BT: Tensor, text_mask_BL: Tensor
    ) -> Tensor:
        """(B, T, D), (B, L, D) and their masks -> (B, T, D)."""
        clips, words = self.dropout(video_BTD), self.dropout(text_BLD)
        score_BTL = (
            clips @ self.clip_weight_D1
            + (words @ self.word_weight_D1).transpose(1, 2)
            + (clips * self.pair_weight_11D) @ words.transpose(1, 2)
        )
        word_share_BTL = masked_softmax(score_BTL, text_mask_BL[:, None], 2)
        clip_share_BTL = masked_softmax(score_BTL, video_mask_BT[..., None], 1)
        words_of_clip_BTD = word_share_BTL @ text_BLD
        clips_of_clip_BTD = word_share_BTL @ (clip_share_BTL.transpose(1, 2) @ video_BTD)
        seen = [video_BTD, words_of_clip_BTD, video_BTD * words_of_clip_BTD, video_BTD * clips_of_clip_BTD]
        pool_BL1 = masked_softmax(text_BLD @ self.pool_weight_D1, text_mask_BL[..., None], 1)
        sentence_B1D = (pool_BL1 * text_BLD).sum(1, keepdim=True)
        joined = torch.cat([self.join(torch.cat(seen, -1)), sentence_B1D.expand_as(video_BTD)], -1)
        return F.relu(self.out(joined))


class MomentGate(nn.Module):
    """How alike each clip is to the best predicted moment, read by a GRU; not scaled, not normalised.

    Args:
        width: D.
        faithful: the published slice: padded clips as the time base, and a moment that begins before the
            video counts from its end (mostly: no clips at all). Otherwise it is cut to the real clips.
    """

    def __init__(self, width: int, faithful: bool) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)
        self.faithful = faithful

    def forward(self, video_BTD: Tensor, mask_BT: Tensor, logits_BQ2: Tensor, spans_cw_BQ2: Tensor) -> Tensor:
        """Clips, mask, last layer's logits and spans -> (B, T) weights of the clips."""
        moment_BD = self.moment(*self.clips_of_best(video_BTD, mask_BT, logits_BQ2, spans_cw_BQ2))
        return (video_BTD * moment_BD[:, None]).sum(-1)

    def clips_of_best(
        self, video_BTD: Tensor, mask_BT: Tensor, logits_BQ2: Tensor, spans_cw_BQ2: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, T, D) clips of the best moment in front and zeros behind, and (B,) the video's length in clips.

        The choice of the clips has no gradient, the clips have.
        """
        best_B11 = logits_BQ2.softmax(-1)[..., 0].argmax(1)[:, None, None]
        span_B2 = cw_to_se(spans_cw_BQ2.take_along_dim(best_B11, 1).squeeze(1)).detach()
        clips = mask_BT.shape[1]
        length_B = torch.full_like(mask_BT.sum(1), clips) if self.faithful else mask_BT.sum(1)
        first_B, last_B = (span_B2 * length_B[:, None]).floor().long().unbind(1)
        if self.faithful:  # Python's slice: a negative start counts from the end
            first_B = torch.where(first_B < 0, first_B + length_B, first_B)
        first_B = first_B.clamp(min=0)
        count_B = torch.minimum(last_B + 1, length_B) - first_B  # negative: none
        place_BT = torch.arange(clips, device=mask_BT.device).expand_as(mask_BT)
        index_BT = (place_BT + first_B[:, None]).clamp(max=clips - 1)
        chosen_BTD = video_BTD.take_along_dim(index_BT[..., None], 1)
        return chosen_BTD.masked_fill((place_BT >= count_B[:, None])[..., None], 0), length_B

    def moment(self, chosen_BTD: Tensor, length_B: Tensor) -> Tensor:
        """What `clips_of_best` gives -> (B, D), the GRU's last state; it steps through the zeros too."""
        steps = nn.utils.rnn.pack_padded_sequence(
            chosen_BTD, length_B.cpu(), batch_first=True, enforce_sorted=False
        )
        _, state_1BD = self.gru(steps)
        state_BD: Tensor = state_1BD.squeeze(0)
        return state_BD
