"""UVCOM: words and clips look at each other, gather into a few centres, and mix by a random walk among them.

    text  (B,L,E) -+- video to words -- sentence (B,d), 5 centres ------------+
                   |                                                          |
    video (B,T,D) -+- words to video -- convolutions -- walk by the centres --+-- clips (B,T,d)
                                     \\- 30 centres: the one most like the words' is the token
    [token; clips] -- encoder --+-- saliency (B,T)
                                +-- anchor decoder, content from sentence and clips -- moments (B,Q)

Source   Xiao, Luo et al., "Bridging the Gap: A Unified Video Comprehension Framework for Moment Retrieval and
         Highlight Detection", CVPR 2024. Where paper and published code differ we follow the code. Its slot
         attention starts all slots alike, so they stay alike and their attention stays uniform: `OneSlot` is
         what it computes, once a sample. `faithful=True` brings back the published faults on padding, the
         cross-attention mask tiled in the wrong order, and the truncation of window ends in float32.
         Plug-ins of LD-DETR: `decoder_loops`, `distill_align`; its ablations: `slots`, `clip_alignment`.
Shapes   B videos  T clips  L words  D, E, A input widths  d hidden  Q queries  N decoder layers  K centres
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.config import check_sizes
from momentkit.core.errors import ConfigError, FeatureError
from momentkit.core.spans import cw_to_se
from momentkit.core.types import Batch, Losses, Prediction, Targets
from momentkit.losses.contrastive import info_nce
from momentkit.losses.saliency import against_negative
from momentkit.losses.spans import set_terms, targets_as_fractions
from momentkit.nn.attention import PackedAttention
from momentkit.nn.centres import gather, most_alike, walk
from momentkit.nn.decoder import (
    AnchorDecoder,
    AnchorDecoderLayer,
    Decoded,
    SpanHead,
    loop,
    predict_moments,
)
from momentkit.nn.distill_align import DistillAlign
from momentkit.nn.masks import masked_mean
from momentkit.nn.pointwise import Dropout, PReLU
from momentkit.nn.positions import clip_positions
from momentkit.nn.transformer import (
    CrossLayer,
    EncoderLayer,
    InputProjection,
    Mlp,
    draw_xavier,
    released_mask,
)

SLOT_ROUNDS = 5
GRID_TOLERANCE = 1e-4  # a window end so close below a clip border lies on it


@dataclass(frozen=True, kw_only=True)
class UVCOMConfig:
    """Options; the defaults are the published QVHighlights run."""

    video_dim: int = 2818  # clip features with the two time channels
    text_dim: int = 512
    audio_dim: int = 0  # audio features with the two time channels; 0 = none
    hidden: int = 256
    heads: int = 8
    feed_forward: int = 1024
    mlp_width: int = 1024  # of the slot update and of the two alignment heads
    input_layers: int = 2
    cross_layers: int = 3
    encoder_layers: int = 3
    decoder_layers: int = 3
    queries: int = 30
    text_centres: int = 5
    video_centres: int = 30
    rounds: int = 5  # of gathering features into centres
    dropout: float = 0.1
    input_dropout: float = 0.5
    task: Literal["moments", "highlights"] = "moments"  # highlights: saliency and alignment alone
    negative_epoch: int = 80  # before it the negative is the next sample's sentence, then the least similar
    slots: bool = True  # ablation: False starts the queries from their table alone
    clip_alignment: bool = True  # ablation: False leaves out the clip part of the alignment loss
    cross_fusion: bool = False  # ablation: attention on the words' centres in place of the walk
    margin: float = 0.2
    background: float = 0.1  # weight of an unmatched query in the label loss
    weight_span: float = 10.0
    weight_giou: float = 1.0
    weight_label: float = 4.0
    weight_saliency: float = 1.0
    weight_contrast: float = 1.0  # of the alignment of video and clips with sentences
    decoder_loops: int = 1  # LD-DETR's Loop Decoder
    distill_align: bool = False  # LD-DETR's Distill Align, in training
    distill_memory: int = 65_536
    distill_share: float = 0.4
    weight_align: float = 0.6
    weight_similarity: float = 0.6
    faithful: bool = False  # the published arithmetic on padding and on window ends

    def __post_init__(self) -> None:
        check_sizes(self, multiple_of=4)
        for name in ("mlp_width", "text_centres", "video_centres", "rounds"):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("audio_dim", "negative_epoch"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")


class OneSlot(nn.Module):
    """What the published slot attention computes.

    All its slots start as the sentence, so the softmax over slots is uniform in every round, whatever the
    clips are: each round adds the same mean of the clips' values. One slot stands for all of them, and the
    projections of queries and keys have no effect.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm_inputs, self.norm_mlp, self.norm_out = (nn.LayerNorm(width) for _ in range(3))
        self.project_v = nn.Linear(width, width)
        self.mlp = Mlp(width, hidden, hidden, width)

    def forward(self, memory_BTd: Tensor, seen_BT: Tensor, sentence_Bd: Tensor) -> Tensor:
        """(B, T, d), (B, T), (B, d) -> (B, d)."""
        value_Bd = masked_mean(self.project_v(self.norm_inputs(memory_BTd)), seen_BT[..., None], 1)
        slot_Bd = sentence_Bd
        for _ in range(SLOT_ROUNDS):
            slot_Bd = slot_Bd + value_Bd
            slot_Bd = slot_Bd + self.mlp(self.norm_mlp(slot_Bd))
        return self.norm_out(slot_Bd)


@dataclass(frozen=True)
class Fused:
    """Video and sentence that have looked at each other."""

    cross_BTd: Tensor
    words_BLd: Tensor
    sentence_Bd: Tensor
    local_BTd: Tensor  # what the convolutions add
    mixed_BTd: Tensor  # after the walk
    global_Bd: Tensor
    memory_BTd: Tensor
    saliency_BT: Tensor


@dataclass(frozen=True)
class Stages:
    """All that the network computes on the way; what losses, predictions and parity read."""

    projected_BTd: Tensor  # video alone
    video_BTd: Tensor  # with audio, where there is any
    text_BLd: Tensor
    positions_BTd: Tensor
    fused: Fused
    slot_Bd: Tensor
    decoded: Decoded
    logits_NBQ2: Tensor
    spans_cw_NBQ2: Tensor


class UVCOM(nn.Module):
    """The network and its losses."""

    def __init__(self, config: UVCOMConfig) -> None:
        super().__init__()
        self.config = c = config
        d, rates = c.hidden, (c.input_layers, c.input_dropout)
        self.video_in = InputProjection(c.video_dim, d, *rates)
        self.text_in = InputProjection(c.text_dim, d, *rates)
        self.audio_in = InputProjection(c.audio_dim, d, *rates) if c.audio_dim else None
        self.to_words, self.to_clips = (
            nn.ModuleList(
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
            for _ in range(2)
        )
        self.sentence_in, self.sentence_norm = nn.Linear(d, d), nn.LayerNorm(d)
        self.text_centres_Kd = nn.Parameter(torch.randn(c.text_centres, d))
        self.video_centres_Kd = nn.Parameter(torch.randn(c.video_centres, d))
        self.local = nn.ModuleList(nn.Conv1d(d, d, size, padding=size // 2) for size in (1, 3, 1))
        self.centre_attention = PackedAttention(d, c.heads, c.dropout) if c.cross_fusion else None
        self.token_position = nn.Parameter(torch.randn(d))
        sizes = d, c.heads, c.feed_forward, c.dropout
        self.encoder = nn.ModuleList(
            EncoderLayer(*sizes, Dropout(c.dropout), PReLU()) for _ in range(c.encoder_layers)
        )
        self.slot = OneSlot(d, c.mlp_width) if c.slots else None
        self.decoder = AnchorDecoder(
            [
                AnchorDecoderLayer(*sizes, Dropout(c.dropout), PReLU(), first=index == 0)
                for index in range(c.decoder_layers)
            ],
            d,
        )
        self.content_Qd = nn.Parameter(torch.randn(c.queries, d))  # what tells the queries apart
        self.align_video, self.align_text = (Mlp(d, c.mlp_width, c.mlp_width, d) for _ in range(2))
        _draw(self)
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
        c, mask_BT = self.config, batch.video_mask_BT
        projected_BTd, text_BLd = self.video_in(batch.video_BTD), self.text_in(batch.text_BLE)
        video_BTd = self._with_audio(projected_BTd, batch)
        positions_BTd = clip_positions(mask_BT, c.hidden)
        fused = self.fuse(video_BTd, positions_BTd, mask_BT, text_BLd, batch.text_mask_BL)
        slot_Bd = torch.zeros_like(fused.sentence_Bd)
        if self.slot is not None:
            slot_Bd = self.slot(fused.memory_BTd, self._seen(mask_BT), fused.sentence_Bd)

        def decode(content_BQd: Tensor) -> Decoded:
            return self.decoder(
                content_BQd + self.content_Qd, fused.memory_BTd, mask_BT, positions_BTd, self.anchors
            )

        decoded = loop(decode, slot_Bd[:, None].expand(-1, c.queries, -1), c.decoder_loops)
        logits_NBQ2, spans_cw_NBQ2 = self.head(decoded.hidden_NBQD, decoded.leaving_NBQ2)
        return Stages(
            projected_BTd,
            video_BTd,
            text_BLd,
            positions_BTd,
            fused,
            slot_Bd,
            decoded,
            logits_NBQ2,
            spans_cw_NBQ2,
        )

    def _with_audio(self, video_BTd: Tensor, batch: Batch) -> Tensor:
        if self.audio_in is None:
            return video_BTd
        if batch.audio_BTA is None:
            raise FeatureError(
                f"this model was built for audio features of {self.config.audio_dim} channels and the batch "
                "has none; give them, or build the model with audio_dim = 0"
            )
        return video_BTd + self.audio_in(batch.audio_BTA)

    def _seen(self, mask: Tensor) -> Tensor:
        """What means, centres, convolutions and the walk see: real entries; in the published code all."""
        return torch.ones_like(mask) if self.config.faithful else mask

    def fuse(
        self,
        video_BTd: Tensor,
        positions_BTd: Tensor,
        video_mask_BT: Tensor,
        text_BLd: Tensor,
        text_mask_BL: Tensor,
    ) -> Fused:
        """Cross layers both ways, centres, convolutions, walk, encoder with a token in front, saliency."""
        c = self.config
        seen_BT, seen_BL = self._seen(video_mask_BT), self._seen(text_mask_BL)
        cross_BTd, words_BLd = self._cross(video_BTd, positions_BTd, video_mask_BT, text_BLd, text_mask_BL)
        sentence_Bd = masked_mean(self.sentence_norm(self.sentence_in(words_BLd)), seen_BL[..., None], 1)
        of_text_BKd = gather(self.text_centres_Kd, words_BLd, seen_BL, c.rounds)
        of_video_BKd = gather(self.video_centres_Kd, cross_BTd, seen_BT, c.rounds)
        token_B1d = most_alike(of_video_BKd, of_text_BKd)

        local_BTd = self._convolve(cross_BTd, video_mask_BT, seen_BT)
        near_BTd = cross_BTd + local_BTd
        if self.centre_attention is None:
            mixed_BTd = cross_BTd + walk(near_BTd, of_text_BKd, seen_BT)
        else:
            everyone = torch.ones(of_text_BKd.shape[:2], dtype=torch.bool, device=of_text_BKd.device)
            looked, _ = self.centre_attention(near_BTd, of_text_BKd, of_text_BKd, everyone)
            mixed_BTd = cross_BTd + near_BTd * looked

        sequence = torch.cat([token_B1d, mixed_BTd], 1)
        positions = torch.cat([self.token_position.expand(len(sequence), 1, -1), positions_BTd], 1)
        mask = F.pad(video_mask_BT, (1, 0), value=True)
        for layer in self.encoder:
            sequence = layer(sequence, positions, mask)
        global_Bd, memory_BTd = sequence[:, 0], sequence[:, 1:]
        saliency_BT = (self.saliency_clip(memory_BTd) * self.saliency_global(global_Bd)[:, None]).sum(-1)
        return Fused(
            cross_BTd,
            words_BLd,
            sentence_Bd,
            local_BTd,
            mixed_BTd,
            global_Bd,
            memory_BTd,
            saliency_BT / c.hidden**0.5,
        )

    def _cross(
        self,
        video_BTd: Tensor,
        positions_BTd: Tensor,
        video_mask_BT: Tensor,
        text_BLd: Tensor,
        text_mask_BL: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Clips look at words and words at clips, both at the projections; words have no positions."""
        faithful, heads = self.config.faithful, self.config.heads
        nowhere = torch.zeros_like(text_BLd)
        blocked = released_mask(video_mask_BT, text_mask_BL, heads) if faithful else None
        cross_BTd = video_BTd
        for layer in self.to_words:
            cross_BTd, _ = layer(cross_BTd, positions_BTd, text_BLd, text_BLd, text_mask_BL, blocked)
        blocked = released_mask(text_mask_BL, video_mask_BT, heads) if faithful else None
        words_BLd, keys_BTd = text_BLd, video_BTd + positions_BTd
        for layer in self.to_clips:
            words_BLd, _ = layer(words_BLd, nowhere, keys_BTd, video_BTd, video_mask_BT, blocked)
        return cross_BTd, words_BLd

    def _convolve(self, video_BTd: Tensor, mask_BT: Tensor, seen_BT: Tensor) -> Tensor:
        """Three convolutions over time; padding is zero before the first, in the clean way before each."""
        x_BdT = (video_BTd * mask_BT[..., None]).transpose(1, 2)
        for convolution in self.local:
            x_BdT = convolution(x_BdT * seen_BT[:, None])
        return x_BdT.transpose(1, 2)

    def negative_pass(self, stages: Stages, batch: Batch, epoch: float) -> Fused:
        """Each video with the sentence of another sample (its own where it is alone); positions stay."""
        row_B = self.negative_rows(stages, batch, epoch)
        text_BLd, mask_BL = stages.text_BLd[row_B], batch.text_mask_BL[row_B]
        return self.fuse(stages.video_BTd, stages.positions_BTd, batch.video_mask_BT, text_BLd, mask_BL)

    @torch.no_grad()
    def negative_rows(self, stages: Stages, batch: Batch, epoch: float) -> Tensor:
        """(B,) whose sentence is the negative: the next sample's, later the least similar one."""
        if epoch < self.config.negative_epoch:
            return torch.arange(len(stages.text_BLd), device=stages.text_BLd.device).roll(-1)
        video_Bd, clips_BTd, sentence_Bd = self.alignment(stages)
        clip_mean_Bd = masked_mean(clips_BTd, self._seen(batch.video_mask_BT)[..., None], 1)
        shares_BB = (video_Bd @ sentence_Bd.T).softmax(1) + (clip_mean_Bd @ sentence_Bd.T).softmax(1)
        return shares_BB.argmin(1)

    def alignment(self, stages: Stages) -> tuple[Tensor, Tensor, Tensor]:
        """Unit vectors of the whole video (B, d), of the clips (B, T, d) and of the sentence (B, d)."""
        fused = stages.fused
        return (
            F.normalize(self.align_video(fused.global_Bd), dim=-1),
            F.normalize(self.align_video(fused.mixed_BTd), dim=-1),
            F.normalize(self.align_text(fused.sentence_Bd), dim=-1),
        )

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """Set losses of every decoder layer, saliency with a negative pass, alignment, the plug-in's two."""
        c, targets = self.config, batch.targets
        assert targets is not None
        stages = self.stages(batch)
        terms = {
            "saliency": self._saliency(stages, batch, targets, epoch),
            "contrast": self._contrast(stages, batch, targets),
        }
        if c.task == "moments":
            truth_cw = targets_as_fractions(targets.windows_clip, batch.video_mask_BT)
            terms |= set_terms(stages.logits_NBQ2, stages.spans_cw_NBQ2, truth_cw, background=c.background)
        if self.distill is not None:
            terms["align"], terms["similarity"] = self.distill(
                batch, self.video_in, self.text_in, stages.projected_BTd, stages.text_BLd, epoch
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

    def _saliency(self, stages: Stages, batch: Batch, targets: Targets, epoch: float) -> Tensor:
        return against_negative(
            stages.fused.saliency_BT,
            self.negative_pass(stages, batch, epoch).saliency_BT,
            targets.saliency_BT,
            batch.video_mask_BT,
            targets.positive_clip_BP,
            targets.negative_clip_BP,
            self.config.margin,
        )

    def _contrast(self, stages: Stages, batch: Batch, targets: Targets) -> Tensor:
        """Videos find their sentences and back; clips of the first window are more alike than the others."""
        video_Bd, clips_BTd, sentence_Bd = self.alignment(stages)
        of_video = info_nce(video_Bd, sentence_Bd, 1.0) / 2
        if not self.config.clip_alignment:
            return of_video
        mask_BT, seen_BT = batch.video_mask_BT, self._seen(batch.video_mask_BT)
        alike_BT = torch.einsum("btd,bd->bt", clips_BTd, sentence_Bd).masked_fill(~seen_BT, -torch.inf)
        inside_BT = first_window(targets.windows_clip, mask_BT, self.config.faithful) & mask_BT
        share_BT = alike_BT.log_softmax(1).masked_fill(~inside_BT, 0.0)
        return of_video - share_BT.sum() / seen_BT.sum() / 2


def first_window(windows_clip: tuple[Tensor, ...], mask_BT: Tensor, faithful: bool) -> Tensor:
    """(B, T) clips of each sample's first window, from floor(start) to floor(end) - 1.

    A number just below a whole clip counts as that clip; the published code floors what its float32 way from
    start and end to centre and width and back leaves of it, and may lose a clip.
    """
    bounds = []
    for window_G2, truth_cw, clips in zip(
        windows_clip, targets_as_fractions(windows_clip, mask_BT), mask_BT.sum(1), strict=True
    ):
        if not len(window_G2):
            bounds.append(torch.zeros(2, device=mask_BT.device))
        elif faithful:
            bounds.append((cw_to_se(truth_cw[0].float()) * clips).floor())
        else:
            bounds.append((window_G2[0].to(mask_BT.device) + GRID_TOLERANCE).floor())
    bounds_B2 = torch.stack(bounds)
    clip_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    return (clip_T >= bounds_B2[:, :1]) & (clip_T < bounds_B2[:, 1:])


def _draw(model: UVCOM) -> None:
    """Everything between projections and heads starts Xavier-uniform, centres and table as well."""
    inner = (
        model.to_words,
        model.to_clips,
        model.sentence_in,
        model.local,
        model.centre_attention,
        model.encoder,
        model.slot,
        model.decoder,
        model.align_video,
        model.align_text,
    )
    draw_xavier(*(module for module in inner if module is not None))
    for parameter in (model.text_centres_Kd, model.video_centres_Kd, model.content_Qd):
        nn.init.xavier_uniform_(parameter)
