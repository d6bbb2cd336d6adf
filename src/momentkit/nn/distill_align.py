"""Distill Align: video and sentence vectors are aligned against a memory; slow copies soften the targets.

    video (B,T,D) -- mean -- vector --+-- dot -- candidates: slow vectors of this batch, then the memory
    slow  (B,T,D) -- mean -- vector --+-- dot -- the same; how alike they are is a share of the target

Source   LD-DETR section 3.2; ld_detr.md 3.2 to 3.4 for what the paper leaves open (learned temperature,
         candidates of this batch in front, share ramped up over the first epoch, similarity loss on pairs of
         the batch). Released faults that `faithful=True` brings back: means over padding; a batch whose size
         does not divide the memory is not remembered.
Shapes   B samples   T clips or words   D width   Q memory entries
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.types import Batch
from momentkit.nn.masks import masked_mean

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.001, 0.5


class _SoftCrossEntropy(torch.autograd.Function):
    """Mean over rows of -sum target log softmax(score), score = rows against batch and memory / temperature.

    The gradient, softmax - target, is worked out at once. So backward needs neither scores nor memory, and
    the memory may be written to, in place, before it runs: no copy of it is ever made.
    """

    @staticmethod
    def forward(
        ctx: Any, rows_BD: Tensor, temperature: Tensor, batch_BD: Tensor, memory_QD: Tensor, target: Tensor
    ) -> Tensor:
        scores = _scores(rows_BD, batch_BD, memory_QD) / temperature
        log_share = scores.log_softmax(1)
        slope = (log_share.exp() - target) / len(rows_BD)
        samples = len(batch_BD)
        to_rows = (slope[:, :samples] @ batch_BD + slope[:, samples:] @ memory_QD) / temperature
        ctx.save_for_backward(to_rows, -(slope * scores).sum() / temperature)
        return -(target * log_share).sum(1).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        to_rows, to_temperature = ctx.saved_tensors
        return gradient * to_rows, gradient * to_temperature, None, None, None


def _scores(rows_BD: Tensor, batch_BD: Tensor, memory_QD: Tensor) -> Tensor:
    """(B, B + Q) dot products with the batch, then with the memory."""
    return torch.cat([rows_BD @ batch_BD.T, rows_BD @ memory_QD.T], 1)


class DistillAlign(nn.Module):
    """The plug-in: slow copies of a host's two input projections, the memory, and two losses.

    Serves training alone: a host keeps it under the name `distill`, and what is saved for use leaves it out.

    Args:
        video_in, text_in: the host's projections of raw features; copied.
        width: D.
        memory: Q, vectors remembered of each kind; 0 = candidates of the batch alone.
        share: of the slow similarities in the target, from the second epoch on.
        momentum: share of itself that a slow copy keeps each step.
        faithful: the published arithmetic on padding and on short batches.
    """

    def __init__(
        self,
        video_in: nn.Module,
        text_in: nn.Module,
        width: int,
        memory: int,
        share: float,
        momentum: float = 0.995,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        self.share, self.momentum, self.faithful = share, momentum, faithful
        self.video_in = copy.deepcopy(video_in).requires_grad_(False)
        self.text_in = copy.deepcopy(text_in).requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self.predict = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.predict.weight)
        self.video_memory_QD: Tensor
        self.text_memory_QD: Tensor
        self.place: Tensor
        self.register_buffer("video_memory_QD", F.normalize(torch.randn(memory, width), dim=1))
        self.register_buffer("text_memory_QD", F.normalize(torch.randn(memory, width), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))  # where the next batch is written

    def forward(
        self,
        batch: Batch,
        video_in: nn.Module,
        text_in: nn.Module,
        video_BTD: Tensor,
        text_BLD: Tensor,
        epoch: float,
    ) -> tuple[Tensor, Tensor]:
        """One training step of the plug-in.

        Args:
            batch: raw features and masks.
            video_in, text_in: the host's projections, as the optimiser left them.
            video_BTD, text_BLD: what they give for this batch.
            epoch: epochs trained so far, the current one counted by its share.

        Returns:
            The alignment loss and the similarity loss, unweighted.
        """
        video_BD = self.pooled(video_BTD, batch.video_mask_BT)
        text_BD = self.pooled(text_BLD, batch.text_mask_BL)
        with torch.no_grad():
            if self.training:
                self._follow(video_in, text_in)
            slow_video_BD = self.pooled(self.video_in(batch.video_BTD), batch.video_mask_BT)
            slow_text_BD = self.pooled(self.text_in(batch.text_BLE), batch.text_mask_BL)
        # Similarities are divided by a small temperature: half precision would leave too few digits.
        with torch.autocast(video_BD.device.type, enabled=False):
            align = self.align(video_BD, text_BD, slow_video_BD, slow_text_BD, epoch)
            similarity = self.similarity(video_BD, text_BD)
        if self.training:
            self.remember(slow_video_BD, slow_text_BD)
        return align, similarity

    def pooled(self, x_BND: Tensor, mask_BN: Tensor) -> Tensor:
        """(B, N, D) -> (B, D) unit vectors of the mean, float32."""
        mask_BN = torch.ones_like(mask_BN) if self.faithful else mask_BN
        return F.normalize(masked_mean(x_BND.float(), mask_BN[..., None], 1), dim=1)

    @torch.no_grad()
    def _follow(self, video_in: nn.Module, text_in: nn.Module) -> None:
        """The slow copies move a little towards the host's projections."""
        for slow, fast in ((self.video_in, video_in), (self.text_in, text_in)):
            torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1 - self.momentum)

    def align(
        self, video_BD: Tensor, text_BD: Tensor, slow_video_BD: Tensor, slow_text_BD: Tensor, epoch: float
    ) -> Tensor:
        """Alignment loss; nothing is written but the temperature's bounds."""
        share = self.share * min(1.0, epoch)
        with torch.no_grad():
            self.temperature.clamp_(MIN_TEMPERATURE, MAX_TEMPERATURE)
        losses = []
        for fast, slow, others, memory in (
            (video_BD, slow_video_BD, slow_text_BD, self.text_memory_QD),
            (text_BD, slow_text_BD, slow_video_BD, self.video_memory_QD),
        ):
            with torch.no_grad():
                target = share * (_scores(slow, others, memory) / self.temperature).softmax(1)
                target.diagonal().add_(1 - share)
            losses.append(_SoftCrossEntropy.apply(fast, self.temperature, others, memory, target))
        total: Tensor = (losses[0] + losses[1]) / 2
        return total

    def similarity(self, video_BD: Tensor, text_BD: Tensor) -> Tensor:
        """Minus the mean cosine of a prediction from one vector and the other vector; no side is detached."""
        forth = F.cosine_similarity(self.predict(video_BD.relu()), text_BD).mean()
        back = F.cosine_similarity(self.predict(text_BD.relu()), video_BD).mean()
        return -(forth + back) / 2

    @torch.no_grad()
    def remember(self, slow_video_BD: Tensor, slow_text_BD: Tensor) -> None:
        """Write the slow vectors over the oldest of the memory, in place, around its end where need be."""
        samples, size = len(slow_video_BD), len(self.video_memory_QD)
        if size == 0 or (self.faithful and size % samples):
            return
        kept = min(samples, size)  # of a batch larger than the memory, the last vectors stay
        index = (self.place + torch.arange(samples - kept, samples, device=self.place.device)) % size
        self.video_memory_QD[index] = slow_video_BD[-kept:]
        self.text_memory_QD[index] = slow_text_BD[-kept:]
        self.place.copy_((self.place + samples) % size)
