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
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.config import check_sizes
from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Losses, Prediction, Targets
from momentkit.losses.contrastive import info_nce
from momentkit.losses.saliency import margin, rank
from momentkit.losses.spans import set_terms, targets_as_fractions
from momentkit.nn.attention import PackedAttention
from momentkit.nn.decoder import (
    AnchorDecoder,
    AnchorDecoderLayer,
    Decoded,
    SpanHead,
    loop,
    predict_moments,
)
from momentkit.nn.distill_align import DistillAlign
from momentkit.nn.masks import masked_mean, masked_softmax
from momentkit.nn.pointwise import Dropout, PReLU
from momentkit.nn.positions import clip_positions
from momentkit.nn.refine import MomentGate, VideoTextRefinement
from momentkit.nn.transformer import CrossLayer, EncoderLayer, InputProjection, draw_xavier, released_mask


@dataclass(frozen=True, kw_only=True)
class TRDETRConfig:
    """Options; the defaults are the published QVHighlights run."""

    video_dim: int = 2818  # clip features with the two time channels, audio included where there is any
    text_dim: int = 512
    hidden: int = 256
    heads: int = 8
    feed_forward: int = 1024
    input_layers: int = 2
    cross_layers: int = 2
    encoder_layers: int = 2
    decoder_layers: int = 2
    queries: int = 10
    dropout: float = 0.1
    input_dropout: float = 0.5
    task: Literal["moments", "highlights"] = "moments"  # highlights: without the losses of moments
    margin: float = 0.2
    temperature: float = 0.07  # of both alignment losses
    weight_span: float = 10.0
    weight_giou: float = 1.0
    weight_label: float = 4.0
    weight_saliency: float = 1.0
    weight_global: float = 0.3  # VTC: videos and sentences of a batch find each other; 0 = off
    weight_local: float = 0.5  # CTC: relevant clips are like the sentence; 0 = off
    decoder_loops: int = 1  # LD-DETR's Loop Decoder
    # LD-DETR's Distill Align, in training; best in place of the two alignment losses: set their weights to 0.
    distill_align: bool = False
    distill_memory: int = 65_536
    distill_share: float = 0.4
    weight_align: float = 0.6
    weight_similarity: float = 0.6
    faithful: bool = False  # the released arithmetic on padding

    def __post_init__(self) -> None:
        check_sizes(self, multiple_of=4)
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be positive, got {self.temperature}")


@dataclass(frozen=True)
class Stages:
    """All that the network computes on the way; what losses, predictions and parity read."""

    video_BTd: Tensor
    text_BLd: Tensor
    positions_BTd: Tensor
    refined_BTd: Tensor
    cross_BTd: Tensor
    encoded_BTd: Tensor  # after the encoder's first use
    memory_BTd: Tensor  # after its second
    decoded: Decoded
    logits_NBQ2: Tensor
    spans_cw_NBQ2: Tensor
    saliency_BT: Tensor


class TRDETR(nn.Module):
    """The network and its losses."""

    def __init__(self, config: TRDETRConfig) -> None:
        super().__init__()
        self.config = c = config
        d = c.hidden
        self.video_in = InputProjection(c.video_dim, d, c.input_layers, c.input_dropout)
        self.text_in = InputProjection(c.text_dim, d, c.input_layers, c.input_dropout)
        self.refine = VideoTextRefinement(d, c.dropout)
        sizes = d, c.heads, c.feed_forward, c.dropout
        self.cross = nn.ModuleList(
            CrossLayer(PackedAttention(d, c.heads, c.dropout), d, *sizes[2:], Dropout(c.dropout), PReLU())
            for _ in range(c.cross_layers)
        )
        self.encoder = nn.ModuleList(
            EncoderLayer(*sizes, Dropout(c.dropout), PReLU()) for _ in range(c.encoder_layers)
        )
        self.decoder = AnchorDecoder(
            [
                AnchorDecoderLayer(*sizes, Dropout(c.dropout), PReLU(), first=index == 0)
                for index in range(c.decoder_layers)
            ],
            d,
        )
        draw_xavier(self.refine, self.cross, self.encoder, self.decoder)
        self.anchors = nn.Parameter(torch.randn(c.queries, 2))  # before the sigmoid, centre and width
        self.head = SpanHead(d)
        self.gate = MomentGate(d, c.faithful)
        self.saliency = nn.Linear(
            d, d
        )  # its channels are added up; scores highlights before and after moments
        self.distill = (
            DistillAlign(
                self.video_in, self.text_in, d, c.distill_memory, c.distill_share, faithful=c.faithful
            )
            if c.distill_align
            else None
        )

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Prediction:
        """Moments as fractions, and saliency; nothing here is random, `generator` is unused."""
        stages = self.stages(batch)
        return predict_moments(stages.logits_NBQ2[-1], stages.spans_cw_NBQ2[-1], stages.saliency_BT)

    def stages(self, batch: Batch) -> Stages:
        """The whole network; see the picture at the top of the file."""
        c, mask_BT = self.config, batch.video_mask_BT
        video_BTd, text_BLd = self.video_in(batch.video_BTD), self.text_in(batch.text_BLE)
        positions_BTd = clip_positions(mask_BT, c.hidden)
        refined_BTd = self.refine(video_BTd, text_BLd, mask_BT, batch.text_mask_BL)
        cross_BTd = self._look_at_words(refined_BTd, positions_BTd, text_BLd, batch)

        encoded_BTd = self._encode(cross_BTd, positions_BTd, mask_BT)
        counted_BT = torch.ones_like(mask_BT) if c.faithful else mask_BT
        highlight_BT = masked_softmax(self._score(encoded_BTd), counted_BT, 1)
        weighed_BTd = encoded_BTd + cross_BTd * highlight_BT[..., None]
        memory_BTd = self._encode(weighed_BTd, positions_BTd, mask_BT)  # highlights helped moments

        def decode(content_BQd: Tensor) -> Decoded:
            return self.decoder(content_BQd, memory_BTd, mask_BT, positions_BTd, self.anchors)

        content_BQd = video_BTd.new_zeros(len(video_BTd), c.queries, c.hidden)
        decoded = loop(decode, content_BQd, c.decoder_loops)
        logits_NBQ2, spans_cw_NBQ2 = self.head(decoded.hidden_NBQD, decoded.entering_NBQ2)
        weight_BT = self.gate(video_BTd, mask_BT, logits_NBQ2[-1], spans_cw_NBQ2[-1])
        saliency_BT = self._score(memory_BTd * weight_BT[..., None] + memory_BTd)  # the moment helped back
        return Stages(
            video_BTd,
            text_BLd,
            positions_BTd,
            refined_BTd,
            cross_BTd,
            encoded_BTd,
            memory_BTd,
            decoded,
            logits_NBQ2,
            spans_cw_NBQ2,
            saliency_BT,
        )

    def _look_at_words(
        self, refined_BTd: Tensor, positions_BTd: Tensor, text_BLd: Tensor, batch: Batch
    ) -> Tensor:
        c, mask_BL = self.config, batch.text_mask_BL
        blocked = released_mask(batch.video_mask_BT, mask_BL, c.heads) if c.faithful else None
        cross_BTd = refined_BTd
        for layer in self.cross:
            cross_BTd, _ = layer(cross_BTd, positions_BTd, text_BLd, text_BLd, mask_BL, blocked)
        return cross_BTd

    def _encode(self, x_BTd: Tensor, positions_BTd: Tensor, mask_BT: Tensor) -> Tensor:
        for layer in self.encoder:
            x_BTd = layer(x_BTd, positions_BTd, mask_BT)
        return x_BTd

    def _score(self, x_BTd: Tensor) -> Tensor:
        return self.saliency(x_BTd).sum(-1) / self.config.hidden**0.5

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """Set losses of every decoder layer, saliency, the two alignment losses, and the plug-in's two."""
        c, targets = self.config, batch.targets
        assert targets is not None
        stages = self.stages(batch)
        pairs = targets.positive_clip_BP, targets.negative_clip_BP
        terms = {
            "saliency": margin(stages.saliency_BT, *pairs, c.margin)
            + rank(stages.saliency_BT, targets.saliency_BT, batch.video_mask_BT)
        }
        if c.task == "moments":
            truth_cw = targets_as_fractions(targets.windows_clip, batch.video_mask_BT)
            terms |= set_terms(stages.logits_NBQ2, stages.spans_cw_NBQ2, truth_cw, background=None)
        if c.weight_global:
            terms["global"] = self._global_alignment(stages, batch)
        if c.weight_local:
            terms["local"] = self._local_alignment(stages, batch, targets)
        if self.distill is not None:
            terms["align"], terms["similarity"] = self.distill(
                batch, self.video_in, self.text_in, stages.video_BTd, stages.text_BLd, epoch
            )
        weights = {
            "span": c.weight_span,
            "giou": c.weight_giou,
            "label": c.weight_label,
            "saliency": c.weight_saliency,
            "global": c.weight_global,
            "local": c.weight_local,
            "align": c.weight_align,
            "similarity": c.weight_similarity,
        }
        return Losses(terms, {name: weights[name.split("_")[0]] for name in terms})

    def _global_alignment(self, stages: Stages, batch: Batch) -> Tensor:
        """VTC: each video finds its sentence among those of the batch, and the other way round."""
        text_Bd = self._mean(stages.text_BLd, batch.text_mask_BL)
        video_Bd = self._mean(stages.video_BTd, batch.video_mask_BT)
        return info_nce(F.normalize(text_Bd, dim=1), F.normalize(video_Bd, dim=1), self.config.temperature)

    def _mean(self, x_BNd: Tensor, mask_BN: Tensor) -> Tensor:
        mask_BN = torch.ones_like(mask_BN) if self.config.faithful else mask_BN
        return masked_mean(x_BNd, mask_BN[..., None], 1)

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


def relevant_clips(label_BT: Tensor, mask_BT: Tensor, task: Literal["moments", "highlights"]) -> Tensor:
    """(B, T) bool: clips that the sentence is about, read off their labels.

    Moments: a label above 0. Highlights: the upper half of a video's clips; among equal labels the later.
    """
    if task == "moments":
        return (label_BT > 0) & mask_BT
    ascending_BT = label_BT.masked_fill(~mask_BT, torch.inf).argsort(stable=True, dim=1)
    place_BT = ascending_BT.argsort(1)
    return (place_BT >= mask_BT.sum(1, keepdim=True) // 2) & mask_BT
