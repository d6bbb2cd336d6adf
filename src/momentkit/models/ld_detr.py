"""LD-DETR: aligned by distillation, fused with convolutions, decoded in loops.

    text  (B,L,E) -- projection --+-- Distill Align (training)
    video (B,T,D) -- projection --+-- fuser: V2T, T2V, encoder 1, convolutions, encoder 2 -- memory
    anchors (Q,2) -- loops of the anchor decoder over the memory -- moments (B,Q)
    best moment -- GRU -- weight of each clip -- memory, weighed -- saliency (B,T)

Source   "LD-DETR: Loop Decoder DEtection TRansformer", eq. 1-41, and the released code where the paper is
         silent or differs (docs/models.md). `faithful=True` brings back the released arithmetic on padding:
         cross-attention mask tiled in the wrong order; convolutions, batch statistics and global means that
         read padding; padded length as time base of the highlight head; short batches not remembered.
         The released decoder returns within its first pass: `decoder_loops=1`.
Shapes   B videos  T clips  L words  D, E input widths  d hidden  Q queries  N decoder layers  R real clips
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.config import check_sizes
from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Losses, Prediction
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
from momentkit.nn.pointwise import Dropout, PReLU
from momentkit.nn.positions import clip_positions
from momentkit.nn.refine import MomentGate, VideoTextRefinement
from momentkit.nn.transformer import CrossLayer, EncoderLayer, InputProjection, draw_xavier, released_mask

Part = Literal["v2t", "t2v", "encoder1", "conv", "encoder2"]


@dataclass(frozen=True, kw_only=True)
class LDDETRConfig:
    """Options; the defaults are the published QVHighlights run, with loops that loop."""

    video_dim: int = 2818  # clip features with the two time channels, audio included where there is any
    text_dim: int = 512
    hidden: int = 256
    heads: int = 8
    feed_forward: int = 1024
    input_layers: int = 2
    # What fuses video and text, in this order; a part may be left out or moved (tables 8 and 9).
    fuser: tuple[Part, ...] = ("v2t", "t2v", "encoder1", "conv", "encoder2")
    cross_layers: int = 2  # of "t2v"
    encoder_layers: int = 2  # of "encoder1", and of "encoder2"
    conv_blocks: int = 5  # residual blocks of "conv" (table 7)
    block_convolutions: int = 2  # of each residual block; 1 for the table's single convolution
    decoder_layers: int = 2
    decoder_loops: int = 3  # N of eq. 30; 1 = as released
    queries: int = 10
    dropout: float = 0.1
    input_dropout: float = 0.5
    task: Literal["moments", "highlights"] = "moments"  # highlights: the saliency loss alone
    margin: float = 0.2
    weight_span: float = 10.0
    weight_giou: float = 1.0
    weight_label: float = 4.0
    weight_saliency: float = 1.0
    distill_align: bool = True  # in training
    distill_memory: int = 65_536  # l of eq. 3
    distill_share: float = 0.4  # alpha of eq. 5
    weight_align: float = 0.6
    weight_similarity: float = 0.6
    faithful: bool = False  # the released arithmetic on padding
    tiled_mask: bool = True  # False: of these faults, all but the cross-attention mask

    def __post_init__(self) -> None:
        check_sizes(self, multiple_of=4)
        if len(set(self.fuser)) != len(self.fuser) or not {"v2t", "t2v"} & set(self.fuser):
            raise ConfigError(
                f"fuser lists its parts in order, each once, with v2t or t2v among them (no other part reads "
                f"the text), got {list(self.fuser)}"
            )
        for name in ("conv_blocks", "block_convolutions"):
            if not getattr(self, name) >= 1:
                raise ConfigError(
                    f"{name} must be at least 1, got {getattr(self, name)}; for none, leave conv out of fuser"
                )


@dataclass(frozen=True)
class Stages:
    """All that the network computes on the way; what losses, predictions and parity read."""

    video_BTd: Tensor
    text_BLd: Tensor
    positions_BTd: Tensor
    fused: Mapping[Part, Tensor]  # (B,T,d) after each part of the fuser
    decoded: Decoded
    logits_NBQ2: Tensor
    spans_cw_NBQ2: Tensor
    weight_BT: Tensor  # of each clip, from the best moment
    saliency_BT: Tensor


class ResidualBlock(nn.Module):
    """Convolutions over clips with batch norm, added to what they read (eq. 26).

    Padding is zero before each convolution and no part of the batch statistics; `faithful`: it is both.
    """

    def __init__(self, width: int, convolutions: int, faithful: bool) -> None:
        super().__init__()
        self.faithful = faithful
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(convolutions))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(convolutions))

    def forward(self, x_BTd: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, T, d), (B, T) -> (B, T, d)."""
        mask_BT = torch.ones_like(mask_BT) if self.faithful else mask_BT
        y_BTd = x_BTd
        last = len(self.convs) - 1
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y_BTd = conv(y_BTd.masked_fill(~mask_BT[..., None], 0).transpose(1, 2)).transpose(1, 2)
            y_BTd = _batch_norm(norm, y_BTd, mask_BT)
            y_BTd = F.relu(y_BTd + x_BTd if index == last else y_BTd)
        return y_BTd


def _batch_norm(norm: nn.Module, x_BTd: Tensor, mask_BT: Tensor) -> Tensor:
    """Batch norm over real clips; padding stays as it is."""
    real_Rd = x_BTd[mask_BT]
    if norm.training and len(real_Rd) == 1:  # one clip has no variance: nothing to normalise by, or to learn
        return x_BTd
    return x_BTd.masked_scatter(mask_BT[..., None], norm(real_Rd).to(x_BTd.dtype))


class LDDETR(nn.Module):
    """The network and its losses."""

    def __init__(self, config: LDDETRConfig) -> None:
        super().__init__()
        self.config = c = config
        d = c.hidden
        self.video_in = InputProjection(c.video_dim, d, c.input_layers, c.input_dropout)
        self.text_in = InputProjection(c.text_dim, d, c.input_layers, c.input_dropout)
        self.fuser = nn.ModuleDict({part: self._part(part) for part in c.fuser})
        sizes = d, c.heads, c.feed_forward, c.dropout
        self.decoder = AnchorDecoder(
            [
                AnchorDecoderLayer(*sizes, Dropout(c.dropout), PReLU(), first=index == 0)
                for index in range(c.decoder_layers)
            ],
            d,
        )
        draw_xavier(*(module for part, module in self.fuser.items() if part != "conv"), self.decoder)
        self.anchors = nn.Parameter(torch.randn(c.queries, 2))  # before the sigmoid, centre and width
        self.head = SpanHead(d)
        self.gate = MomentGate(d, c.faithful)
        self.saliency = nn.Linear(d, d)
        self.distill = (
            DistillAlign(
                self.video_in, self.text_in, d, c.distill_memory, c.distill_share, faithful=c.faithful
            )
            if c.distill_align and c.task == "moments"
            else None
        )

    def _part(self, part: Part) -> nn.Module:
        c, d = self.config, self.config.hidden
        if part == "v2t":
            return VideoTextRefinement(d, c.dropout)
        if part == "conv":
            return nn.ModuleList(
                ResidualBlock(d, c.block_convolutions, c.faithful) for _ in range(c.conv_blocks)
            )
        if part == "t2v":
            return nn.ModuleList(
                CrossLayer(
                    PackedAttention(d, c.heads, c.dropout),
                    d,
                    c.feed_forward,
                    c.dropout,
                    Dropout(c.dropout),
                    PReLU(),
                )
                for _ in range(c.cross_layers)
            )
        return nn.ModuleList(
            EncoderLayer(d, c.heads, c.feed_forward, c.dropout, Dropout(c.dropout), PReLU())
            for _ in range(c.encoder_layers)
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
        fused = self._fuse(video_BTd, positions_BTd, text_BLd, batch)
        memory_BTd = fused[c.fuser[-1]]

        def decode(content_BQd: Tensor) -> Decoded:
            return self.decoder(content_BQd, memory_BTd, mask_BT, positions_BTd, self.anchors)

        content_BQd = video_BTd.new_zeros(len(video_BTd), c.queries, c.hidden)  # eq. 29
        decoded = loop(decode, content_BQd, c.decoder_loops)  # eq. 30, 31
        logits_NBQ2, spans_cw_NBQ2 = self.head(decoded.hidden_NBQD, decoded.entering_NBQ2)  # eq. 32, 33
        weight_BT = self.gate(video_BTd, mask_BT, logits_NBQ2[-1], spans_cw_NBQ2[-1])  # eq. 34-36
        weighed_BTd = memory_BTd * weight_BT[..., None] + memory_BTd
        saliency_BT = self.saliency(weighed_BTd).sum(-1) / c.hidden**0.5  # eq. 37, 38; the paper divides by d
        return Stages(
            video_BTd,
            text_BLd,
            positions_BTd,
            fused,
            decoded,
            logits_NBQ2,
            spans_cw_NBQ2,
            weight_BT,
            saliency_BT,
        )

    def _fuse(
        self, video_BTd: Tensor, positions_BTd: Tensor, text_BLd: Tensor, batch: Batch
    ) -> dict[Part, Tensor]:
        """Convolutional Fuser (eq. 9-28): what each part makes of the one before, in the configured order."""
        c, mask_BT, text_mask_BL = self.config, batch.video_mask_BT, batch.text_mask_BL
        blocked = released_mask(mask_BT, text_mask_BL, c.heads) if c.faithful and c.tiled_mask else None
        x_BTd, after = video_BTd, {}
        for part in c.fuser:
            module = self.fuser[part]
            if isinstance(module, VideoTextRefinement):
                x_BTd = module(x_BTd, text_BLd, mask_BT, text_mask_BL)
            else:
                for layer in module:  # type: ignore[attr-defined]
                    if part == "t2v":
                        x_BTd, _ = layer(x_BTd, positions_BTd, text_BLd, text_BLd, text_mask_BL, blocked)
                    elif part == "conv":
                        x_BTd = layer(x_BTd, mask_BT)
                    else:
                        x_BTd = layer(x_BTd, positions_BTd, mask_BT)
            after[part] = x_BTd
        return after

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """Set losses of every decoder layer of the last loop, saliency, and Distill Align's two."""
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
            # The label loss is focal: the paper says cross entropy.
            terms |= set_terms(stages.logits_NBQ2, stages.spans_cw_NBQ2, truth_cw, background=None)
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
