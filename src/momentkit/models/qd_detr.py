"""QD-DETR: clips look at words before anything else, a token sums up the video, anchors become moments.

    text  (B,L,E) -- projection --------+
    video (B,T,D) -- projection -- cross layers -- [token; clips] -- encoder --+-- saliency (B,T)
    anchors (Q,2) -------------------------------------------- anchor decoder -+-- moments (B,Q)

Source   Moon et al., "Query-Dependent Video Representation for Moment Retrieval and Highlight Detection",
         CVPR 2023. `faithful=True` brings back the published cross-attention mask, tiled in the wrong order.
         Plug-ins of LD-DETR: `decoder_loops`, `distill_align`.
Shapes   B videos  T clips  L words  D, E input widths  d hidden  Q queries  N decoder layers
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from torch import Tensor, nn

from momentkit.core.config import check_sizes
from momentkit.core.types import Batch, Losses, Prediction, Targets
from momentkit.losses.saliency import against_negative
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
from momentkit.nn.pointwise import Dropout, PReLU
from momentkit.nn.positions import TextPositions, clip_positions
from momentkit.nn.transformer import CrossLayer, EncoderLayer, InputProjection, draw_xavier, released_mask


@dataclass(frozen=True, kw_only=True)
class QDDETRConfig:
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
    text_positions: int = 0  # learned positions for so many words; 0 = none (published)
    task: Literal["moments", "highlights"] = "moments"  # highlights: the saliency loss alone
    margin: float = 0.2
    background: float = 0.1  # weight of an unmatched query in the label loss
    weight_span: float = 10.0
    weight_giou: float = 1.0
    weight_label: float = 4.0
    weight_saliency: float = 1.0
    decoder_loops: int = 1  # LD-DETR's Loop Decoder
    distill_align: bool = False  # LD-DETR's Distill Align, in training
    distill_memory: int = 65_536
    distill_share: float = 0.4
    weight_align: float = 0.6
    weight_similarity: float = 0.6
    faithful: bool = False  # the published arithmetic on padding

    def __post_init__(self) -> None:
        check_sizes(self, multiple_of=4)


@dataclass(frozen=True)
class Fused:
    """Video that has looked at a sentence."""

    cross_BTd: Tensor
    global_Bd: Tensor
    memory_BTd: Tensor
    saliency_BT: Tensor


@dataclass(frozen=True)
class Stages:
    """All that the network computes on the way; what losses, predictions and parity read."""

    video_BTd: Tensor
    text_BLd: Tensor
    positions_BTd: Tensor
    place_BLd: Tensor  # of words; zeros unless the option is on
    fused: Fused
    decoded: Decoded
    logits_NBQ2: Tensor
    spans_cw_NBQ2: Tensor


class QDDETR(nn.Module):
    """The network and its losses."""

    def __init__(self, config: QDDETRConfig) -> None:
        super().__init__()
        self.config = c = config
        d = c.hidden
        self.video_in = InputProjection(c.video_dim, d, c.input_layers, c.input_dropout)
        self.text_in = InputProjection(c.text_dim, d, c.input_layers, c.input_dropout)
        self.text_positions = (
            TextPositions(c.text_positions, d, c.input_dropout) if c.text_positions else None
        )
        self.token, self.token_position = nn.Parameter(torch.randn(d)), nn.Parameter(torch.randn(d))
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
        draw_xavier(self.cross, self.encoder, self.decoder)
        self.anchors = nn.Parameter(torch.randn(c.queries, 2))  # before the sigmoid, centre and width
        self.head = SpanHead(d)
        self.saliency_clip, self.saliency_global = nn.Linear(d, d), nn.Linear(d, d)
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
        return predict_moments(stages.logits_NBQ2[-1], stages.spans_cw_NBQ2[-1], stages.fused.saliency_BT)

    def stages(self, batch: Batch) -> Stages:
        """The whole network; see the picture at the top of the file."""
        video_BTd, text_BLd = self.video_in(batch.video_BTD), self.text_in(batch.text_BLE)
        positions_BTd = clip_positions(batch.video_mask_BT, self.config.hidden)
        place_BLd = (
            torch.zeros_like(text_BLd) if self.text_positions is None else self.text_positions(text_BLd)
        )
        fused = self.fuse(
            video_BTd, positions_BTd, batch.video_mask_BT, text_BLd, place_BLd, batch.text_mask_BL
        )

        def decode(content_BQd: Tensor) -> Decoded:
            return self.decoder(
                content_BQd, fused.memory_BTd, batch.video_mask_BT, positions_BTd, self.anchors
            )

        content_BQd = video_BTd.new_zeros(len(video_BTd), self.config.queries, self.config.hidden)
        decoded = loop(decode, content_BQd, self.config.decoder_loops)
        logits_NBQ2, spans_cw_NBQ2 = self.head(decoded.hidden_NBQD, decoded.entering_NBQ2)
        return Stages(
            video_BTd, text_BLd, positions_BTd, place_BLd, fused, decoded, logits_NBQ2, spans_cw_NBQ2
        )

    def fuse(
        self,
        video_BTd: Tensor,
        positions_BTd: Tensor,
        video_mask_BT: Tensor,
        text_BLd: Tensor,
        place_BLd: Tensor,
        text_mask_BL: Tensor,
    ) -> Fused:
        """Cross layers, encoder with the token in front, saliency as the dot product with the token."""
        c = self.config
        blocked = released_mask(video_mask_BT, text_mask_BL, c.heads) if c.faithful else None
        cross_BTd, keys_BLd = video_BTd, text_BLd + place_BLd
        for layer in self.cross:
            cross_BTd, _ = layer(cross_BTd, positions_BTd, keys_BLd, text_BLd, text_mask_BL, blocked)
        samples = len(video_BTd)
        sequence = torch.cat([self.token.expand(samples, 1, -1), cross_BTd], 1)
        positions = torch.cat([self.token_position.expand(samples, 1, -1), positions_BTd], 1)
        mask = nn.functional.pad(video_mask_BT, (1, 0), value=True)
        for layer in self.encoder:
            sequence = layer(sequence, positions, mask)
        global_Bd, memory_BTd = sequence[:, 0], sequence[:, 1:]
        saliency_BT = (self.saliency_clip(memory_BTd) * self.saliency_global(global_Bd)[:, None]).sum(-1)
        return Fused(cross_BTd, global_Bd, memory_BTd, saliency_BT / c.hidden**0.5)

    def negative_pass(self, stages: Stages, batch: Batch) -> Fused:
        """Each video with the sentence of the next sample (its own where it is alone); positions stay."""
        text_BLd, mask_BL = stages.text_BLd.roll(-1, 0), batch.text_mask_BL.roll(-1, 0)
        return self.fuse(
            stages.video_BTd, stages.positions_BTd, batch.video_mask_BT, text_BLd, stages.place_BLd, mask_BL
        )

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """Set losses of every decoder layer, saliency with a negative pass, and the plug-in's two."""
        c, targets = self.config, batch.targets
        assert targets is not None
        stages = self.stages(batch)
        terms = {"saliency": self._saliency(stages, batch, targets)}
        if c.task == "moments":
            truth_cw = targets_as_fractions(targets.windows_clip, batch.video_mask_BT)
            terms |= set_terms(stages.logits_NBQ2, stages.spans_cw_NBQ2, truth_cw, background=c.background)
        if self.distill is not None:
            terms["align"], terms["similarity"] = self.distill(
                batch, self.video_in, self.text_in, stages.video_BTd, stages.text_BLd, epoch
            )
        weights = {
            "span": c.weight_span,
            "giou": c.weight_giou,
            "label": c.weight_label,
            "saliency": c.weight_saliency,
            "align": c.weight_align,
            "similarity": c.weight_similarity,
        }
        return Losses(terms, {name: weights[name.split("_")[0]] for name in terms})

    def _saliency(self, stages: Stages, batch: Batch, targets: Targets) -> Tensor:
        return against_negative(
            stages.fused.saliency_BT,
            self.negative_pass(stages, batch).saliency_BT,
            targets.saliency_BT,
            batch.video_mask_BT,
            targets.positive_clip_BP,
            targets.negative_clip_BP,
            self.config.margin,
        )
