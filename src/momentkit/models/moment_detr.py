"""Moment-DETR: clips and words in one sequence, an encoder over both, and queries that become moments.

    video (B,T,D) -- projection --+-- [clips; words] -- encoder --+-- clips -- saliency (B,T)
    text  (B,L,E) -- projection --+                               |
    queries (Q,d) ------------------------------------------ decoder -- moments (B,Q)

Source   Lei, Berg, Bansal, "QVHighlights: Detecting Moments and Highlights in Videos via Natural Language
         Queries", NeurIPS 2021. `faithful=True` brings back the published arithmetic on padding.
         Plug-ins of LD-DETR: `decoder_loops`, `distill_align`.
         Left out: spans as two distributions over clips (the published option "ce"). Its inference fails in
         the published code, so no result uses it.
Shapes   B videos  T clips  L words  M = T + L  D, E input widths  d hidden  Q queries  N decoder layers
         C contrast width
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.config import check_sizes
from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Losses, Prediction
from momentkit.losses.matching import Matching, match
from momentkit.losses.saliency import margin
from momentkit.losses.spans import set_terms, targets_as_fractions
from momentkit.nn.attention import PackedAttention
from momentkit.nn.decoder import loop, predict_moments
from momentkit.nn.distill_align import DistillAlign
from momentkit.nn.pointwise import Dropout
from momentkit.nn.positions import TextPositions, clip_positions
from momentkit.nn.transformer import EncoderLayer, InputProjection, Mlp, draw_xavier


@dataclass(frozen=True, kw_only=True)
class MomentDETRConfig:
    """Options; the defaults are the published QVHighlights run."""

    video_dim: int = 2818  # clip features with the two time channels, audio included where there is any
    text_dim: int = 512
    hidden: int = 256
    heads: int = 8
    feed_forward: int = 1024
    input_layers: int = 2
    encoder_layers: int = 2
    decoder_layers: int = 2
    queries: int = 10
    pre_norm: bool = False  # normalise what enters a branch instead of the sum behind it
    dropout: float = 0.1
    input_dropout: float = 0.5
    text_positions: int = 0  # learned positions for so many words; 0 = none (published)
    task: Literal["moments", "highlights"] = "moments"  # highlights: the saliency loss alone
    margin: float = 0.2
    background: float = 0.1  # weight of an unmatched query in the label loss
    contrast: int = 0  # width in which matched queries are drawn to the words; 0 = off (published)
    temperature: float = 0.07  # of that contrast
    weight_span: float = 10.0
    weight_giou: float = 1.0
    weight_label: float = 4.0
    weight_saliency: float = 1.0
    weight_contrast: float = 0.02
    decoder_loops: int = 1  # LD-DETR's Loop Decoder
    distill_align: bool = False  # LD-DETR's Distill Align, in training
    distill_memory: int = 65_536
    distill_share: float = 0.4
    weight_align: float = 0.6
    weight_similarity: float = 0.6
    faithful: bool = False  # the published arithmetic on padding

    def __post_init__(self) -> None:
        check_sizes(self, multiple_of=2)
        if not self.contrast >= 0:
            raise ConfigError(f"contrast must be a width, or 0 for none, got {self.contrast}")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be positive, got {self.temperature}")


class PreNormEncoderLayer(EncoderLayer):
    """The encoder layer with the norms in front of its branches."""

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B, M, d), (B, M, d), (B, M) -> (B, M, d)."""
        value = self.norm1(x)
        at = value + positions
        x = x + self.residual(self.self_attn(at, at, value, mask)[0])
        hidden = self.linear2(self.dropout(self.activation(self.linear1(self.norm2(x)))))
        return x + self.residual(hidden)


class DecoderLayer(nn.Module):
    """Queries look at each other, then at clips and words; then a feed-forward part.

    Args:
        width: d.
        heads: attention heads.
        feed_forward: hidden width.
        dropout: rate on attention weights, hidden units and the branches.
        pre_norm: norms in front of the branches, not behind the sums.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attn = PackedAttention(width, heads, dropout)
        self.multihead_attn = PackedAttention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = Dropout(dropout)

    def forward(
        self, query_BQd: Tensor, place_Qd: Tensor, memory_BMd: Tensor, keys_BMd: Tensor, mask_BM: Tensor
    ) -> Tensor:
        """Content of the queries -> the same shape.

        Args:
            query_BQd: content; what `place_Qd` is not part of.
            place_Qd: learned, what tells queries apart; added where they ask and are asked.
            memory_BMd: what they look at.
            keys_BMd: the same with positions.
            mask_BM: True = real.
        """
        everyone_BQ = mask_BM.new_ones(query_BQd.shape[:2])

        def each_other(x: Tensor) -> Tensor:
            return self.self_attn(x + place_Qd, x + place_Qd, x, everyone_BQ)[0]

        def video_and_words(x: Tensor) -> Tensor:
            return self.multihead_attn(x + place_Qd, keys_BMd, memory_BMd, mask_BM)[0]

        def feed_forward(x: Tensor) -> Tensor:
            return self.linear2(self.dropout(F.relu(self.linear1(x))))

        query_BQd = self._branch(query_BQd, self.norm1, each_other)
        query_BQd = self._branch(query_BQd, self.norm2, video_and_words)
        return self._branch(query_BQd, self.norm3, feed_forward)

    def _branch(self, x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return x + self.dropout(branch(norm(x)))
        return norm(x + self.dropout(branch(x)))


class Decoder(nn.Module):
    """Layers whose outputs are normalised for the heads; what goes on to the next layer is not."""

    def __init__(self, layers: list[DecoderLayer], width: int) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), nn.LayerNorm(width)

    def forward(
        self, query_BQd: Tensor, place_Qd: Tensor, memory_BMd: Tensor, keys_BMd: Tensor, mask_BM: Tensor
    ) -> Tensor:
        """As `DecoderLayer`; returns (N, B, Q, d)."""
        hidden = []
        for layer in self.layers:
            query_BQd = layer(query_BQd, place_Qd, memory_BMd, keys_BMd, mask_BM)
            hidden.append(self.norm(query_BQd))
        return torch.stack(hidden)


@dataclass(frozen=True)
class Stages:
    """All that the network computes on the way; what losses, predictions and parity read."""

    video_BTd: Tensor
    text_BLd: Tensor
    place_BMd: Tensor  # positions of clips, then of words (zeros unless the option is on)
    memory_BMd: Tensor
    hidden_NBQd: Tensor
    logits_NBQ2: Tensor
    spans_cw_NBQ2: Tensor
    saliency_BT: Tensor

    @property
    def words_BLd(self) -> Tensor:
        """The words' part of the memory."""
        return self.memory_BMd[:, self.video_BTd.shape[1] :]


class MomentDETR(nn.Module):
    """The network and its losses."""

    def __init__(self, config: MomentDETRConfig) -> None:
        super().__init__()
        self.config = c = config
        d = c.hidden
        self.video_in = InputProjection(c.video_dim, d, c.input_layers, c.input_dropout)
        self.text_in = InputProjection(c.text_dim, d, c.input_layers, c.input_dropout)
        self.text_positions = (
            TextPositions(c.text_positions, d, c.input_dropout) if c.text_positions else None
        )
        sizes = d, c.heads, c.feed_forward, c.dropout
        encoder_layer = PreNormEncoderLayer if c.pre_norm else EncoderLayer
        self.encoder = nn.ModuleList(
            encoder_layer(*sizes, Dropout(c.dropout), nn.ReLU()) for _ in range(c.encoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(d) if c.pre_norm else None
        self.decoder = Decoder([DecoderLayer(*sizes, c.pre_norm) for _ in range(c.decoder_layers)], d)
        draw_xavier(self.encoder, self.decoder)
        self.queries = nn.Parameter(torch.randn(c.queries, d))
        self.class_embed, self.span_embed = nn.Linear(d, 2), Mlp(d, d, d, 2)
        self.saliency = nn.Linear(d, 1, bias=False)
        # The loss sees differences of scores alone: nothing can train this number. Published weights hold it.
        self.saliency_bias: Tensor
        self.register_buffer("saliency_bias", torch.zeros(1))
        self.contrast_query = nn.Linear(d, c.contrast) if c.contrast else None
        self.contrast_text = nn.Linear(d, c.contrast) if c.contrast else None
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
        video_BTd, text_BLd = self.video_in(batch.video_BTD), self.text_in(batch.text_BLE)
        place_BTd = clip_positions(batch.video_mask_BT, self.config.hidden)
        place_BLd = (
            torch.zeros_like(text_BLd) if self.text_positions is None else self.text_positions(text_BLd)
        )
        place_BMd = torch.cat([place_BTd, place_BLd], 1)
        mask_BM = torch.cat([batch.video_mask_BT, batch.text_mask_BL], 1)
        memory_BMd = self._encode(torch.cat([video_BTd, text_BLd], 1), place_BMd, mask_BM)
        hidden_NBQd = self._decode(memory_BMd, place_BMd, mask_BM)
        return Stages(
            video_BTd,
            text_BLd,
            place_BMd,
            memory_BMd,
            hidden_NBQd,
            logits_NBQ2=self.class_embed(hidden_NBQd),
            spans_cw_NBQ2=self.span_embed(hidden_NBQd).sigmoid(),
            saliency_BT=self.saliency(memory_BMd[:, : video_BTd.shape[1]])[..., 0] + self.saliency_bias,
        )

    def _encode(self, memory_BMd: Tensor, place_BMd: Tensor, mask_BM: Tensor) -> Tensor:
        for layer in self.encoder:
            memory_BMd = layer(memory_BMd, place_BMd, mask_BM)
        return memory_BMd if self.encoder_norm is None else self.encoder_norm(memory_BMd)

    def _decode(self, memory_BMd: Tensor, place_BMd: Tensor, mask_BM: Tensor) -> Tensor:
        keys_BMd = memory_BMd + place_BMd

        def decode(content_BQd: Tensor) -> tuple[Tensor]:
            return (self.decoder(content_BQd, self.queries, memory_BMd, keys_BMd, mask_BM),)

        content_BQd = memory_BMd.new_zeros(len(memory_BMd), *self.queries.shape)
        return loop(decode, content_BQd, self.config.decoder_loops)[0]

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """Set losses of every decoder layer, the saliency margin, and the optional terms."""
        c, targets = self.config, batch.targets
        assert targets is not None
        stages = self.stages(batch)
        terms = {
            "saliency": margin(
                stages.saliency_BT, targets.positive_clip_BP, targets.negative_clip_BP, c.margin
            )
        }
        if c.task == "moments":
            truth_cw = targets_as_fractions(targets.windows_clip, batch.video_mask_BT)
            terms |= set_terms(stages.logits_NBQ2, stages.spans_cw_NBQ2, truth_cw, background=c.background)
            terms |= self._contrast_terms(stages, truth_cw, batch.text_mask_BL)
        if self.distill is not None:
            terms["align"], terms["similarity"] = self.distill(
                batch, self.video_in, self.text_in, stages.video_BTd, stages.text_BLd, epoch
            )
        weights = {
            "span": c.weight_span,
            "giou": c.weight_giou,
            "label": c.weight_label,
            "saliency": c.weight_saliency,
            "contrast": c.weight_contrast,
            "align": c.weight_align,
            "similarity": c.weight_similarity,
        }
        return Losses(terms, {name: weights[name.split("_")[0]] for name in terms})

    def _contrast_terms(
        self, stages: Stages, truth_cw: list[Tensor], text_mask_BL: Tensor
    ) -> dict[str, Tensor]:
        """The contrast of every decoder layer; empty where the option is off."""
        if self.contrast_query is None or self.contrast_text is None:
            return {}
        query_NBQC = F.normalize(self.contrast_query(stages.hidden_NBQd), dim=-1)
        text_BLC = F.normalize(self.contrast_text(stages.words_BLd), dim=-1)
        # The published sum runs over the padding of the batch too.
        real_BL1 = (torch.ones_like(text_mask_BL) if self.config.faithful else text_mask_BL)[..., None]
        sentence_BC = text_BLC.masked_fill(~real_BL1, 0).sum(1)
        terms = {}
        last = len(query_NBQC) - 1
        for index, query_BQC in enumerate(query_NBQC):
            matching = match(stages.logits_NBQ2[index], stages.spans_cw_NBQ2[index], truth_cw)
            score_BQ = torch.einsum("bqc,bc->bq", query_BQC, sentence_BC) / self.config.temperature
            terms["contrast" if index == last else f"contrast_{index}"] = contrast(score_BQ, matching)
        return terms


def contrast(score_BQ: Tensor, matching: Matching) -> Tensor:
    """Matched queries against all queries of their video: mean of logsumexp z - mean of matched z.

    A sample without a moment counts 0 (the published code divides by zero there).
    """
    matched_BQ = torch.zeros_like(score_BQ, dtype=torch.bool)
    matched_BQ[matching.sample_M, matching.query_M] = True
    count_B = matched_BQ.sum(1)
    matched_B = (score_BQ * matched_BQ).sum(1) / count_B.clamp(min=1)
    return ((score_BQ.logsumexp(1) - matched_B) * (count_B > 0)).mean()
