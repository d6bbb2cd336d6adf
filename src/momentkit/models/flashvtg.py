"""FlashVTG: clips look at words, a pyramid of strides proposes moments, two heads score them; no decoder.

    text (B,L,E) -- projection --+-- dummy encoder -- dummies --+
                                 +------------------------------+-- keys
    video (B,T,D) -- projection -- cross layers (look at keys) -- encoder --+-- saliency (B,T)
                                                                            +-- pyramid -- points (B,P)
    point: distances to start and end (eq. 5), score = x intra + (1 - x) inter (eq. 9)

Source   Cao et al., "FlashVTG", WACV 2025. Where paper and published code differ we follow the code: levels
         start from ReLU(F), distances are exp(.) times a level's scale, keys are not projected, x mixes
         logits. Faults of the published code that `faithful=True` brings back: the cross-attention mask is
         tiled in the wrong order; means and convolutions read padding; a single false negative in a batch
         loses its rank term.
Shapes   B videos  T clips  L words  K dummies  D, E input widths  d hidden  P points of all levels  G windows
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Losses, Prediction, Targets
from momentkit.losses.points import assign_targets, make_points
from momentkit.losses.saliency import against_real, negative_pair, real_negatives, share_cross_entropy
from momentkit.nn.attention import BareAttention
from momentkit.nn.masks import masked_mean, masked_softmax
from momentkit.nn.pointwise import PReLU
from momentkit.nn.positions import clip_positions
from momentkit.nn.pyramid import Pyramid
from momentkit.nn.transformer import (
    CrossLayer,
    EncoderLayer,
    InputProjection,
    Mlp,
    PathDrop,
    encode,
    encode_behind,
    look,
    released_mask,
)


@dataclass(frozen=True, kw_only=True)
class FlashVTGConfig:
    """Options; the defaults are the published QVHighlights SlowFast+CLIP run."""

    video_dim: int = 2818  # clip features with the two time channels
    text_dim: int = 512
    hidden: int = 256
    heads: int = 8
    feed_forward: int = 1024
    input_layers: int = 2
    dummies: int = 40  # learned keys that absorb attention of clips which no word describes
    dummy_layers: int = 2
    cross_layers: int = 6
    encoder_layers: int = 3
    strides: tuple[int, ...] = (1, 2, 4, 8)
    kernel: int = 5  # of the score heads
    score_convs: int = 1
    score_layers: int = 5  # of the score heads' MLP
    score: Literal["refined", "intra", "inter"] = "refined"  # eq. 9, or one head alone (ablation)
    dropout: float = 0.1
    input_dropout: float = 0.5
    task: Literal["moments", "highlights"] = "moments"  # highlights: no regression, scores learn the labels
    radius: float = 1.5  # a point is positive within this many strides of a window's centre
    margin: float = 0.2
    nce_columns: bool = True  # contrast across the batch as well as across clips
    negatives: bool = True  # a second pass with the next sample's sentence
    weight_regression: float = 1.0
    weight_classification: float = 5.0
    weight_nce: float = 0.1
    weight_saliency: float = 0.8
    weight_clip_aware: float = 4.0
    weight_attention: float = 1.0  # of the attention part within the saliency loss
    weight_negative: float = 1.0  # of the negative-pair terms within the saliency loss; YouTube Highlights 0
    faithful: bool = False  # the published arithmetic on padding
    released_mask: bool | None = None  # the published mask order; None = as `faithful`

    def __post_init__(self) -> None:
        if not (
            self.hidden > 0 and self.heads > 0 and self.hidden % self.heads == 0 and self.hidden % 2 == 0
        ):
            raise ConfigError(f"hidden must be even and a multiple of heads, got {self.hidden}, {self.heads}")
        if not (self.strides and all(s == 2**k for k, s in enumerate(self.strides))):
            raise ConfigError(f"strides must be 1, 2, 4, ..., got {self.strides}")
        if not (self.kernel % 2 == 1 and self.score_convs >= 0 and self.score_layers >= 1):
            raise ConfigError(f"score heads need an odd kernel and a layer, got kernel {self.kernel}")
        if not (0 <= self.dropout < 1 and 0 <= self.input_dropout < 1):
            raise ConfigError(f"dropouts must lie in [0, 1), got {self.dropout}, {self.input_dropout}")
        if not min(self.dummies, self.cross_layers, self.encoder_layers, self.input_layers) >= 1:
            raise ConfigError("dummies, cross_layers, encoder_layers and input_layers must be at least 1")


class ScoreHead(nn.Module):
    """Convolutions over time, then an MLP to one logit a point."""

    def __init__(self, config: FlashVTGConfig) -> None:
        super().__init__()
        d, kernel = config.hidden, config.kernel
        self.convs = nn.ModuleList(
            nn.Conv1d(d, d, kernel, padding=kernel // 2) for _ in range(config.score_convs)
        )
        self.mlp = Mlp(d, *[d // 2] * (config.score_layers - 1), 1)

    def forward(self, x_BNd: Tensor, read_BN: Tensor) -> Tensor:
        """(B, N, d) -> (B, N) logits; entries not `read` are zero before every convolution."""
        for conv in self.convs:
            x_BNd = F.relu(conv((x_BNd * read_BN[..., None]).transpose(1, 2))).transpose(1, 2)
        return self.mlp(x_BNd).squeeze(-1)


@dataclass(frozen=True)
class Fused:
    """Video that has looked at a sentence."""

    cross_BTd: Tensor
    attention_BTM: Tensor  # mean over heads and layers; dummies first, then words
    encoded_BTd: Tensor
    word_mass_BT: Tensor  # attention on words, in [0, 1]
    saliency_BT: Tensor


@dataclass(frozen=True)
class Stages:
    """All that the network computes on the way; what losses, predictions and parity read."""

    video_BTd: Tensor
    text_BLd: Tensor
    positions_BTd: Tensor
    dummies_BKd: Tensor
    fused: Fused
    features_BTd: Tensor  # ReLU of the encoded clips
    levels: tuple[Tensor, ...]
    points_P4: Tensor  # position, range low, range high, stride, in clips
    valid_BP: Tensor
    query_Bd: Tensor
    intra_BP: Tensor
    inter_BP: Tensor
    logit_BP: Tensor
    distance_raw_BP2: Tensor
    distance_BP2: Tensor  # to start and end, in strides


class FlashVTG(nn.Module):
    """The network and its losses."""

    def __init__(self, config: FlashVTGConfig) -> None:
        super().__init__()
        self.config = c = config
        d = c.hidden
        self.video_in = InputProjection(c.video_dim, d, c.input_layers, c.input_dropout)
        self.text_in = InputProjection(c.text_dim, d, c.input_layers, c.input_dropout)
        self.types = nn.Parameter(torch.randn(2, d) * 0.02)  # row 0 text, row 1 video
        self.dummy_tokens = nn.Parameter(torch.randn(c.dummies, d))
        self.dummy_positions = nn.Parameter(torch.randn(c.dummies, d))

        def encoder_layer(dropout: float) -> EncoderLayer:
            return EncoderLayer(d, c.heads, c.feed_forward, dropout, PathDrop(dropout), PReLU())

        def cross_layer() -> CrossLayer:
            attention = BareAttention(d, c.heads, c.dropout)
            return CrossLayer(attention, d, c.feed_forward, c.dropout, PathDrop(c.dropout), PReLU())

        # The published dummy encoder drops 0.1 whatever the option says.
        self.dummy_encoder = nn.ModuleList(encoder_layer(0.1) for _ in range(c.dummy_layers))
        self.cross = nn.ModuleList(cross_layer() for _ in range(c.cross_layers))
        self.encoder = nn.ModuleList(encoder_layer(c.dropout) for _ in range(c.encoder_layers))
        self.saliency_clip = nn.Linear(d, d)
        self.saliency_global = nn.Linear(d, d)
        self.pyramid = Pyramid(d, len(c.strides))
        self.word_weight = nn.Linear(d, 1, bias=False)
        self.intra_head = ScoreHead(c)
        self.inter_head = ScoreHead(c)
        self.mix = nn.Parameter(torch.tensor(0.5))  # x of eq. 9
        self.distance_head = nn.ModuleList([nn.Conv1d(d, d, 3, padding=1), nn.Conv1d(d, 2, 3, padding=1)])
        self.level_scale = nn.Parameter(torch.ones(len(c.strides)))  # C_k of eq. 5
        for name, parameter in self.named_parameters():
            if name.startswith(("cross.", "encoder.")) and parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Prediction:
        """Moments in clips and saliency; nothing here is random, `generator` is unused."""
        stages = self.stages(batch)
        position_P, stride_P = stages.points_P4[:, 0], stages.points_P4[:, 3]
        start_BP = position_P - stages.distance_BP2[..., 0] * stride_P
        end_BP = position_P + stages.distance_BP2[..., 1] * stride_P
        return Prediction(
            spans_BQ2=torch.stack([start_BP, end_BP], -1),
            score_BQ=stages.logit_BP.sigmoid() * stages.valid_BP,
            valid_BQ=stages.valid_BP,
            saliency_BT=stages.fused.saliency_BT,
            span_unit="clip",
        )

    def stages(self, batch: Batch) -> Stages:
        """The whole network; see the picture at the top of the file."""
        c = self.config
        video_BTd, text_BLd = self.video_in(batch.video_BTD), self.text_in(batch.text_BLE)
        typed_video, typed_text = video_BTd + self.types[1], text_BLd + self.types[0]
        positions_BTd = clip_positions(batch.video_mask_BT, c.hidden)
        dummies_BKd = self._encode_dummies(typed_text, batch.text_mask_BL)
        fused = self._fuse(
            typed_video, positions_BTd, batch.video_mask_BT, typed_text, dummies_BKd, batch.text_mask_BL
        )
        features_BTd = F.relu(fused.encoded_BTd)
        levels = self.pyramid(features_BTd)
        points_P4 = make_points(features_BTd.shape[1], c.strides, features_BTd.device)
        # A cell is real when all its clips are; the published code asks for one.
        last_clip_P = points_P4[:, 0] + (0 if c.faithful else points_P4[:, 3] - 1)
        valid_BP = last_clip_P < batch.video_mask_BT.sum(1, keepdim=True)
        read_BP = torch.ones_like(valid_BP) if c.faithful else valid_BP
        sizes = [level.shape[1] for level in levels]
        pieces = list(zip(levels, read_BP.split(sizes, 1), strict=True))

        weight_BL1 = masked_softmax(self.word_weight(typed_text), batch.text_mask_BL[..., None], 1)
        intra_BP = torch.cat([self.intra_head(level, read) for level, read in pieces], 1)
        inter_BP = self._score_across_levels(torch.cat(levels, 1), read_BP)
        x = self.mix if c.score == "refined" else float(c.score == "intra")
        distance_raw_BP2 = torch.cat([self._distances(level, read) for level, read in pieces], 1)
        scale_P = torch.cat([scale.expand(n) for scale, n in zip(self.level_scale, sizes, strict=False)])
        return Stages(
            video_BTd=video_BTd,
            text_BLd=text_BLd,
            positions_BTd=positions_BTd,
            dummies_BKd=dummies_BKd,
            fused=fused,
            features_BTd=features_BTd,
            levels=tuple(levels),
            points_P4=points_P4,
            valid_BP=valid_BP,
            query_Bd=(weight_BL1 * typed_text).sum(1),
            intra_BP=intra_BP,
            inter_BP=inter_BP,
            logit_BP=x * intra_BP + (1 - x) * inter_BP,  # eq. 9
            distance_raw_BP2=distance_raw_BP2,
            distance_BP2=distance_raw_BP2.exp() * scale_P[:, None],  # eq. 5
        )

    def _encode_dummies(self, text_BLd: Tensor, text_mask_BL: Tensor) -> Tensor:
        """Dummies that have seen the sentence, (B, K, d); the words that come out are not used."""
        dummies = self.dummy_tokens, self.dummy_positions
        nowhere = torch.zeros_like(text_BLd)
        return encode_behind(*dummies, self.dummy_encoder, text_BLd, nowhere, text_mask_BL)[
            :, : self.config.dummies
        ]

    def _fuse(
        self,
        video_BTd: Tensor,
        positions_BTd: Tensor,
        video_mask_BT: Tensor,
        text_BLd: Tensor,
        dummies_BKd: Tensor,
        text_mask_BL: Tensor,
    ) -> Fused:
        """Adaptive cross-attention (eq. 1-3), encoder, saliency (eq. 4)."""
        c = self.config
        keys_BMd = torch.cat([dummies_BKd + self.dummy_positions, text_BLd], 1)
        mask_BM = F.pad(text_mask_BL, (c.dummies, 0), value=True)
        tiled = c.faithful if c.released_mask is None else c.released_mask
        blocked = released_mask(video_mask_BT, mask_BM, c.heads) if tiled else None
        cross_BTd, maps = look(self.cross, video_BTd, positions_BTd, keys_BMd, text_BLd, mask_BM, blocked)
        attention_BTM = torch.stack(maps).mean(0)
        encoded_BTd = encode(self.encoder, cross_BTd, positions_BTd, video_mask_BT)
        counted_BT = torch.ones_like(video_mask_BT) if c.faithful else video_mask_BT
        global_B1d = self.saliency_global(masked_mean(encoded_BTd, counted_BT[..., None], 1))[:, None]
        saliency_BT = (self.saliency_clip(encoded_BTd) * global_B1d).sum(-1) / c.hidden**0.5
        word_mass_BT = (attention_BTM * F.pad(text_mask_BL, (c.dummies, 0))[:, None]).sum(-1).clamp(0, 1)
        return Fused(cross_BTd, attention_BTM, encoded_BTd, word_mass_BT, saliency_BT)

    def _score_across_levels(self, x_BPd: Tensor, read_BP: Tensor) -> Tensor:
        """One head over all levels in a row; real cells are moved together so that padding leaves no gap."""
        order_BP = (~read_BP).to(torch.int8).argsort(dim=1, stable=True)
        packed = x_BPd.take_along_dim(order_BP[..., None], 1)
        return self.inter_head(packed, read_BP.take_along_dim(order_BP, 1)).take_along_dim(
            order_BP.argsort(1), 1
        )

    def _distances(self, level_BNd: Tensor, read_BN: Tensor) -> Tensor:
        """(B, N, 2) logarithms of the distances to start and end, before the level's scale."""
        first, second = self.distance_head
        hidden = F.relu(first((level_BNd * read_BN[..., None]).transpose(1, 2)))
        return second(hidden * read_BN[:, None]).transpose(1, 2)

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """Training terms of section 3.5 of the paper; `batch.targets` must be there."""
        c, targets = self.config, batch.targets
        assert targets is not None
        stages = self.stages(batch)
        assigned = self.assigned(stages, targets)
        terms = {
            "classification": self._classification(stages, targets, assigned),
            "nce": self._nce(stages, batch.video_mask_BT, targets),
            "clip_aware": self._clip_aware(stages, batch.video_mask_BT, targets),
            "saliency": self._saliency(stages, batch, targets),
        }
        weights = {
            "classification": c.weight_classification,
            "nce": c.weight_nce,
            "clip_aware": c.weight_clip_aware,
            "saliency": c.weight_saliency,
        }
        if c.task == "moments":
            terms["regression"] = self._regression(stages, *assigned)
            weights["regression"] = c.weight_regression
        return Losses(terms, weights)

    def assigned(self, stages: Stages, targets: Targets) -> tuple[Tensor, Tensor]:
        """`assign_targets` on a batch."""
        windows = [window.to(stages.points_P4) for window in targets.windows_clip]
        padded = nn.utils.rnn.pad_sequence(windows, batch_first=True, padding_value=torch.inf)
        return assign_targets(stages.points_P4, padded, self.config.radius)

    def _classification(self, stages: Stages, targets: Targets, assigned: tuple[Tensor, Tensor]) -> Tensor:
        if self.config.task == "highlights":
            loss_BP = F.binary_cross_entropy_with_logits(
                stages.logit_BP, targets.saliency_BT, reduction="none"
            )
        else:  # focal loss, gamma 2, no alpha
            label_BP = assigned[0].to(stages.logit_BP)
            plain_BP = F.binary_cross_entropy_with_logits(stages.logit_BP, label_BP, reduction="none")
            p_BP = stages.logit_BP.sigmoid()
            loss_BP = plain_BP * (1 - (p_BP * label_BP + (1 - p_BP) * (1 - label_BP))) ** 2
        return masked_mean(loss_BP.flatten(), stages.valid_BP.flatten(), 0)

    def _regression(self, stages: Stages, positive_BP: Tensor, distance_BP2: Tensor) -> Tensor:
        if not self.config.faithful:
            positive_BP = positive_BP & stages.valid_BP
        gap_BP = (stages.distance_BP2 - distance_BP2).abs().mean(-1)
        return masked_mean(gap_BP.flatten(), positive_BP.flatten(), 0)

    def _nce(self, stages: Stages, mask_BT: Tensor, targets: Targets) -> Tensor:
        """A positive clip against the clips that are not more relevant, and against the other samples."""
        cosine_BT = F.cosine_similarity(stages.features_BTd, stages.query_Bd[:, None], dim=-1)
        chosen_B1 = targets.positive_clip_BP[:, :1]
        label_BT = targets.saliency_BT
        allowed_BT = mask_BT & (label_BT <= label_BT.gather(1, chosen_B1))
        logit_BT = (cosine_BT / 0.07).masked_fill(~allowed_BT, -torch.inf)
        rows = -logit_BT.log_softmax(1).gather(1, chosen_B1).mean()
        if not self.config.nce_columns:
            return rows
        columns_BB = logit_BT[:, chosen_B1[:, 0]]  # entry (b', b): sample b' at the clip chosen in b
        return rows - columns_BB.log_softmax(0).diagonal().mean()

    def _clip_aware(self, stages: Stages, mask_BT: Tensor, targets: Targets) -> Tensor:
        """Logits of the finest level follow the saliency labels, both scaled to [0, 1] over the batch."""
        mask_BT = torch.ones_like(mask_BT) if self.config.faithful else mask_BT
        label, logit = targets.saliency_BT[mask_BT], stages.logit_BP[:, : mask_BT.shape[1]][mask_BT]
        if not label.max() > label.min() or not logit.max() > logit.min():
            return logit.sum() * 0  # nothing to follow; the published code gives NaN
        label = (label - label.min()) / (label.max() - label.min())
        return F.mse_loss((logit - logit.min()) / (logit.max() - logit.min()), label)

    def _saliency(self, stages: Stages, batch: Batch, targets: Targets) -> Tensor:
        """Margin, rank and negative-pair terms on saliency, and the same on the attention mass."""
        c, mask_BT, label_BT = self.config, batch.video_mask_BT, targets.saliency_BT
        real_B, negative = self.negative_pass(stages, batch)
        mass_BT = stages.fused.word_mass_BT
        saliency_BT = stages.fused.saliency_BT
        negative_saliency, negative_mass = (
            (None, None) if negative is None else (negative.saliency_BT, negative.word_mass_BT)
        )
        # Published: a single false negative is normalised over one element; the attention part drops all.
        rank_false = not c.faithful or int((~real_B).sum()) > 1
        rest = real_B, targets, mask_BT, c.margin
        loss = against_real(saliency_BT, negative_saliency, *rest, rank_false)
        counted = torch.ones_like(mask_BT) if c.faithful else mask_BT
        attention = share_cross_entropy(mass_BT[counted], label_BT[counted].clamp(0, 1))
        attention = attention + against_real(mass_BT, negative_mass, *rest, not c.faithful)
        if negative is not None:
            loss = loss + c.weight_negative * negative_pair(negative.saliency_BT, mask_BT[real_B])
            unlikely = -(1 - negative.word_mass_BT).clamp(min=1e-7).log()
            attention = attention + c.weight_negative * (unlikely * mask_BT[real_B]).sum(1).mean()
        return loss + c.weight_attention * attention

    def negative_pass(self, stages: Stages, batch: Batch) -> tuple[Tensor, Fused | None]:
        """Each video with the sentence of the next sample, where that is another video's.

        Returns:
            (B,) which samples have a real negative, and the fused pass of those (None if there are none).
        """
        real_B, other_R = real_negatives(batch)
        if not (self.config.negatives and len(other_R)):
            return real_B, None
        return real_B, self._fuse(
            (stages.video_BTd + self.types[1])[real_B],
            stages.positions_BTd[real_B],
            batch.video_mask_BT[real_B],
            (stages.text_BLd + self.types[0])[other_R],
            stages.dummies_BKd[other_R],
            batch.text_mask_BL[other_R],
        )
