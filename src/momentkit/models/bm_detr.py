"""BM-DETR: clips know how likely they match the sentence, and how likely another one.

    video (B,T,D) --+-- [clips; words] -- encoder --+-- decoder, anchors stay ----------------- moments (B,Q)
    text  (B,L,E) --+                               +-- match (B,T) -- softmax x clips -- saliency (B,T)
    another sentence --- the same encoder ------------- match of that one lowers the first (in training)

Source   Jung et al., "Background-aware Moment Detection for Video Moment Retrieval", WACV 2025. Where paper
         and published code differ we follow the code, but for these (`faithful=True` brings them back): the
         softmax over clips counts padding; a shifted moment is one clip short and its clips carry their time
         channels along; the share of wrong matches is a constant in the loss.
         Plug-ins of LD-DETR: `decoder_loops`, `distill_align`.
Shapes   B videos  T clips  L words  M clips and words  D, E input widths  d hidden  Q queries  N layers
"""

from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Losses, Targets
from momentkit.losses.contrastive import info_nce
from momentkit.losses.matching import match
from momentkit.losses.saliency import margin
from momentkit.losses.spans import set_terms, targets_as_fractions
from momentkit.models import family
from momentkit.nn.decoder import AnchorDecoderLayer, SpanHead, loop, span_positions
from momentkit.nn.masks import masked_mean, masked_softmax
from momentkit.nn.transformer import Mlp, draw_xavier

GRID_TOLERANCE = 1e-4  # a window's border so close to a clip's lies on it
COSTS = (1.0, 8.0, 8.0)  # of the matcher: span, overlap, class


@dataclass(frozen=True, kw_only=True)
class BMDETRConfig(family.FamilyConfig):
    """Options; the defaults are the published QVHighlights run."""

    encoder_layers: int = 3
    decoder_layers: int = 3
    contrast: int = 256  # width of the vectors that are contrasted
    temperature: float = 0.07
    shifting: bool = False  # train on a second copy of each video with its moment moved (Charades-STA)
    time_channels: int = 2  # last channels of the video that tell the time: they stay when clips move
    background: float = 0.1  # weight of an unmatched query in the label loss
    weight_span: float = 1.0
    weight_giou: float = 8.0
    weight_label: float = 8.0
    weight_contrast: float = 3.0
    weight_guidance: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.contrast >= 1:
            raise ConfigError(f"contrast must be at least 1, got {self.contrast}")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be positive, got {self.temperature}")
        if not 0 <= self.time_channels < self.video_dim:
            raise ConfigError(f"time_channels must lie in [0, video_dim), got {self.time_channels}")


class Pool(nn.Module):
    """Weighted mean of a sequence, the weights learned from each entry."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.feat2att, self.to_alpha = nn.Linear(width, width, bias=False), nn.Linear(width, 1, bias=False)
        self.fc = nn.Linear(width, width)

    def forward(self, x_BNd: Tensor, mask_BN: Tensor) -> Tensor:
        """(B, N, d), (B, N) -> (B, d)."""
        share_BN = masked_softmax(self.to_alpha(self.feat2att(x_BNd).tanh())[..., 0], mask_BN, 1)
        return self.fc((share_BN[..., None] * x_BNd).sum(1))


class Decoded(NamedTuple):
    """Query features of each layer, and the anchors, which are the same for all."""

    hidden_NBQd: Tensor
    anchors_Q2: Tensor


class FixedAnchorDecoder(nn.Module):
    """The family's decoder with anchors that are never refined; the width comes first in their code.

    Args:
        layers: at least one, the first with `first=True`.
        width: d.
    """

    def __init__(self, layers: list[AnchorDecoderLayer], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)
        self.query_scale = Mlp(width, width, width)
        self.ref_point_head = Mlp(width, width, width)
        self.ref_anchor_head = Mlp(width, width, 2)  # the second output is never used; as published

    def forward(
        self, content_BQd: Tensor, memory_BMd: Tensor, mask_BM: Tensor, place_BMd: Tensor, anchors_Q2: Tensor
    ) -> Decoded:
        """Content, memory with mask and positions, anchors before the sigmoid (cw) -> features."""
        query_BQd, hidden = content_BQd, []
        anchors_Q2 = anchors_Q2.sigmoid()
        code_Qd = span_positions(anchors_Q2.flip(-1), content_BQd.shape[-1])
        point_BQd = self.ref_point_head(code_Qd).expand_as(content_BQd)
        for index, layer in enumerate(self.layers):
            narrow_BQ1 = self.ref_anchor_head(query_BQd)[..., :1].sigmoid() / anchors_Q2[:, 1:]
            scale = self.query_scale(query_BQd) if index else 1.0
            sine_BQd = code_Qd * scale * narrow_BQ1
            query_BQd = layer(query_BQd, memory_BMd, mask_BM, place_BMd, point_BQd, sine_BQd)
            hidden.append(self.norm(query_BQd))
        return Decoded(torch.stack(hidden), anchors_Q2)


@dataclass(frozen=True)
class Encoded:
    """Video and sentence that have looked at each other."""

    clips_BTd: Tensor
    words_BLd: Tensor
    match_BT: Tensor  # chance that a clip matches the sentence; anything on padding


@dataclass(frozen=True)
class Stages(family.FamilyStages):
    """All that the network computes on the way. Only the last decoder layer answers: no other is trained."""

    encoded: Encoded
    match_BT: Tensor  # lowered by the other sentence, where one was given; 0 on padding
    weighed_BTd: Tensor
    decoded: Decoded


class Shifted(NamedTuple):
    """A batch whose moments were moved, and the clips that match."""

    batch: Batch
    matched_BT: Tensor


class BMDETR(family.FamilyModel[BMDETRConfig, Stages]):
    """The network and its losses."""

    def __init__(self, config: BMDETRConfig) -> None:
        super().__init__(config)
        c, d = config, config.hidden
        self.encoder = family.encoder_stack(c, c.encoder_layers)
        self.position_scale = Mlp(d, d, d)  # one for all layers
        self.decoder = FixedAnchorDecoder(family.anchor_layers(c), d)
        draw_xavier(self.encoder, self.position_scale, self.decoder)
        self.anchors, self.head = family.draw_anchors(c), SpanHead(d)
        self.match_hidden, self.match_out = nn.Linear(d, d // 2, bias=False), nn.Linear(d // 2, 1, bias=False)
        self.saliency = nn.Linear(d, 1, bias=False)
        # The loss sees differences of scores alone: nothing can train this number. Published weights hold it.
        self.saliency_bias: Tensor
        self.register_buffer("saliency_bias", torch.zeros(1))
        self.video_pool, self.text_pool = Pool(d), Pool(d)
        self.contrast_video, self.contrast_text = nn.Linear(d, c.contrast), nn.Linear(d, c.contrast)
        self.distill = self.plug_in()

    def stages(self, batch: Batch, *, negative: bool = False) -> Stages:
        """The whole network; see the picture at the top of the file.

        Args:
            batch: with targets, where `negative` is set.
            negative: whether another sentence lowers the chance of a match, as in training.
        """
        given = self.project(batch)
        encoded = self.encode(given)
        match_BT = encoded.match_BT
        if negative:
            words_BLE, words_mask_BL = negative_words(batch)
            other = self.encode(given._replace(text_BLd=self.text_in(words_BLE), mask_BL=words_mask_BL))
            match_BT = match_BT * (1 - other.match_BT)
        match_BT = match_BT.masked_fill(~given.mask_BT, 0.0)
        share_BT = masked_softmax(match_BT, self.counted(given.mask_BT), 1)
        weighed_BTd = share_BT[..., None] * encoded.clips_BTd
        decoded = self.decode(encoded, given)
        logits_BQ2, spans_cw_BQ2 = self.head(decoded.hidden_NBQd[-1], decoded.anchors_Q2)
        saliency_BT = self.saliency(weighed_BTd)[..., 0] + self.saliency_bias
        answers = given, logits_BQ2[None], spans_cw_BQ2[None], saliency_BT
        return Stages(*answers, encoded, match_BT, weighed_BTd, decoded)

    def encode(self, given: family.Given) -> Encoded:
        """Clips and words in one encoder; each layer scales the clips' positions by what it is given."""
        clips, words = given.mask_BT.shape[1], given.mask_BL.shape[1]
        x_BMd = torch.cat([given.video_BTd, given.text_BLd], 1)
        mask_BM = torch.cat([given.mask_BT, given.mask_BL], 1)
        place_BMd = F.pad(given.place_BTd, (0, 0, 0, words))  # words have none
        for layer in self.encoder:
            x_BMd = layer(x_BMd, place_BMd * self.position_scale(x_BMd), mask_BM)
        clips_BTd, words_BLd = x_BMd.split([clips, words], 1)
        match_BT = self.match_out(self.match_hidden(clips_BTd).tanh())[..., 0].sigmoid()
        return Encoded(clips_BTd, words_BLd, match_BT)

    def decode(self, encoded: Encoded, given: family.Given) -> Decoded:
        """Queries look at clips and words; positions are not scaled here."""
        memory_BMd = torch.cat([encoded.clips_BTd, encoded.words_BLd], 1)
        mask_BM = torch.cat([given.mask_BT, given.mask_BL], 1)
        place_BMd = F.pad(given.place_BTd, (0, 0, 0, given.mask_BL.shape[1]))

        def once(content_BQd: Tensor) -> Decoded:
            decoded: Decoded = self.decoder(content_BQd, memory_BMd, mask_BM, place_BMd, self.anchors)
            return decoded

        content_BQd = memory_BMd.new_zeros(len(memory_BMd), self.config.queries, self.config.hidden)
        return loop(once, content_BQd, self.config.decoder_loops)

    def contrasted(self, stages: Stages, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit vectors of video and sentence, (B, contrast) each."""
        video_Bd = self.video_pool(stages.weighed_BTd, batch.video_mask_BT)
        text_Bd = self.text_pool(stages.encoded.words_BLd, batch.text_mask_BL)
        return (
            F.normalize(self.contrast_video(video_Bd), dim=-1),
            F.normalize(self.contrast_text(text_Bd), dim=-1),
        )

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """Terms of the batch, of its shifted copy where that is on (half each), and the plug-in's two."""
        assert batch.targets is not None
        stages = self.stages(batch, negative=True)
        terms = self.terms(stages, batch, batch.targets, epoch)
        if self.config.shifting:
            moved = self.shifted(batch, generator)
            assert moved.batch.targets is not None
            again = self.stages(moved.batch, negative=True)
            again_terms = self.terms(again, moved.batch, moved.batch.targets, epoch, moved.matched_BT)
            terms |= {f"{name}_shifted": term for name, term in again_terms.items()}
        return self.weighed(terms | self.plug_in_terms(stages, batch, epoch))

    def weights(self) -> dict[str, float]:
        """Of all terms; those that come twice weigh half."""
        c, plug_in = self.config, ("align", "similarity")
        more = {"contrast": c.weight_contrast, "guidance": c.weight_guidance, "wrong": 1.0}
        weights, half = super().weights() | more, 0.5 if c.shifting else 1.0
        return {name: weight * (1.0 if name in plug_in else half) for name, weight in weights.items()}

    def terms(
        self,
        stages: Stages,
        batch: Batch,
        targets: Targets,
        epoch: float,
        matched_BT: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Set losses of the last decoder layer, saliency, contrast, guidance.

        Args:
            stages, batch, targets, epoch: as in the family.
            matched_BT: clips of the moments, where `matched` does not tell.
        """
        c, mask_BT = self.config, batch.video_mask_BT
        truth_cw = targets_as_fractions(targets.windows_clip, mask_BT)
        terms = set_terms(
            stages.logits_NBQ2, stages.spans_cw_NBQ2, truth_cw, costs=COSTS, background=c.background
        )
        pairs = targets.positive_clip_BP, targets.negative_clip_BP
        terms["saliency"] = margin(stages.saliency_BT, *pairs, c.margin)
        terms["contrast"] = info_nce(*self.contrasted(stages, batch), c.temperature, both=False)
        matched_BT = self.matched(batch) if matched_BT is None else matched_BT
        terms["guidance"] = guidance(stages.match_BT, matched_BT, mask_BT)
        if c.faithful:
            terms["wrong"] = wrong_matches(stages, truth_cw)
        return terms

    def matched(self, batch: Batch) -> Tensor:
        """(B, T) clips of the moments."""
        assert batch.targets is not None
        return matched_clips(batch.targets.windows_clip, batch.video_mask_BT)

    def shifted(self, batch: Batch, generator: torch.Generator | None = None) -> Shifted:
        """The batch with each sample's moment moved to a random place; see `shift`."""
        n_B, (_, clips_B) = batch.video_mask_BT.sum(1), moment_clips(batch, self.config.faithful)
        others_B = n_B - clips_B
        # The published code never moves a moment to the very end.
        places_B = others_B.clamp(min=1) if self.config.faithful else others_B + 1
        drawn_B = torch.rand(
            len(n_B), generator=generator, device=generator.device if generator else n_B.device
        )
        place_B = torch.minimum((drawn_B.to(n_B.device) * places_B).long(), places_B - 1)
        return shift(batch, place_B, self.config.time_channels, self.config.faithful)


def negative_words(batch: Batch) -> tuple[Tensor, Tensor]:
    """Words and mask of another sentence: those of the targets, or of the next sample of the batch."""
    targets = batch.targets
    assert targets is not None
    if targets.negative_text_BLE is None or targets.negative_text_mask_BL is None:
        return batch.text_BLE.roll(-1, 0), batch.text_mask_BL.roll(-1, 0)
    return targets.negative_text_BLE, targets.negative_text_mask_BL


def guidance(match_BT: Tensor, matched_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Clips of the moments are likely to match and the others are not; in (0, 2)."""
    inside_B = masked_mean(match_BT, matched_BT & mask_BT, 1)
    outside_B = masked_mean(match_BT, ~matched_BT & mask_BT, 1)
    return (1 - inside_B + outside_B).mean()


@torch.no_grad()
def wrong_matches(stages: Stages, truth_cw: list[Tensor]) -> Tensor:
    """Percentage of matched queries called background: published as a loss, without a gradient."""
    logits_BQ2 = stages.logits_NBQ2[-1]
    sample_M, query_M, _ = match(logits_BQ2, stages.spans_cw_NBQ2[-1], truth_cw, COSTS)
    return 100 - 100 * (logits_BQ2[sample_M, query_M].argmax(-1) == 0).float().mean()


def matched_clips(windows_clip: tuple[Tensor, ...], mask_BT: Tensor) -> Tensor:
    """(B, T) clips of any window, floor(start) to floor(end) - 1 and at least one."""
    clip_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    matched_BT = torch.zeros_like(mask_BT)
    for row, windows_G2 in enumerate(windows_clip):
        start_G, end_G = (windows_G2.to(mask_BT.device) + GRID_TOLERANCE).floor().unbind(1)
        end_G = torch.maximum(end_G, start_G + 1)
        matched_BT[row] = ((clip_T >= start_G[:, None]) & (clip_T < end_G[:, None])).any(0)
    return matched_BT & mask_BT


def moment_clips(batch: Batch, faithful: bool) -> tuple[Tensor, Tensor]:
    """First clip and number of clips of the moment that is moved, (B,) each.

    All clips that the only window touches; a sample with another number of windows has none to move. In the
    published code the clips floor(start) to floor(end) - 1 of the first window.
    """
    assert batch.targets is not None
    device, first, past = batch.video_mask_BT.device, [], []
    for windows_G2 in batch.targets.windows_clip:
        whole = len(windows_G2) >= 1 if faithful else len(windows_G2) == 1
        start, end = windows_G2[0].to(device) if whole else torch.zeros(2, device=device)
        first.append((start + GRID_TOLERANCE).floor())
        past.append((end + GRID_TOLERANCE).floor() if faithful else (end - GRID_TOLERANCE).ceil())
    n_B = batch.video_mask_BT.sum(1)
    first_B = torch.minimum(torch.stack(first).long().clamp(min=0), n_B - 1)
    past_B = torch.minimum(torch.stack(past).long(), n_B)
    return first_B, (past_B - first_B).clamp(min=0)


def shift(batch: Batch, place_B: Tensor, time_channels: int, faithful: bool) -> Shifted:
    """Each sample's moment cut out and put back before clip `place` of what is left.

    Labels and clips of the margin loss move with their clips, and so does the window: its length and its
    place within its clips stay. Time channels stay where they are. In the published code they move along,
    and the window goes from the moment's first clip to its last, one short. (There clip numbers also stand
    for seconds; clips are of one second in all sets that it shifts, so it makes no difference.)

    Args:
        batch: with targets.
        place_B: 0 .. number of other clips.
        time_channels: how many of the last channels.
        faithful: the published rule.
    """
    targets = batch.targets
    assert targets is not None
    first_B, clips_B = moment_clips(batch, faithful)
    source_BT = shifted_order(first_B, clips_B, place_B, batch.video_mask_BT)
    video_BTD = batch.video_BTD.take_along_dim(source_BT[..., None], 1)
    if time_channels and not faithful:
        still_BTD = batch.video_BTD[..., -time_channels:]
        video_BTD = torch.cat([video_BTD[..., :-time_channels], still_BTD], -1)
    matched_BT = matched_clips(targets.windows_clip, batch.video_mask_BT)
    now_BT = source_BT.argsort(1)  # where each clip went
    n_B = batch.video_mask_BT.sum(1)
    windows = [
        window_after(window_G2, int(first), int(count), int(place), int(n), faithful)
        for window_G2, first, count, place, n in zip(
            targets.windows_clip, first_B, clips_B, place_B, n_B, strict=True
        )
    ]
    moved = replace(
        targets,
        windows_clip=tuple(windows),
        saliency_BT=targets.saliency_BT.take_along_dim(source_BT, 1),
        positive_clip_BP=now_BT.take_along_dim(targets.positive_clip_BP, 1),
        negative_clip_BP=now_BT.take_along_dim(targets.negative_clip_BP, 1),
    )
    return Shifted(
        replace(batch, video_BTD=video_BTD, targets=moved), matched_BT.take_along_dim(source_BT, 1)
    )


def shifted_order(first_B: Tensor, clips_B: Tensor, place_B: Tensor, mask_BT: Tensor) -> Tensor:
    """(B, T) which clip stands where afterwards; padding stays."""
    first_B1, clips_B1, place_B1 = first_B[:, None], clips_B[:, None], place_B[:, None]
    clip_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    of_moment_BT = (clip_T >= place_B1) & (clip_T < place_B1 + clips_B1)
    other_BT = torch.where(clip_T < place_B1, clip_T, clip_T - clips_B1)  # its number among the others
    other_BT = torch.where(other_BT < first_B1, other_BT, other_BT + clips_B1)
    source_BT = torch.where(of_moment_BT, first_B1 + clip_T - place_B1, other_BT)
    return torch.where(mask_BT, source_BT, clip_T)


def window_after(
    windows_G2: Tensor, first: int, clips: int, place: int, all_clips: int, faithful: bool
) -> Tensor:
    """The windows of a sample after its moment went from clip `first` to clip `place`."""
    if clips == 0 or clips == all_clips:
        return windows_G2
    if faithful:
        return windows_G2.new_tensor([[place, place + clips - 1]])
    return windows_G2 + (place - first)
