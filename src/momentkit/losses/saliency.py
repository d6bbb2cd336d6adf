"""Losses on clip scores that the DETR family shares.

Shapes   B samples   X clips (or clips of two passes side by side)   P pairs
Source   detr_family.md 4.4 to 4.6; divergence: diffusion_vmr.md 7
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from momentkit.core.types import Batch, Targets

RANKS = 11  # graded labels go from 0 to 12; ranks 1 to 11 are contrasted and the sum is divided by 12


def margin(score_BX: Tensor, positive_BP: Tensor, negative_BP: Tensor, delta: float = 0.2) -> Tensor:
    """A positive clip scores above a negative one by `delta`: 2 mean max(0, delta + s_neg - s_pos)."""
    gap_BP = delta + score_BX.gather(1, negative_BP) - score_BX.gather(1, positive_BP)
    return 2 * gap_BP.clamp(min=0).mean()


def rank(score_BX: Tensor, label_BX: Tensor, mask_BX: Tensor, temperature: float = 0.5) -> Tensor:
    """Rank-aware contrast: at each rank r, clips with label >= r against all clips of the sample.

    Args:
        score_BX: clip scores.
        label_BX: 0..12, or 0/1 (then only rank 1 acts, and the factor 1/12 stays, as published).
        mask_BX: True = real.

    Returns:
        Scalar: sum over ranks of the mean over samples, / 12.
    """
    if score_BX.shape[0] == 0:
        return score_BX.sum()
    logit_BX = torch.where(mask_BX, score_BX, -1000.0) / temperature
    logit_BX = logit_BX - logit_BX.amax(1, keepdim=True).detach()
    log_share_BX = logit_BX - (logit_BX.exp().sum(1, keepdim=True) + 1e-6).log()
    ranks_R = torch.arange(1, RANKS + 1, device=score_BX.device)
    positive_RBX = label_BX >= ranks_R[:, None, None]
    total_RB = (log_share_BX * (positive_RBX & mask_BX)).sum(2)
    return (-total_RB / (positive_RBX.sum(2) + 1e-6)).mean(1).sum() / (RANKS + 1)


def margin_and_rank(score_BT: Tensor, targets: Targets, mask_BT: Tensor, delta: float) -> Tensor:
    """Both of the above, on the clips of one pass."""
    gap = margin(score_BT, targets.positive_clip_BP, targets.negative_clip_BP, delta)
    return gap + rank(score_BT, targets.saliency_BT, mask_BT)


def negative_pair(score_BX: Tensor, mask_BX: Tensor) -> Tensor:
    """Clips of a video with a sentence of another one score low: mean over samples of the sum over clips."""
    return (F.softplus(score_BX) * mask_BX).sum(1).mean()


def against_negative(
    score_BT: Tensor, negative_BT: Tensor, targets: Targets, mask_BT: Tensor, delta: float
) -> Tensor:
    """Margin, rank over the clips of both passes, and the negative pair.

    Args:
        score_BT: clip scores with the right sentence.
        negative_BT: with a sentence of another video.
        targets: labels, and clips of the margin.
        mask_BT: True = real.
        delta: of the margin.
    """
    both, label_BT = torch.cat([score_BT, negative_BT], 1), targets.saliency_BT
    return (
        margin(score_BT, targets.positive_clip_BP, targets.negative_clip_BP, delta)
        + rank(both, F.pad(label_BT, (0, label_BT.shape[1])), mask_BT.repeat(1, 2))
        + negative_pair(negative_BT, mask_BT)
    )


def real_negatives(batch: Batch) -> tuple[Tensor, Tensor]:
    """Which samples' next sample is of another video (B,), and the rows (R,) of the sentences they get."""
    samples = len(batch.video_BTD)
    keys = batch.video_keys or tuple(map(str, range(samples)))
    differ = [key != other for key, other in zip(keys, keys[1:] + keys[:1], strict=True)]
    real_B = torch.tensor(differ, device=batch.video_BTD.device)
    return real_B, (real_B.nonzero()[:, 0] + 1) % samples


def against_real(
    score_BT: Tensor,
    negative_RT: Tensor | None,
    real_B: Tensor,
    targets: Targets,
    mask_BT: Tensor,
    delta: float,
    rank_false: bool,
) -> Tensor:
    """Margin, and rank with the negative pass beside the positive one where the negative is real.

    Args:
        score_BT: clip scores with the right sentence.
        negative_RT: with a sentence of another video, of the samples that have one; None = none has.
        real_B: which these are.
        targets, mask_BT, delta: as above.
        rank_false: whether the others are ranked by themselves.
    """
    if negative_RT is None:
        return margin_and_rank(score_BT, targets, mask_BT, delta)
    label_BT = targets.saliency_BT
    loss = margin(score_BT, targets.positive_clip_BP, targets.negative_clip_BP, delta) + rank(
        torch.cat([score_BT[real_B], negative_RT], 1),
        F.pad(label_BT[real_B], (0, negative_RT.shape[1])),
        mask_BT[real_B].repeat(1, 2),
    )
    return loss + rank(score_BT[~real_B], label_BT[~real_B], mask_BT[~real_B]) if rank_false else loss


def share_cross_entropy(share: Tensor, label: Tensor) -> Tensor:
    """Mean binary cross entropy of shares in [0, 1].

    Torch's own refuses mixed precision, and its gradient at a share of exactly 0 or 1 is of the order 1e12.
    """
    smallest = torch.finfo(torch.float32).tiny
    log, log_rest = (part.float().clamp(min=smallest).log() for part in (share, 1 - share))
    return -(label * log + (1 - label) * log_rest).mean()


def divergence(logits_BX: Tensor, label_BX: Tensor, mask_BX: Tensor) -> Tensor:
    """KL(p || q): p = labels over their sum, q = softmax of the logits over real clips.

    Mean over the samples that have a label; 0 where none has.
    """
    total_B1 = label_BX.sum(1, keepdim=True)
    p_BX = label_BX / total_B1.clamp(min=1e-6)
    log_q_BX = logits_BX.masked_fill(~mask_BX, -torch.inf).log_softmax(1).masked_fill(~mask_BX, 0)
    each_B = (torch.xlogy(p_BX, p_BX) - p_BX * log_q_BX).sum(1)
    return each_B.sum() / (total_B1 > 0).sum().clamp(min=1)


def median_pair(label_BX: Tensor, mask_BX: Tensor, noise_BX: Tensor) -> tuple[Tensor, Tensor]:
    """A random clip above its video's median label and a random other one, for sets without moments.

    Where no label exceeds the median, those that reach it count as above; where all labels are alike, both
    are the same clip and the pair teaches nothing.

    Args:
        label_BX, mask_BX: as above.
        noise_BX: the largest number decides.

    Returns:
        (B, 1) twice.
    """
    median_B1 = label_BX.masked_fill(~mask_BX, torch.nan).nanmedian(1, keepdim=True).values
    above_BX = mask_BX & (label_BX > median_B1)
    above_BX = torch.where(above_BX.any(1, keepdim=True), above_BX, mask_BX & (label_BX >= median_B1))
    below_BX = mask_BX & ~above_BX
    positive_B1, other_B1 = (
        noise_BX.masked_fill(~side_BX, -torch.inf).argmax(1, keepdim=True) for side_BX in (above_BX, below_BX)
    )
    return positive_B1, torch.where(below_BX.any(1, keepdim=True), other_B1, positive_B1)
