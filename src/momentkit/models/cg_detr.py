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

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Targets
from momentkit.losses.saliency import against_real, negative_pair, real_negatives, share_cross_entropy
from momentkit.models import family
from momentkit.nn.attention import BareAttention
from momentkit.nn.masks import masked_mean
from momentkit.nn.pointwise import PReLU
from momentkit.nn.transformer import CrossLayer, PathDrop, encode_behind, look


@dataclass(frozen=True, kw_only=True)
class CGDETRConfig(family.AnchorConfig):
    """Options; the defaults are the published QVHighlights run."""

    dummies: int = 45  # learned keys that absorb attention of clips which no word describes
    prompts: int = 10  # of which the token in front of the clips is made
    top_prompts: int = 1  # how many of them a video uses
    dummy_layers: int = 2
    sentence_layers: int = 1
    moment_layers: int = 1
    encoder_layers: int = 3
    decoder_layers: int = 3
    sentence_dropout: float = 0.1  # dummy and sentence encoders; stays 0.1 in every published run
    text_positions: int = 0  # learned positions for so many words; 0 = none (published)
    background: float = 0.1  # weight of an unmatched query in the label loss
    weight_alignment: float = 1.0  # moments with sentences, "ms_align"
    weight_distillation: float = 1.0  # the attention map learns from the alignment
    weight_orthogonal: float = 1.0  # dummies, and prompts, unlike each other
    weight_attention: float = 1.0  # of the attention part within the saliency loss
    weight_negative: float = 1.0  # of the negative-pair terms within the saliency loss; YouTube Highlights 0

    def __post_init__(self) -> None:
        super().__post_init__()
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
class Stages(family.AnchorStages):
    """All that the network computes on the way; projections in `given` are without types."""

    clips: Clips
    bank: Bank
    fused: Fused


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


class CGDETR(family.AnchorModel[CGDETRConfig, Stages]):
    """The network and its losses."""

    def __init__(self, config: CGDETRConfig) -> None:
        super().__init__(config, config.text_positions)
        c, d = config, config.hidden
        self.types = nn.Parameter(torch.randn(2, d) * 0.02)  # row 0 text, row 1 video
        self.dummy_tokens = nn.Parameter(torch.randn(c.dummies, d))
        self.dummy_positions = nn.Parameter(torch.randn(c.dummies, d))
        self.prompts = nn.Parameter(torch.randn(c.prompts, d))
        self.token_position = nn.Parameter(torch.randn(1, d))
        self.sentence_token, self.sentence_position = (nn.Parameter(torch.randn(d)) for _ in range(2))
        self.moment_token, self.moment_position = (nn.Parameter(torch.randn(d)) for _ in range(2))
        self.dummy_encoder = family.encoder_stack(c, c.dummy_layers, PathDrop, c.sentence_dropout)
        self.sentence_encoder = family.encoder_stack(c, c.sentence_layers, PathDrop, c.sentence_dropout)
        self.moment_encoder = family.encoder_stack(c, c.moment_layers, PathDrop)
        sizes = d, c.feed_forward, c.dropout
        self.cross = nn.ModuleList(
            CrossLayer(BareAttention(d, c.heads, c.dropout), *sizes, PathDrop(c.dropout), PReLU())
            for _ in range(c.cross_layers)
        )
        self.encoder = family.encoder_stack(c, c.encoder_layers, PathDrop)
        self.add_decoder(self.moment_encoder, self.cross, self.encoder, residual=PathDrop)
        self.saliency_clip, self.saliency_global = nn.Linear(d, d), nn.Linear(d, d)
        self.distill = self.plug_in()

    def stages(self, batch: Batch) -> Stages:
        """The whole network; see the picture at the top of the file."""
        given = self.project(batch)
        clips = Clips(given.video_BTd + self.types[1], given.place_BTd, given.mask_BT)
        bank = self._bank(given.text_BLd + self.types[0], given.mask_BL)
        fused = self.fuse(clips, bank)
        decoded, logits, spans = self.decode(given, fused.memory_BTd)
        return Stages(given, logits, spans, fused.saliency_BT, decoded, clips, bank, fused)

    def _bank(self, words_BLd: Tensor, mask_BL: Tensor) -> Bank:
        """Dummies look at the words, and at each other."""
        place_BLd = self.word_positions(words_BLd)
        dummies = self.dummy_tokens, self.dummy_positions
        encoded = encode_behind(*dummies, self.dummy_encoder, words_BLd, place_BLd, mask_BL)
        return Bank(encoded[:, : self.config.dummies], words_BLd, place_BLd, mask_BL)

    def fuse(self, clips: Clips, bank: Bank) -> Fused:
        """Cross layers with dummies, the adaptive token, encoder, saliency."""
        dummies = self.config.dummies
        mask_BM = F.pad(bank.mask_BL, (dummies, 0), value=True)
        keys_BMd = torch.cat([bank.dummies_BKd + self.dummy_positions, bank.words_BLd + bank.place_BLd], 1)
        at_bank = keys_BMd, bank.words_BLd, mask_BM, self.blocked(clips.mask_BT, mask_BM)
        cross_BTd, maps = look(self.cross, clips.video_BTd, clips.place_BTd, *at_bank)
        attention_BTM = torch.stack(maps).mean(0)
        word_mass_BT = attention_BTM[..., dummies:].sum(-1)  # padded words hold exactly 0

        token_B1d = self.adaptive_token(clips, word_mass_BT)
        # It passes the same layers with nothing to look at: attention gives the bias of its out-projection.
        nothing_B1d, one_B1 = torch.zeros_like(token_B1d), torch.ones_like(clips.mask_BT[:, :1])
        token_B1d, _ = look(self.cross, token_B1d, self.token_position, nothing_B1d, nothing_B1d, one_B1)

        token = token_B1d, self.token_position
        sequence = encode_behind(*token, self.encoder, cross_BTd, clips.place_BTd, clips.mask_BT)
        global_Bd, encoded_BTd = sequence[:, 0], sequence[:, 1:]
        memory_BTd = encoded_BTd + global_Bd[:, None]
        return Fused(
            cross_BTd,
            attention_BTM,
            encoded_BTd,
            global_Bd,
            memory_BTd,
            word_mass_BT.clamp(0, 1),
            family.against_token(self.saliency_clip(memory_BTd), self.saliency_global(global_Bd)),
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
        real_B, other_R = real_negatives(batch)
        if not len(other_R):
            return real_B, None
        bank = Bank(*(part[other_R] for part in stages.bank))
        if self.config.faithful:
            bank = bank._replace(place_BLd=stages.bank.place_BLd[real_B])
        return real_B, self.fuse(Clips(*(part[real_B] for part in stages.clips)), bank)

    def align(self, stages: Stages, label_BT: Tensor) -> Aligned:
        """The moment and the rest of each video, its sentence, and what its dummies say instead."""
        clips, bank = stages.clips, stages.bank
        inside_BT = clips.mask_BT & (label_BT > 0)
        moment_token = self.moment_token[None], self.moment_position[None]
        sentence_token = self.sentence_token[None], self.sentence_position[None]
        moment, rest = (
            encode_behind(*moment_token, self.moment_encoder, clips.video_BTd, clips.place_BTd, mask_BT)
            for mask_BT in (inside_BT, clips.mask_BT & ~inside_BT)
        )
        place_BKd = self.dummy_positions.expand_as(bank.dummies_BKd)
        everything_BK = torch.ones_like(bank.dummies_BKd[..., 0], dtype=torch.bool)
        words, dummies = (
            encode_behind(*sentence_token, self.sentence_encoder, x, place, mask)
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

    def terms(self, stages: Stages, batch: Batch, targets: Targets, epoch: float) -> dict[str, Tensor]:
        """Saliency, set losses of every decoder layer, alignment, distillation, dummies unlike each other."""
        terms = {"saliency": self._saliency(stages, batch, targets)}
        if self.config.task == "highlights":
            return terms
        aligned = self.align(stages, targets.saliency_BT)
        return {
            **terms,
            **self.set_terms(stages, batch, self.config.background),
            "alignment": self._alignment(aligned, batch.video_mask_BT),
            "distillation": self._distillation(stages, aligned),
            "orthogonal": unlike(stages.bank.dummies_BKd) + unlike(self.prompts),
        }

    def weights(self) -> dict[str, float]:
        """Of all terms."""
        c = self.config
        return super().weights() | {
            "alignment": c.weight_alignment,
            "distillation": c.weight_distillation,
            "orthogonal": c.weight_orthogonal,
        }

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
            clips = (_published_cross_entropy(logit_BT, label_BT) * mask_BT).mean()
        else:
            clips = F.binary_cross_entropy_with_logits(logit_BT[mask_BT], label_BT[mask_BT])
        return sentences + dummies + clips

    def _distillation(self, stages: Stages, aligned: Aligned) -> Tensor:
        """The attention map of the moment's clips follows their likeness to words and dummies."""
        mask_BM = F.pad(stages.bank.mask_BL, (self.config.dummies, 0), value=True)
        mask_BM = self.counted(mask_BM)
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
        negative_RT, negative_mass_RT = (
            (None, None) if negative is None else (negative.saliency_BT, negative.word_mass_BT)
        )
        # Published: a single false negative is normalised over one element; the attention part drops all.
        rank_false = not c.faithful or int((~real_B).sum()) > 1
        rest = real_B, targets, mask_BT, c.margin
        loss = against_real(fused.saliency_BT, negative_RT, *rest, rank_false)
        attention = against_real(fused.word_mass_BT, negative_mass_RT, *rest, not c.faithful)
        counted_BT, label_BT = self.counted(mask_BT), targets.saliency_BT.clamp(0, 1)
        attention = attention + share_cross_entropy(fused.word_mass_BT[counted_BT], label_BT[counted_BT])
        if negative is not None:
            loss = loss + c.weight_negative * negative_pair(negative.saliency_BT, mask_BT[real_B])
            unlikely_RT = -(1 - negative.word_mass_BT).clamp(min=1e-7).log()
            attention = attention + c.weight_negative * (unlikely_RT * mask_BT[real_B]).sum(1).mean()
        return loss + c.weight_attention * attention


def unlike(rows: Tensor) -> Tensor:
    """Mean, over all pairs and the diagonal, of |cosine| between different rows (..., K, d)."""
    rows = F.normalize(rows, dim=-1)
    cosine = rows @ rows.detach().mT
    return (cosine * (1 - torch.eye(rows.shape[-2], device=rows.device))).abs().mean()


def _published_cross_entropy(logit: Tensor, label: Tensor) -> Tensor:
    """Binary cross entropy of each entry, by way of its sigmoid; torch refuses it in mixed precision."""
    with torch.autocast(logit.device.type, enabled=False):
        return F.binary_cross_entropy(logit.sigmoid().float(), label.float(), reduction="none")
