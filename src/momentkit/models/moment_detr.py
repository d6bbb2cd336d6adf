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
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Targets
from momentkit.losses.matching import Matching, match
from momentkit.losses.saliency import margin
from momentkit.losses.spans import set_terms, targets_as_fractions
from momentkit.models import family
from momentkit.nn.attention import PackedAttention
from momentkit.nn.decoder import loop
from momentkit.nn.pointwise import Dropout
from momentkit.nn.transformer import EncoderLayer, Mlp, draw_xavier, encode


@dataclass(frozen=True, kw_only=True)
class MomentDETRConfig(family.FamilyConfig):
    """Options; the defaults are the published QVHighlights run."""

    multiple_of: ClassVar[int] = 2  # queries are no spans: there is no code of two numbers

    pre_norm: bool = False  # normalise what enters a branch instead of the sum behind it
    text_positions: int = 0  # learned positions for so many words; 0 = none (published)
    task: family.Task = "moments"  # highlights: the saliency loss alone
    background: float = 0.1  # weight of an unmatched query in the label loss
    contrast: int = 0  # width in which matched queries are drawn to the words; 0 = off (published)
    temperature: float = 0.07  # of that contrast
    weight_contrast: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
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
class Stages(family.FamilyStages):
    """All that the network computes on the way."""

    place_BMd: Tensor  # positions of clips, then of words (zeros unless the option is on)
    memory_BMd: Tensor
    hidden_NBQd: Tensor

    @property
    def words_BLd(self) -> Tensor:
        """The words' part of the memory."""
        return self.memory_BMd[:, self.video_BTd.shape[1] :]


class MomentDETR(family.FamilyModel[MomentDETRConfig, Stages]):
    """The network and its losses."""

    def __init__(self, config: MomentDETRConfig) -> None:
        super().__init__(config, config.text_positions)
        c, d = config, config.hidden
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
        self.distill = self.plug_in()

    def stages(self, batch: Batch) -> Stages:
        """The whole network; see the picture at the top of the file."""
        given = self.project(batch)
        place_BMd = torch.cat([given.place_BTd, self.word_positions(given.text_BLd)], 1)
        mask_BM = torch.cat([given.mask_BT, given.mask_BL], 1)
        memory_BMd = torch.cat([given.video_BTd, given.text_BLd], 1)
        memory_BMd = encode(self.encoder, memory_BMd, place_BMd, mask_BM)
        if self.encoder_norm is not None:
            memory_BMd = self.encoder_norm(memory_BMd)
        hidden_NBQd = self._decode(memory_BMd, place_BMd, mask_BM)
        spans_cw_NBQ2 = self.span_embed(hidden_NBQd).sigmoid()
        clips_BTd = memory_BMd[:, : given.mask_BT.shape[1]]
        saliency_BT = self.saliency(clips_BTd)[..., 0] + self.saliency_bias
        answers = self.class_embed(hidden_NBQd), spans_cw_NBQ2, saliency_BT
        return Stages(given, *answers, place_BMd, memory_BMd, hidden_NBQd)

    def _decode(self, memory_BMd: Tensor, place_BMd: Tensor, mask_BM: Tensor) -> Tensor:
        keys_BMd = memory_BMd + place_BMd

        def decode(content_BQd: Tensor) -> tuple[Tensor]:
            return (self.decoder(content_BQd, self.queries, memory_BMd, keys_BMd, mask_BM),)

        content_BQd = memory_BMd.new_zeros(len(memory_BMd), *self.queries.shape)
        return loop(decode, content_BQd, self.config.decoder_loops)[0]

    def terms(self, stages: Stages, batch: Batch, targets: Targets, epoch: float) -> dict[str, Tensor]:
        """The saliency margin, set losses of every decoder layer, and the contrast."""
        c, pairs = self.config, (targets.positive_clip_BP, targets.negative_clip_BP)
        terms = {"saliency": margin(stages.saliency_BT, *pairs, c.margin)}
        if c.task == "moments":
            truth_cw = targets_as_fractions(targets.windows_clip, batch.video_mask_BT)
            answers = stages.logits_NBQ2, stages.spans_cw_NBQ2
            terms |= set_terms(*answers, truth_cw, background=c.background)
            terms |= self._contrast_terms(stages, truth_cw, batch.text_mask_BL)
        return terms

    def weights(self) -> dict[str, float]:
        """Of all terms."""
        return super().weights() | {"contrast": self.config.weight_contrast}

    def _contrast_terms(
        self, stages: Stages, truth_cw: list[Tensor], text_mask_BL: Tensor
    ) -> dict[str, Tensor]:
        """The contrast of every decoder layer; empty where the option is off."""
        if self.contrast_query is None or self.contrast_text is None:
            return {}
        query_NBQC = F.normalize(self.contrast_query(stages.hidden_NBQd), dim=-1)
        text_BLC = F.normalize(self.contrast_text(stages.words_BLd), dim=-1)
        # The published sum runs over the padding of the batch too.
        real_BL1 = self.counted(text_mask_BL)[..., None]
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
