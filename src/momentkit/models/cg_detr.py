"""CG-DETR: dummies take the attention that clips owe to no word, and the token in front adapts to the video.

    text  (B,L,E) -- projection --+-- dummy encoder -- dummies (K) --+
                                  +----------------------------------+-- keys; values are words alone
    video (B,T,D) -- projection -- cross layers (look at keys) -- [token; clips] -- encoder -- memory
                         +-- moment-adaptive token, from learned prompts --+
    memory + token -- saliency (B,T);  anchors (Q,2) -- anchor decoder -- moments (B,Q)
    training: sentence encoder, moment encoder -- alignment of both, target of the attention map

Source   Moon et al., "Correlation-Guided Query-Dependency Calibration for Video Temporal Grounding",
         arXiv 2311.08835. Where paper and published code differ we follow the code: means in the orthogonal
         and distillation losses, one fixed column in the contrast of dummy sentences. Faults of the published
         code that `faithful=True` brings back: the cross-attention mask tiled in the wrong order; means over
         padding; padded words in the target of the attention map; a single false negative without a rank term
         and false negatives without one on attention; a sigmoid that saturates before its logarithm.
         Plug-ins of LD-DETR: `decoder_loops`, `distill_align`.
Shapes   B videos  T clips  L words  K dummies  M = K + L  P prompts  D, E input widths  d hidden  Q queries
         N decoder layers  R samples with a real negative
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.config import check_sizes
from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Losses, Prediction, Targets
from momentkit.losses.saliency import margin, negative_pair, rank
from momentkit.losses.spans import set_terms, targets_as_fractions
from momentkit.nn.attention import BareAttention
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
from momentkit.nn.pointwise import PReLU
from momentkit.nn.positions import TextPositions, clip_positions
from momentkit.nn.transformer import (
    CrossLayer,
    EncoderLayer,
    InputProjection,
    PathDrop,
    draw_xavier,
    released_mask,
)


@dataclass(frozen=True, kw_only=True)
class CGDETRConfig:
    """Options; the defaults are the published QVHighlights run."""

    video_dim: int = 2818  # clip features with the two time channels, audio included where there is any
    text_dim: int = 512
    hidden: int = 256
    heads: int = 8
    feed_forward: int = 1024
    input_layers: int = 2
    dummies: int = 45  # learned keys that absorb attention of clips which no word describes
    prompts: int = 10  # of which the token in front of the clips is made
    top_prompts: int = 1  # how many of them a video uses
    dummy_layers: int = 2
    sentence_layers: int = 1
    moment_layers: int = 1
    cross_layers: int = 2
    encoder_layers: int = 3
    decoder_layers: int = 3
    queries: int = 10
    dropout: float = 0.1
    input_dropout: float = 0.5
    sentence_dropout: float = 0.1  # dummy and sentence encoders; stays 0.1 in every published run
    text_positions: int = 0  # learned positions for so many words; 0 = none (published)
    task: Literal["moments", "highlights"] = "moments"  # highlights: the saliency loss alone
    margin: float = 0.2
    background: float = 0.1  # weight of an unmatched query in the label loss
    weight_span: float = 10.0
    weight_giou: float = 1.0
    weight_label: float = 4.0
    weight_saliency: float = 1.0
    weight_alignment: float = 1.0  # moments with sentences, "ms_align"
    weight_distillation: float = 1.0  # the attention map learns from the alignment
    weight_orthogonal: float = 1.0  # dummies, and prompts, unlike each other
    weight_attention: float = 1.0  # of the attention part within the saliency loss
    weight_negative: float = 1.0  # of the negative-pair terms within the saliency loss; YouTube Highlights 0
    decoder_loops: int = 1  # LD-DETR's Loop Decoder
    distill_align: bool = False  # LD-DETR's Distill Align, in training
    distill_memory: int = 65_536
    distill_share: float = 0.4
    weight_align: float = 0.6
    weight_similarity: float = 0.6
    faithful: bool = False  # the published arithmetic on padding and on false negatives

    def __post_init__(self) -> None:
        check_sizes(self, multiple_of=4)
        if not (self.dummies >= 1 and 1 <= self.top_prompts <= self.prompts):
            raise ConfigError(
                f"dummies must be at least 1 and top_prompts between 1 and prompts, got {self.dummies} "
                f"dummies and {self.top_prompts} of {self.prompts} prompts"
            )


class Clips(NamedTuple):
    """A video as the network sees it: typed projections."""

    video_BTd: Tensor
    place_BTd: Tensor
    mask_BT: Tensor


class Bank(NamedTuple):
    """What clips look at."""

    dummies_BKd: Tensor  # they have seen the sentence
    words_BLd: Tensor  # typed projections; what the dummy encoder makes of words is not used
    place_BLd: Tensor  # zeros unless the option is on
    mask_BL: Tensor


@dataclass(frozen=True)
class Fused:
    """Video that has looked at a sentence."""

    cross_BTd: Tensor
    attention_BTM: Tensor  # mean over heads and layers; dummies first, then words
    encoded_BTd: Tensor
    global_Bd: Tensor
    memory_BTd: Tensor  # encoded clips plus the token
    word_mass_BT: Tensor  # attention on words, in [0, 1]
    saliency_BT: Tensor


@dataclass(frozen=True)
class Stages:
    """All that the network computes on the way; what losses, predictions and parity read."""

    video_BTd: Tensor  # projections, without types
    text_BLd: Tensor
    clips: Clips
    bank: Bank
    fused: Fused
    decoded: Decoded
    logits_NBQ2: Tensor
    spans_cw_NBQ2: Tensor


@dataclass(frozen=True)
class Aligned:
    """What training compares: the moment, the rest of the video, the sentence, the dummies' sentence."""

    inside_BT: Tensor  # True = a real clip of the moment
    moment_Bd: Tensor
    moment_BTd: Tensor
    rest_Bd: Tensor
    rest_BTd: Tensor
    sentence_Bd: Tensor
    dummy_sentence_Bd: Tensor
    bank_BMd: Tensor  # dummies, then words, as the sentence encoder leaves them


class CGDETR(nn.Module):
    """The network and its losses."""

    def __init__(self, config: CGDETRConfig) -> None:
        super().__init__()
        self.config = c = config
        d = c.hidden
        self.video_in = InputProjection(c.video_dim, d, c.input_layers, c.input_dropout)
        self.text_in = InputProjection(c.text_dim, d, c.input_layers, c.input_dropout)
        self.text_positions = (
            TextPositions(c.text_positions, d, c.input_dropout) if c.text_positions else None
        )
        self.types = nn.Parameter(torch.randn(2, d) * 0.02)  # row 0 text, row 1 video
        self.dummy_tokens = nn.Parameter(torch.randn(c.dummies, d))
        self.dummy_positions = nn.Parameter(torch.randn(c.dummies, d))
        self.prompts = nn.Parameter(torch.randn(c.prompts, d))
        self.token_position = nn.Parameter(torch.randn(1, d))
        self.sentence_token, self.sentence_position = (nn.Parameter(torch.randn(d)) for _ in range(2))
        self.moment_token, self.moment_position = (nn.Parameter(torch.randn(d)) for _ in range(2))

        def encoder(layers: int, rate: float) -> nn.ModuleList:
            sizes = d, c.heads, c.feed_forward, rate
            return nn.ModuleList(EncoderLayer(*sizes, PathDrop(rate), PReLU()) for _ in range(layers))

        sizes = d, c.heads, c.feed_forward, c.dropout
        self.dummy_encoder = encoder(c.dummy_layers, c.sentence_dropout)
        self.sentence_encoder = encoder(c.sentence_layers, c.sentence_dropout)
        self.moment_encoder = encoder(c.moment_layers, c.dropout)
        self.cross = nn.ModuleList(
            CrossLayer(BareAttention(d, c.heads, c.dropout), d, *sizes[2:], PathDrop(c.dropout), PReLU())
            for _ in range(c.cross_layers)
        )
        self.encoder = encoder(c.encoder_layers, c.dropout)
        self.decoder = AnchorDecoder(
            [
                AnchorDecoderLayer(*sizes, PathDrop(c.dropout), PReLU(), first=index == 0)
                for index in range(c.decoder_layers)
            ],
            d,
        )
        draw_xavier(self.moment_encoder, self.cross, self.encoder, self.decoder)
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
        place_BTd = clip_positions(batch.video_mask_BT, self.config.hidden)
        clips = Clips(video_BTd + self.types[1], place_BTd, batch.video_mask_BT)
        bank = self._bank(text_BLd + self.types[0], batch.text_mask_BL)
        fused = self.fuse(clips, bank)

        def decode(content_BQd: Tensor) -> Decoded:
            return self.decoder(content_BQd, fused.memory_BTd, clips.mask_BT, place_BTd, self.anchors)

        content_BQd = video_BTd.new_zeros(len(video_BTd), self.config.queries, self.config.hidden)
        decoded = loop(decode, content_BQd, self.config.decoder_loops)
        logits_NBQ2, spans_cw_NBQ2 = self.head(decoded.hidden_NBQD, decoded.entering_NBQ2)
        return Stages(video_BTd, text_BLd, clips, bank, fused, decoded, logits_NBQ2, spans_cw_NBQ2)

    def _bank(self, words_BLd: Tensor, mask_BL: Tensor) -> Bank:
        """Dummies look at the words, and at each other."""
        place_BLd = (
            torch.zeros_like(words_BLd) if self.text_positions is None else self.text_positions(words_BLd)
        )
        encoded = encode(
            self.dummy_encoder, self.dummy_tokens, self.dummy_positions, words_BLd, place_BLd, mask_BL
        )
        return Bank(encoded[:, : self.config.dummies], words_BLd, place_BLd, mask_BL)

    def fuse(self, clips: Clips, bank: Bank) -> Fused:
        """Cross layers with dummies, the adaptive token, encoder, saliency."""
        c = self.config
        mask_BM = F.pad(bank.mask_BL, (c.dummies, 0), value=True)
        blocked = released_mask(clips.mask_BT, mask_BM, c.heads) if c.faithful else None
        keys_BMd = torch.cat([bank.dummies_BKd + self.dummy_positions, bank.words_BLd + bank.place_BLd], 1)
        cross_BTd, maps = clips.video_BTd, []
        for layer in self.cross:
            cross_BTd, map_BTM = layer(cross_BTd, clips.place_BTd, keys_BMd, bank.words_BLd, mask_BM, blocked)
            maps.append(map_BTM)
        attention_BTM = torch.stack(maps).mean(0)
        word_mass_BT = attention_BTM[..., c.dummies :].sum(-1)  # padded words hold exactly 0

        token_B1d = self.adaptive_token(clips, word_mass_BT)
        # It passes the same layers with nothing to look at: attention gives the bias of its out-projection.
        nothing_B1d, one_B1 = torch.zeros_like(token_B1d), torch.ones_like(clips.mask_BT[:, :1])
        for layer in self.cross:
            token_B1d, _ = layer(token_B1d, self.token_position, nothing_B1d, nothing_B1d, one_B1)

        sequence = encode(
            self.encoder, token_B1d, self.token_position, cross_BTd, clips.place_BTd, clips.mask_BT
        )
        global_Bd, encoded_BTd = sequence[:, 0], sequence[:, 1:]
        memory_BTd = encoded_BTd + global_Bd[:, None]
        saliency_BT = (self.saliency_clip(memory_BTd) * self.saliency_global(global_Bd)[:, None]).sum(-1)
        return Fused(
            cross_BTd=cross_BTd,
            attention_BTM=attention_BTM,
            encoded_BTd=encoded_BTd,
            global_Bd=global_Bd,
            memory_BTd=memory_BTd,
            word_mass_BT=word_mass_BT.clamp(0, 1),
            saliency_BT=saliency_BT / c.hidden**0.5,
        )

    def adaptive_token(self, clips: Clips, word_mass_BT: Tensor) -> Tensor:
        """(B, 1, d): the mean clip plus the prompts that the clips on the sentence resemble most."""
        context_B1d = masked_mean(clips.video_BTd, clips.mask_BT[..., None], 1)[:, None].detach()
        # Clips that are all alike, or a single one, deviate by nothing. With torch's own bound of 1e-12 their
        # gradient would be of the order of 1e12.
        apart_BTd = F.normalize(clips.video_BTd - context_B1d, dim=-1, eps=1e-2)
        share_BTP = (apart_BTd @ F.normalize(self.prompts, dim=-1).T).softmax(-1)
        weight_BT = (word_mass_BT * clips.mask_BT).detach()
        weight_BT = weight_BT / weight_BT.sum(1, keepdim=True).clamp(min=torch.finfo(weight_BT.dtype).tiny)
        value_Bk, index_Bk = (share_BTP * weight_BT[..., None]).sum(1).topk(self.config.top_prompts, dim=1)
        return (value_Bk[..., None] * self.prompts[index_Bk]).sum(1, keepdim=True) + context_B1d

    def negative_pass(self, stages: Stages, batch: Batch) -> tuple[Tensor, Fused | None]:
        """Each video with the sentence of the next sample, where that is another video's.

        Returns:
            (B,) which samples have a real negative, and the fused pass of those (None if there are none).
        """
        samples, device = len(batch.video_BTD), batch.video_BTD.device
        keys = batch.video_keys or tuple(map(str, range(samples)))
        differ = [key != other for key, other in zip(keys, keys[1:] + keys[:1], strict=True)]
        real_B = torch.tensor(differ, device=device)
        if not any(differ):
            return real_B, None
        other_R = (real_B.nonzero()[:, 0] + 1) % samples
        bank = Bank(*(part[other_R] for part in stages.bank))
        if self.config.faithful:
            bank = bank._replace(place_BLd=stages.bank.place_BLd[real_B])
        return real_B, self.fuse(Clips(*(part[real_B] for part in stages.clips)), bank)

    def align(self, stages: Stages, label_BT: Tensor) -> Aligned:
        """The moment and the rest of each video, its sentence, and what its dummies say instead."""
        clips, bank = stages.clips, stages.bank
        inside_BT = clips.mask_BT & (label_BT > 0)
        moment_token, moment_place = self.moment_token[None], self.moment_position[None]
        sentence_token, sentence_place = self.sentence_token[None], self.sentence_position[None]
        moment, rest = (
            encode(self.moment_encoder, moment_token, moment_place, clips.video_BTd, clips.place_BTd, mask_BT)
            for mask_BT in (inside_BT, clips.mask_BT & ~inside_BT)
        )
        place_BKd = self.dummy_positions.expand_as(bank.dummies_BKd)
        everything_BK = torch.ones_like(bank.dummies_BKd[..., 0], dtype=torch.bool)
        words, dummies = (
            encode(self.sentence_encoder, sentence_token, sentence_place, x, place, mask)
            for x, place, mask in (
                (bank.words_BLd, bank.place_BLd, bank.mask_BL),
                (bank.dummies_BKd, place_BKd, everything_BK),
            )
        )
        return Aligned(
            inside_BT=inside_BT,
            moment_Bd=moment[:, 0],
            moment_BTd=moment[:, 1:],
            rest_Bd=rest[:, 0],
            rest_BTd=rest[:, 1:],
            sentence_Bd=words[:, 0],
            dummy_sentence_Bd=dummies[:, 0],
            bank_BMd=torch.cat([dummies[:, 1:], words[:, 1:]], 1),
        )

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """Set losses of every decoder layer, saliency, alignment, distillation, and the plug-in's two."""
        c, targets = self.config, batch.targets
        assert targets is not None
        stages = self.stages(batch)
        terms = {"saliency": self._saliency(stages, batch, targets)}
        if c.task == "moments":
            truth_cw = targets_as_fractions(targets.windows_clip, batch.video_mask_BT)
            terms |= set_terms(stages.logits_NBQ2, stages.spans_cw_NBQ2, truth_cw, background=c.background)
            aligned = self.align(stages, targets.saliency_BT)
            terms["alignment"] = self._alignment(aligned, batch.video_mask_BT)
            terms["distillation"] = self._distillation(stages, aligned)
            terms["orthogonal"] = unlike(stages.bank.dummies_BKd) + unlike(self.prompts)
        if self.distill is not None:
            terms["align"], terms["similarity"] = self.distill(
                batch, self.video_in, self.text_in, stages.video_BTd, stages.text_BLd, epoch
            )
        return Losses(terms, {name: getattr(c, f"weight_{name.split('_')[0]}") for name in terms})

    def _alignment(self, aligned: Aligned, mask_BT: Tensor) -> Tensor:
        """Moments find their sentence and their clips, and the rest of the video does not."""
        moment_Bd, rest_Bd, sentence_Bd, dummy_Bd = (
            F.normalize(x, dim=-1)
            for x in (aligned.moment_Bd, aligned.rest_Bd, aligned.sentence_Bd, aligned.dummy_sentence_Bd)
        )
        own_B = torch.arange(len(moment_Bd), device=moment_Bd.device)
        fixed_B = (own_B == 0).long()  # as published: sample 0 finds column 1, every other one column 0
        sentences = F.cross_entropy(torch.cat([moment_Bd @ sentence_Bd.T, rest_Bd @ sentence_Bd.T], 1), own_B)
        dummies = F.cross_entropy(torch.cat([moment_Bd @ dummy_Bd.T, rest_Bd @ dummy_Bd.T], 1), fixed_B)

        clip_BTd = torch.where(aligned.inside_BT[..., None], aligned.moment_BTd, aligned.rest_BTd)
        logit_BT = (clip_BTd @ aligned.moment_Bd[..., None]).squeeze(-1)
        label_BT = aligned.inside_BT.to(logit_BT)
        if self.config.faithful:
            clips = (_cross_entropy(logit_BT.sigmoid(), label_BT) * mask_BT).mean()
        else:
            clips = F.binary_cross_entropy_with_logits(logit_BT[mask_BT], label_BT[mask_BT])
        return sentences + dummies + clips

    def _distillation(self, stages: Stages, aligned: Aligned) -> Tensor:
        """The attention map of the moment's clips follows their likeness to words and dummies."""
        mask_BM = F.pad(stages.bank.mask_BL, (self.config.dummies, 0), value=True)
        mask_BM = torch.ones_like(mask_BM) if self.config.faithful else mask_BM
        score_BTM = (aligned.moment_BTd @ aligned.bank_BMd.mT).masked_fill(~mask_BM[:, None], -inf)
        log_map_BTM = (stages.fused.attention_BTM + 1e-6).log()
        gap_BTM = F.kl_div(log_map_BTM, score_BTM.softmax(-1).detach(), reduction="none")
        gap_BT = gap_BTM.sum(-1) / mask_BM.sum(1, keepdim=True)
        return masked_mean(gap_BT.flatten(), aligned.inside_BT.flatten(), 0)

    def _saliency(self, stages: Stages, batch: Batch, targets: Targets) -> Tensor:
        """Margin, rank and negative-pair terms on saliency, and the same on the attention on words."""
        c, mask_BT = self.config, batch.video_mask_BT
        fused = stages.fused
        real_B, negative = self.negative_pass(stages, batch)
        scores, masses = (
            (fused.saliency_BT, None if negative is None else negative.saliency_BT),
            (fused.word_mass_BT, None if negative is None else negative.word_mass_BT),
        )
        # Published: a single false negative is normalised over one element; the attention part drops all.
        rank_false = not c.faithful or len(real_B) - int(real_B.sum()) > 1
        loss = self._contrast(*scores, real_B, mask_BT, targets, rank_false)
        attention = self._contrast(*masses, real_B, mask_BT, targets, not c.faithful)
        counted_BT = torch.ones_like(mask_BT) if c.faithful else mask_BT
        label_BT = targets.saliency_BT.clamp(0, 1)
        attention = attention + _cross_entropy(fused.word_mass_BT[counted_BT], label_BT[counted_BT]).mean()
        if negative is not None:
            loss = loss + c.weight_negative * negative_pair(negative.saliency_BT, mask_BT[real_B])
            unlikely_RT = -(1 - negative.word_mass_BT).clamp(min=1e-7).log()
            attention = attention + c.weight_negative * (unlikely_RT * mask_BT[real_B]).sum(1).mean()
        return loss + c.weight_attention * attention

    def _contrast(
        self,
        score_BT: Tensor,
        negative_RT: Tensor | None,
        real_B: Tensor,
        mask_BT: Tensor,
        targets: Targets,
        rank_false: bool,
    ) -> Tensor:
        """Margin, and rank with the negative pass beside the positive one where the negative is real."""
        label_BT = targets.saliency_BT
        loss = margin(score_BT, targets.positive_clip_BP, targets.negative_clip_BP, self.config.margin)
        if negative_RT is None:
            return loss + rank(score_BT, label_BT, mask_BT)
        loss = loss + rank(
            torch.cat([score_BT[real_B], negative_RT], 1),
            F.pad(label_BT[real_B], (0, negative_RT.shape[1])),
            mask_BT[real_B].repeat(1, 2),
        )
        if not rank_false:
            return loss
        return loss + rank(score_BT[~real_B], label_BT[~real_B], mask_BT[~real_B])


def encode(
    layers: Iterable[nn.Module],
    tokens: Tensor,
    token_positions: Tensor,
    x_BMd: Tensor,
    positions_BMd: Tensor,
    mask_BM: Tensor,
) -> Tensor:
    """Encoder layers on tokens in front of a sequence.

    Args:
        layers: `EncoderLayer`s.
        tokens, token_positions: (K, d) or (B, K, d); never masked.
        x_BMd, positions_BMd, mask_BM: the sequence.

    Returns:
        (B, K + M, d).
    """
    sequence, positions = (
        torch.cat([front.expand(len(x_BMd), -1, -1), x], 1)
        for front, x in ((tokens, x_BMd), (token_positions, positions_BMd))
    )
    mask = F.pad(mask_BM, (tokens.shape[-2], 0), value=True)
    for layer in layers:
        sequence = layer(sequence, positions, mask)
    return sequence


def unlike(rows: Tensor) -> Tensor:
    """Mean, over all pairs and the diagonal, of |cosine| between different rows (..., K, d)."""
    rows = F.normalize(rows, dim=-1)
    cosine = rows @ rows.detach().mT
    return (cosine * (1 - torch.eye(rows.shape[-2], device=rows.device))).abs().mean()


def _cross_entropy(share: Tensor, label: Tensor) -> Tensor:
    """Binary cross entropy of each share in [0, 1]; torch refuses it in mixed precision."""
    with torch.autocast(share.device.type, enabled=False):
        return F.binary_cross_entropy(share.float(), label.float(), reduction="none")
