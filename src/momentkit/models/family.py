"""The frame that the DETR family shares: options, projections, stacks, decoding, weighing. Not a model.

    video (B,T,D) -- projection --+-- what a model makes of both -- memory --+-- saliency (B,T)
    text  (B,L,E) -- projection --+                                          |
    anchors (Q,2) ----------------------------------- anchor decoder, looped +-- moments (B,Q)

A model file inherits options and network from here, writes down what differs, and lists its loss terms.
`Family...` holds for all of them; `Anchor...` for those whose clips look at words and whose queries are
anchors, as in QD-DETR.

Source   detr_family.md 3, 4, 9; plug-ins: LD-DETR
Shapes   B videos  T clips  L words  M of the memory  D, E input widths  d hidden  Q queries  N decoder layers
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from momentkit.core.config import check_sizes
from momentkit.core.types import Batch, Losses, Prediction, Targets
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
from momentkit.nn.transformer import (
    CrossLayer,
    EncoderLayer,
    InputProjection,
    PathDrop,
    draw_xavier,
    look,
    released_mask,
)

Task = Literal["moments", "highlights"]
Residual = type[Dropout] | type[PathDrop]  # what a branch passes through before it is added


@dataclass(frozen=True, kw_only=True)
class FamilyConfig:
    """Options that all models of the family have; the defaults are the published QVHighlights runs."""

    multiple_of: ClassVar[int] = 4  # of this must `hidden` be: half for centre, half for width, sine, cosine

    video_dim: int = 2818  # clip features with the two time channels, audio included where there is any
    text_dim: int = 512
    hidden: int = 256
    heads: int = 8
    feed_forward: int = 1024
    input_layers: int = 2
    encoder_layers: int = 2
    decoder_layers: int = 2
    queries: int = 10
    dropout: float = 0.1
    input_dropout: float = 0.5
    margin: float = 0.2
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
        check_sizes(self, multiple_of=self.multiple_of)


@dataclass(frozen=True, kw_only=True)
class AnchorConfig(FamilyConfig):
    """Options of the models whose clips look at words and whose queries are anchors."""

    cross_layers: int = 2
    task: Task = "moments"  # highlights: without the losses of moments


class Given(NamedTuple):
    """Video and sentence at the model's width."""

    video_BTd: Tensor
    place_BTd: Tensor  # positions of the clips
    mask_BT: Tensor
    text_BLd: Tensor
    mask_BL: Tensor

    def with_text_of(self, row_B: Tensor) -> "Given":
        """Each video with the sentence of another sample."""
        return self._replace(text_BLd=self.text_BLd[row_B], mask_BL=self.mask_BL[row_B])


@dataclass(frozen=True)
class FamilyStages:
    """What losses, predictions and parity read of every model; each adds what it computes on the way."""

    given: Given
    logits_NBQ2: Tensor
    spans_cw_NBQ2: Tensor
    saliency_BT: Tensor

    @property
    def video_BTd(self) -> Tensor:
        """Projected clips."""
        return self.given.video_BTd

    @property
    def text_BLd(self) -> Tensor:
        """Projected words."""
        return self.given.text_BLd

    @property
    def positions_BTd(self) -> Tensor:
        """Positions of the clips."""
        return self.given.place_BTd


@dataclass(frozen=True)
class AnchorStages(FamilyStages):
    """The same of the models with anchors."""

    decoded: Decoded


C = TypeVar("C", bound=FamilyConfig)
A = TypeVar("A", bound=AnchorConfig)
S = TypeVar("S", bound=FamilyStages)


class FamilyModel(nn.Module, ABC, Generic[C, S]):
    """What the networks have in common. A model gives `stages` and `terms`.

    Args:
        config: options.
        words: most words with learned positions; 0 = none.
    """

    distill: DistillAlign | None

    def __init__(self, config: C, words: int = 0) -> None:
        super().__init__()
        self.config, d = config, config.hidden
        layers, rate = config.input_layers, config.input_dropout
        self.video_in = InputProjection(config.video_dim, d, layers, rate)
        self.text_in = InputProjection(config.text_dim, d, layers, rate)
        self.text_positions = TextPositions(words, d, rate) if words else None

    def plug_in(self) -> DistillAlign | None:
        """Distill Align, where the option is on; a model assigns it to `distill`, after all its own parts."""
        c = self.config
        if not c.distill_align:
            return None
        memory, share = c.distill_memory, c.distill_share
        return DistillAlign(self.video_in, self.text_in, c.hidden, memory, share, faithful=c.faithful)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Prediction:
        """Moments as fractions, and saliency; nothing here is random, `generator` is unused."""
        stages = self.stages(batch)
        return predict_moments(stages.logits_NBQ2[-1], stages.spans_cw_NBQ2[-1], stages.saliency_BT)

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """The model's terms, and the plug-in's two; `generator` is unused, as above."""
        assert batch.targets is not None
        stages = self.stages(batch)
        terms = self.terms(stages, batch, batch.targets, epoch)
        return self.weighed(terms | self.plug_in_terms(stages, batch, epoch))

    @abstractmethod
    def stages(self, batch: Batch) -> S:
        """The whole network; see the picture at the top of the model's file."""

    @abstractmethod
    def terms(self, stages: S, batch: Batch, targets: Targets, epoch: float) -> dict[str, Tensor]:
        """The losses of a model, unweighed."""

    def weights(self) -> dict[str, float]:
        """Of the terms that all models have; a model adds those of its own."""
        c = self.config
        return {
            "span": c.weight_span,
            "giou": c.weight_giou,
            "label": c.weight_label,
            "saliency": c.weight_saliency,
            "align": c.weight_align,
            "similarity": c.weight_similarity,
        }

    def weighed(self, terms: dict[str, Tensor]) -> Losses:
        """Terms with their weights; "span_0" of an earlier layer weighs as "span"."""
        weights = self.weights()
        return Losses(terms, {name: weights[name.split("_")[0]] for name in terms})

    def plug_in_terms(self, stages: S, batch: Batch, epoch: float) -> dict[str, Tensor]:
        """Distill Align's two losses on both projections, where the option is on."""
        if self.distill is None:
            return {}
        given = stages.given
        align, similarity = self.distill(
            batch, self.video_in, self.text_in, given.video_BTd, given.text_BLd, epoch
        )
        return {"align": align, "similarity": similarity}

    def project(self, batch: Batch) -> Given:
        """Features at the model's width, and positions of the clips."""
        video_BTd, text_BLd = self.video_in(batch.video_BTD), self.text_in(batch.text_BLE)
        place_BTd = clip_positions(batch.video_mask_BT, self.config.hidden)
        return Given(video_BTd, place_BTd, batch.video_mask_BT, text_BLd, batch.text_mask_BL)

    def word_positions(self, text_BLd: Tensor) -> Tensor:
        """Learned positions of words; zeros unless the option is on."""
        return torch.zeros_like(text_BLd) if self.text_positions is None else self.text_positions(text_BLd)

    def counted(self, mask: Tensor) -> Tensor:
        """What means, softmaxes and convolutions read: real entries; in the published arithmetic all."""
        return torch.ones_like(mask) if self.config.faithful else mask


class AnchorModel(FamilyModel[A, S]):
    """What the networks whose queries are anchors have in common."""

    def add_decoder(self, *drawn: nn.Module, residual: Residual = Dropout) -> None:
        """Decoder, anchors and head; how the family starts the modules between projections and heads.

        Args:
            drawn: what else is redrawn.
            residual: of the decoder's layers.
        """
        c = self.config
        self.decoder = anchor_decoder(c, residual)
        draw_xavier(*drawn, self.decoder)
        self.anchors, self.head = draw_anchors(c), SpanHead(c.hidden)

    def blocked(self, x_mask: Tensor, context_mask: Tensor) -> Tensor | None:
        """The published mask of cross-attention, tiled in the wrong order; None in the clean arithmetic."""
        c = self.config
        return released_mask(x_mask, context_mask, c.heads) if c.faithful else None

    def look_at_words(
        self, layers: nn.ModuleList, x_BTd: Tensor, given: Given, place_BLd: Tensor | None = None
    ) -> Tensor:
        """Clips x look at words.

        Args:
            layers: of `cross_stack`.
            x_BTd: what looks.
            given: words, masks and positions.
            place_BLd: of words; None = without.
        """
        keys_BLd = given.text_BLd if place_BLd is None else given.text_BLd + place_BLd
        blocked = self.blocked(given.mask_BT, given.mask_BL)
        return look(layers, x_BTd, given.place_BTd, keys_BLd, given.text_BLd, given.mask_BL, blocked)[0]

    def decode(self, given: Given, memory_BTd: Tensor) -> tuple[Decoded, Tensor, Tensor]:
        """Anchors look at the memory, in loops; each layer's spans start from the anchors that entered it.

        Returns:
            What the decoder gives, logits (N, B, Q, 2) and spans (N, B, Q, 2).
        """
        c = self.config

        def once(content_BQd: Tensor) -> Decoded:
            decoded: Decoded = self.decoder(
                content_BQd, memory_BTd, given.mask_BT, given.place_BTd, self.anchors
            )
            return decoded

        nothing_BQd = given.video_BTd.new_zeros(len(memory_BTd), c.queries, c.hidden)
        decoded = loop(once, nothing_BQd, c.decoder_loops)
        return decoded, *self.head(decoded.hidden_NBQD, decoded.entering_NBQ2)

    def set_terms(self, stages: S, batch: Batch, background: float | None) -> dict[str, Tensor]:
        """Set losses of every decoder layer, where the task is moments.

        Args:
            stages: of `stages`.
            batch: with targets.
            background: weight of an unmatched query in the cross entropy; None: focal loss instead.
        """
        if self.config.task == "highlights":
            return {}
        assert batch.targets is not None
        truth_cw = targets_as_fractions(batch.targets.windows_clip, batch.video_mask_BT)
        return set_terms(stages.logits_NBQ2, stages.spans_cw_NBQ2, truth_cw, background=background)


def encoder_stack(
    c: FamilyConfig, layers: int, residual: Residual = Dropout, dropout: float | None = None
) -> nn.ModuleList:
    """Encoder layers for `encode`; `dropout` in place of the option."""
    rate = c.dropout if dropout is None else dropout
    sizes = c.hidden, c.heads, c.feed_forward, rate
    return nn.ModuleList(EncoderLayer(*sizes, residual(rate), PReLU()) for _ in range(layers))


def cross_stack(c: FamilyConfig, layers: int) -> nn.ModuleList:
    """Cross layers for `look`."""
    sizes = c.hidden, c.feed_forward, c.dropout
    return nn.ModuleList(
        CrossLayer(PackedAttention(c.hidden, c.heads, c.dropout), *sizes, Dropout(c.dropout), PReLU())
        for _ in range(layers)
    )


def anchor_layers(c: FamilyConfig, residual: Residual = Dropout) -> list[AnchorDecoderLayer]:
    """Layers of an anchor decoder."""
    sizes = c.hidden, c.heads, c.feed_forward, c.dropout
    return [
        AnchorDecoderLayer(*sizes, residual(c.dropout), PReLU(), first=index == 0)
        for index in range(c.decoder_layers)
    ]


def anchor_decoder(c: FamilyConfig, residual: Residual = Dropout) -> AnchorDecoder:
    """The decoder that refines anchors."""
    return AnchorDecoder(anchor_layers(c, residual), c.hidden)


def draw_anchors(c: FamilyConfig) -> nn.Parameter:
    """(Q, 2) before the sigmoid, centre and width."""
    return nn.Parameter(torch.randn(c.queries, 2))


def against_token(clip_BTd: Tensor, token_Bd: Tensor) -> Tensor:
    """Saliency (B, T) as the scaled dot product of clips with a token."""
    score_BT: Tensor = (clip_BTd * token_Bd[:, None]).sum(-1) / clip_BTd.shape[-1] ** 0.5
    return score_BT
