"""The anchor decoder of the DETR family: queries that carry a span and refine it layer by layer.

Shapes   B samples   N layers   Q queries   T memory entries   D width      cw = centre,width
Source   detr_family.md 3.7 to 3.9 (DAB-DETR as modified by QD-DETR); loops: LD-DETR section 3.5.
         Parameter names are the published ones.
"""

from collections.abc import Callable, Sequence
from math import pi
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from momentkit.core.spans import cw_to_se
from momentkit.core.types import Prediction
from momentkit.nn.attention import BareAttention
from momentkit.nn.pointwise import Dropout
from momentkit.nn.positions import sine
from momentkit.nn.transformer import Mlp

T = TypeVar("T", bound=tuple[Tensor, ...])


def logit(fraction: Tensor) -> Tensor:
    """Inverse sigmoid of numbers in [0, 1], bounded to +-6.907 (detr_family.md 1)."""
    fraction = fraction.clamp(0, 1)
    return (fraction.clamp(min=1e-3) / (1 - fraction).clamp(min=1e-3)).log()


def span_positions(spans: Tensor, channels: int) -> Tensor:
    """(..., 2) fractions -> (..., channels): half the channels for the first number, half for the second."""
    return sine(2 * pi * spans, channels // 2).flatten(-2)


class Decoded(NamedTuple):
    """What a decoder gives.

    Attributes:
        hidden_NBQD: normalised query features of each layer.
        entering_NBQ2: the anchor each layer was given, cw.
        leaving_NBQ2: the anchor each layer made of it, cw.
    """

    hidden_NBQD: Tensor
    entering_NBQ2: Tensor
    leaving_NBQ2: Tensor


class AnchorDecoderLayer(nn.Module):
    """Queries look at each other, then at the memory with their anchor's position; then a feed-forward part.

    Args:
        width: D.
        heads: attention heads.
        feed_forward: hidden width.
        dropout: rate on attention weights and hidden units.
        residual: what each branch passes through before it is added: `Dropout` or `PathDrop`.
        activation: of the feed-forward part.
        first: the first layer adds learned positions to content when it looks at the memory.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: int,
        dropout: float,
        residual: nn.Module,
        activation: nn.Module,
        first: bool,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.sa_qcontent_proj, self.sa_qpos_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.sa_kcontent_proj, self.sa_kpos_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.sa_v_proj = nn.Linear(width, width)
        self.self_attn = BareAttention(width, heads, dropout)
        self.ca_qcontent_proj, self.ca_qpos_sine_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.ca_kcontent_proj, self.ca_kpos_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.ca_v_proj = nn.Linear(width, width)
        self.ca_qpos_proj = nn.Linear(width, width) if first else None
        self.cross_attn = BareAttention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.activation, self.dropout, self.residual = activation, Dropout(dropout), residual

    def forward(
        self,
        query_BQD: Tensor,
        memory_BTD: Tensor,
        memory_mask_BT: Tensor,
        memory_positions_BTD: Tensor,
        anchor_BQD: Tensor,
        sine_BQD: Tensor,
    ) -> Tensor:
        """(B, Q, D) queries -> the same shape.

        Args:
            query_BQD: content of the queries.
            memory_BTD, memory_mask_BT, memory_positions_BTD: what they look at.
            anchor_BQD: learned code of the anchor, for looking at each other.
            sine_BQD: modulated sine code of the anchor, for looking at the memory.
        """
        queries = self.sa_qcontent_proj(query_BQD) + self.sa_qpos_proj(anchor_BQD)
        keys = self.sa_kcontent_proj(query_BQD) + self.sa_kpos_proj(anchor_BQD)
        everyone = torch.ones(query_BQD.shape[:2], dtype=torch.bool, device=query_BQD.device)
        seen, _ = self.self_attn(queries, keys, self.sa_v_proj(query_BQD), everyone)
        query_BQD = self.norm1(query_BQD + self.residual(seen))

        content = self.ca_qcontent_proj(query_BQD)
        memory = self.ca_kcontent_proj(memory_BTD)
        place = self.ca_kpos_proj(memory_positions_BTD)
        if self.ca_qpos_proj is not None:
            content, memory = content + self.ca_qpos_proj(anchor_BQD), memory + place
        seen, _ = self.cross_attn(
            self._beside(content, self.ca_qpos_sine_proj(sine_BQD)),
            self._beside(memory, place),
            self.ca_v_proj(memory_BTD),
            memory_mask_BT,
        )
        query_BQD = self.norm2(query_BQD + self.residual(seen))
        hidden = self.linear2(self.dropout(self.activation(self.linear1(query_BQD))))
        return self.norm3(query_BQD + self.residual(hidden))

    def _beside(self, content: Tensor, place: Tensor) -> Tensor:
        """(B, N, D) twice -> (B, N, 2D), content and place side by side within each head."""
        parts = [x.unflatten(-1, (self.heads, -1)) for x in (content, place)]
        return torch.cat(parts, -1).flatten(-2)


class AnchorDecoder(nn.Module):
    """Layers of queries whose anchors are refined after each; attention follows the anchor's width.

    Args:
        layers: at least one, the first with `first=True`.
        width: D.
    """

    def __init__(self, layers: Sequence[AnchorDecoderLayer], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)
        self.query_scale = Mlp(width, width, width)
        self.ref_point_head = Mlp(width, width, width)
        self.ref_anchor_head = Mlp(width, width, 1)
        self.bbox_embed = Mlp(width, width, width, 2)

    def forward(
        self,
        content_BQD: Tensor,
        memory_BTD: Tensor,
        memory_mask_BT: Tensor,
        memory_positions_BTD: Tensor,
        anchors_Q2: Tensor,
    ) -> Decoded:
        """Refine the anchors.

        Args:
            content_BQD: what the queries start from; zeros in most models.
            memory_BTD, memory_mask_BT, memory_positions_BTD: what they look at.
            anchors_Q2: before the sigmoid, cw.
        """
        query_BQD = content_BQD
        given_BQ2 = anchors_Q2.sigmoid().expand(*content_BQD.shape[:2], 2)
        hidden, entering, leaving = [], [], []
        for index, layer in enumerate(self.layers):
            # What is recorded keeps the gradient of the layer before; what a layer works with does not.
            anchor_BQ2 = given_BQ2.detach() if index else given_BQ2
            code_BQD = span_positions(anchor_BQ2, query_BQD.shape[-1])
            scale = self.query_scale(query_BQD) if index else 1.0
            narrow_BQ1 = self.ref_anchor_head(query_BQD).sigmoid() / anchor_BQ2[..., 1:]
            query_BQD = layer(
                query_BQD,
                memory_BTD,
                memory_mask_BT,
                memory_positions_BTD,
                self.ref_point_head(code_BQD),
                code_BQD * scale * narrow_BQ1,
            )
            hidden.append(self.norm(query_BQD))
            entering.append(given_BQ2)
            given_BQ2 = (self.bbox_embed(query_BQD) + logit(anchor_BQ2)).sigmoid()
            leaving.append(given_BQ2)
        return Decoded(torch.stack(hidden), torch.stack(entering), torch.stack(leaving))


def loop(decode: Callable[[Tensor], T], content_BQD: Tensor, loops: int) -> T:
    """LD-DETR's Loop Decoder: decode, feed the last layer's features back as content, `loops` times over.

    Anchors start afresh in every pass, and all passes share their weights.

    Args:
        decode: content (B, Q, D) -> a tuple whose first entry is the features (N, B, Q, D).
        content_BQD: of the first pass.
        loops: at least 1.

    Returns:
        What the last pass gives.
    """
    decoded = decode(content_BQD)
    for _ in range(loops - 1):
        decoded = decode(decoded[0][-1])
    return decoded


class SpanHead(nn.Module):
    """Class logits (0 = a moment, 1 = background) and spans relative to the recorded anchors.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.class_embed = nn.Linear(width, 2)
        self.span_embed = Mlp(width, width, width, 2)

    def forward(self, hidden_NBQD: Tensor, anchors_NBQ2: Tensor) -> tuple[Tensor, Tensor]:
        """(N, B, Q, D), (N, B, Q, 2) -> logits (N, B, Q, 2), spans_cw (N, B, Q, 2)."""
        return self.class_embed(hidden_NBQD), (self.span_embed(hidden_NBQD) + logit(anchors_NBQ2)).sigmoid()


def predict_moments(logits_BQ2: Tensor, spans_cw_BQ2: Tensor, saliency_BT: Tensor) -> Prediction:
    """The answer of a set predictor: the score is the softmax share of class 0."""
    score_BQ = logits_BQ2.softmax(-1)[..., 0]
    return Prediction(
        spans_BQ2=cw_to_se(spans_cw_BQ2),
        score_BQ=score_BQ,
        valid_BQ=torch.ones_like(score_BQ, dtype=torch.bool),
        saliency_BT=saliency_BT,
        span_unit="fraction",
    )
