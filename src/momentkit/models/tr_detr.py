"""TR-DETR: each task helps the other: highlights weigh the clips before moments, a moment weighs highlights.

    text  (B,L,E) -- projection ------------+----------------+
    video (B,T,D) -- projection -- refinement (words) -- cross layers -- encoder -- highlights (B,T)
                                                             |                          |
        the same encoder over: encoded + clips of the cross layers * softmax(highlights) -- memory (B,T,d)

    anchors (Q,2) -- anchor decoder over the memory -- moments (B,Q)
    best moment -- GRU -- weight of each clip -- memory, weighed -- saliency (B,T)

Source   Sun, Zhou et al., "TR-DETR: Task-Reciprocal Transformer for Joint Moment Retrieval and Highlight
         Detection", AAAI 2024, after its released code (docs/models.md). `faithful=True` brings back the
         released arithmetic on padding: cross-attention mask tiled in the wrong order; highlight softmax,
         global means and clip losses that count padding; padded length as time base of the best moment.
         Plug-ins of LD-DETR: `decoder_loops`, `distill_align`.
Shapes   B videos  T clips  L words  D, E input widths  d hidden  Q queries  N decoder layers
"""

from dataclasses import dataclass
from math import inf

import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Targets
from momentkit.losses.contrastive import info_nce
from momentkit.losses.saliency import margin_and_rank
from momentkit.models import family
from momentkit.nn.masks import masked_mean, masked_softmax
from momentkit.nn.refine import MomentGate, VideoTextRefinement
from momentkit.nn.transformer import encode


@dataclass(frozen=True, kw_only=True)
class TRDETRConfig(family.AnchorConfig):
    """Options; the defaults are the published QVHighlights run.

    Distill Align serves best in place of the two alignment losses: set their weights to 0.
    """

    temperature: float = 0.07  # of both alignment losses
    weight_global: float = 0.3  # VTC: videos and sentences of a batch find each other; 0 = off
    weight_local: float = 0.5  # CTC: relevant clips are like the sentence; 0 = off

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be positive, got {self.temperature}")


@dataclass(frozen=True)
class Stages(family.AnchorStages):
    """All that the network computes on the way."""

    refined_BTd: Tensor
    cross_BTd: Tensor
    encoded_BTd: Tensor  # after the encoder's first use
    memory_BTd: Tensor  # after its second


class TRDETR(family.AnchorModel[TRDETRConfig, Stages]):
    """The network and its losses."""

    def __init__(self, config: TRDETRConfig) -> None:
        super().__init__(config)
        c, d = config, config.hidden
        self.refine = VideoTextRefinement(d, c.dropout)
        self.cross = family.cross_stack(c, c.cross_layers)
        self.encoder = family.encoder_stack(c, c.encoder_layers)
        self.add_decoder(self.refine, self.cross, self.encoder)
        self.gate = MomentGate(d, c.faithful)
        self.saliency = nn.Linear(d, d)  # scores highlights before and after moments
        self.distill = self.plug_in()

    def stages(self, batch: Batch) -> Stages:
        """The whole network; see the picture at the top of the file."""
        given = self.project(batch)
        video_BTd, place_BTd, mask_BT, text_BLd, mask_BL = given
        refined_BTd = self.refine(video_BTd, text_BLd, mask_BT, mask_BL)
        cross_BTd = self.look_at_words(self.cross, refined_BTd, given)

        encoded_BTd = encode(self.encoder, cross_BTd, place_BTd, mask_BT)
        highlight_BT = masked_softmax(self._score(encoded_BTd), self.counted(mask_BT), 1)
        weighed_BTd = encoded_BTd + cross_BTd * highlight_BT[..., None]
        memory_BTd = encode(self.encoder, weighed_BTd, place_BTd, mask_BT)  # highlights helped moments

        decoded, logits, spans = self.decode(given, memory_BTd)
        weight_BT = self.gate(video_BTd, mask_BT, logits[-1], spans[-1])
        saliency_BT = self._score(memory_BTd * weight_BT[..., None] + memory_BTd)  # the moment helped back
        passed = refined_BTd, cross_BTd, encoded_BTd, memory_BTd
        return Stages(given, logits, spans, saliency_BT, decoded, *passed)

    def _score(self, x_BTd: Tensor) -> Tensor:
        return self.saliency(x_BTd).sum(-1) / self.config.hidden**0.5

    def terms(self, stages: Stages, batch: Batch, targets: Targets, epoch: float) -> dict[str, Tensor]:
        """Saliency, set losses of every decoder layer with a focal label loss, both alignment losses."""
        c, mask_BT = self.config, batch.video_mask_BT
        terms = {"saliency": margin_and_rank(stages.saliency_BT, targets, mask_BT, c.margin)}
        terms |= self.set_terms(stages, batch, background=None)
        if c.weight_global:
            terms["global"] = self._global_alignment(stages, batch)
        if c.weight_local:
            terms["local"] = self._local_alignment(stages, batch, targets)
        return terms

    def weights(self) -> dict[str, float]:
        """Of all terms."""
        return super().weights() | {"global": self.config.weight_global, "local": self.config.weight_local}

    def _global_alignment(self, stages: Stages, batch: Batch) -> Tensor:
        """VTC: each video finds its sentence among those of the batch, and the other way round."""
        text_Bd = self._mean(stages.text_BLd, batch.text_mask_BL)
        video_Bd = self._mean(stages.video_BTd, batch.video_mask_BT)
        return info_nce(F.normalize(text_Bd, dim=1), F.normalize(video_Bd, dim=1), self.config.temperature)

    def _mean(self, x_BNd: Tensor, mask_BN: Tensor) -> Tensor:
        return masked_mean(x_BNd, self.counted(mask_BN)[..., None], 1)

    def _local_alignment(self, stages: Stages, batch: Batch, targets: Targets) -> Tensor:
        """CTC: relevant clips are like the mean word, the others are not.

        `faithful`: padded clips count too, each as log 2.
        """
        mask_BT = batch.video_mask_BT
        words_BLd = F.normalize(stages.text_BLd, dim=-1)
        sentence_Bd = masked_mean(words_BLd, batch.text_mask_BL[..., None], 1)
        alike_BT = (F.normalize(stages.video_BTd, dim=-1) * sentence_Bd[:, None]).sum(-1) * mask_BT
        relevant_BT = relevant_clips(targets.saliency_BT, mask_BT, self.config.task).to(alike_BT)
        loss_BT = F.binary_cross_entropy_with_logits(
            alike_BT / self.config.temperature, relevant_BT, reduction="none"
        )
        return loss_BT.mean() if self.config.faithful else loss_BT[mask_BT].mean()


def relevant_clips(label_BT: Tensor, mask_BT: Tensor, task: family.Task) -> Tensor:
    """(B, T) bool: clips that the sentence is about, read off their labels.

    Moments: a label above 0. Highlights: the upper half of a video's clips; among equal labels the later.
    """
    if task == "moments":
        return (label_BT > 0) & mask_BT
    ascending_BT = label_BT.masked_fill(~mask_BT, inf).argsort(stable=True, dim=1)
    place_BT = ascending_BT.argsort(1)
    return (place_BT >= mask_BT.sum(1, keepdim=True) // 2) & mask_BT
