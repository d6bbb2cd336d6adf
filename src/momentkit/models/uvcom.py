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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.errors import ConfigError, FeatureError
from momentkit.core.spans import cw_to_se
from momentkit.core.types import Batch, Targets
from momentkit.losses.contrastive import info_nce
from momentkit.losses.saliency import against_negative
from momentkit.losses.spans import targets_as_fractions
from momentkit.models import family
from momentkit.nn.attention import PackedAttention
from momentkit.nn.centres import gather, most_alike, walk
from momentkit.nn.decoder import Decoded, SpanHead, loop
from momentkit.nn.masks import masked_mean
from momentkit.nn.transformer import InputProjection, Mlp, draw_xavier, encode_behind, look

SLOT_ROUNDS = 5
GRID_TOLERANCE = 1e-4  # a window end so close below a clip border lies on it


@dataclass(frozen=True, kw_only=True)
class UVCOMConfig(family.AnchorConfig):
    """Options; the defaults are the published QVHighlights run."""

    audio_dim: int = 0  # audio features with the two time channels; 0 = none
    mlp_width: int = 1024  # of the slot update and of the two alignment heads
    cross_layers: int = 3
    encoder_layers: int = 3
    decoder_layers: int = 3
    queries: int = 30
    text_centres: int = 5
    video_centres: int = 30
    rounds: int = 5  # of gathering features into centres
    negative_epoch: int = 80  # before it the negative is the next sample's sentence, then the least similar
    slots: bool = True  # ablation: False starts the queries from their table alone
    clip_alignment: bool = True  # ablation: False leaves out the clip part of the alignment loss
    cross_fusion: bool = False  # ablation: attention on the words' centres in place of the walk
    background: float = 0.1  # weight of an unmatched query in the label loss
    weight_contrast: float = 1.0  # of the alignment of video and clips with sentences

    def __post_init__(self) -> None:
        super().__post_init__()
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
class Stages(family.AnchorStages):
    """All that the network computes on the way; `given` is the video alone, which Distill Align reads."""

    heard: family.Given  # with audio, where there is any
    fused: Fused
    slot_Bd: Tensor

    @property
    def projected_BTd(self) -> Tensor:
        """Clips without audio."""
        return self.given.video_BTd

    @property
    def video_BTd(self) -> Tensor:
        """Clips with audio."""
        return self.heard.video_BTd


class UVCOM(family.AnchorModel[UVCOMConfig, Stages]):
    """The network and its losses."""

    def __init__(self, config: UVCOMConfig) -> None:
        super().__init__(config)
        c, d = config, config.hidden
        rates = c.input_layers, c.input_dropout
        self.audio_in = InputProjection(c.audio_dim, d, *rates) if c.audio_dim else None
        self.to_words = family.cross_stack(c, c.cross_layers)
        self.to_clips = family.cross_stack(c, c.cross_layers)
        self.sentence_in, self.sentence_norm = nn.Linear(d, d), nn.LayerNorm(d)
        self.text_centres_Kd = nn.Parameter(torch.randn(c.text_centres, d))
        self.video_centres_Kd = nn.Parameter(torch.randn(c.video_centres, d))
        self.local = nn.ModuleList(nn.Conv1d(d, d, size, padding=size // 2) for size in (1, 3, 1))
        self.centre_attention = PackedAttention(d, c.heads, c.dropout) if c.cross_fusion else None
        self.token_position = nn.Parameter(torch.randn(d))
        self.encoder = family.encoder_stack(c, c.encoder_layers)
        self.slot = OneSlot(d, c.mlp_width) if c.slots else None
        self.decoder = family.anchor_decoder(c)
        self.content_Qd = nn.Parameter(torch.randn(c.queries, d))  # what tells the queries apart
        self.align_video, self.align_text = (Mlp(d, c.mlp_width, c.mlp_width, d) for _ in range(2))
        _draw(self)
        self.anchors, self.head = family.draw_anchors(c), SpanHead(d)
        self.saliency_clip, self.saliency_global = nn.Linear(d, d), nn.Linear(d, d)
        self.distill = self.plug_in()

    def stages(self, batch: Batch) -> Stages:
        """The whole network; see the picture at the top of the file."""
        given = self.project(batch)
        heard = given._replace(video_BTd=self._with_audio(given.video_BTd, batch))
        fused = self.fuse(heard)
        slot_Bd = torch.zeros_like(fused.sentence_Bd)
        if self.slot is not None:
            slot_Bd = self.slot(fused.memory_BTd, self.counted(given.mask_BT), fused.sentence_Bd)
        decoded = self._decode_from(slot_Bd, heard, fused.memory_BTd)
        logits, spans = self.head(decoded.hidden_NBQD, decoded.leaving_NBQ2)
        return Stages(given, logits, spans, fused.saliency_BT, decoded, heard, fused, slot_Bd)

    def _decode_from(self, slot_Bd: Tensor, heard: family.Given, memory_BTd: Tensor) -> Decoded:
        """Anchors whose content starts from the slot; the table is added in every loop."""
        context = memory_BTd, heard.mask_BT, heard.place_BTd

        def decode(content_BQd: Tensor) -> Decoded:
            decoded: Decoded = self.decoder(content_BQd + self.content_Qd, *context, self.anchors)
            return decoded

        content_BQd = slot_Bd[:, None].expand(-1, self.config.queries, -1)
        return loop(decode, content_BQd, self.config.decoder_loops)

    def _with_audio(self, video_BTd: Tensor, batch: Batch) -> Tensor:
        if self.audio_in is None:
            return video_BTd
        if batch.audio_BTA is None:
            raise FeatureError(
                f"this model was built for audio features of {self.config.audio_dim} channels and the batch "
                "has none; give them, or build the model with audio_dim = 0"
            )
        return video_BTd + self.audio_in(batch.audio_BTA)

    def fuse(self, heard: family.Given) -> Fused:
        """Cross layers both ways, centres, convolutions, walk, encoder with a token in front, saliency."""
        c = self.config
        seen_BT, seen_BL = self.counted(heard.mask_BT), self.counted(heard.mask_BL)
        cross_BTd, words_BLd = self._cross(heard)
        sentence_Bd = masked_mean(self.sentence_norm(self.sentence_in(words_BLd)), seen_BL[..., None], 1)
        of_text_BKd = gather(self.text_centres_Kd, words_BLd, seen_BL, c.rounds)
        of_video_BKd = gather(self.video_centres_Kd, cross_BTd, seen_BT, c.rounds)
        token_B1d = most_alike(of_video_BKd, of_text_BKd)

        local_BTd = self._convolve(cross_BTd, heard.mask_BT, seen_BT)
        near_BTd = cross_BTd + local_BTd
        if self.centre_attention is None:
            mixed_BTd = cross_BTd + walk(near_BTd, of_text_BKd, seen_BT)
        else:
            everyone = torch.ones(of_text_BKd.shape[:2], dtype=torch.bool, device=of_text_BKd.device)
            looked, _ = self.centre_attention(near_BTd, of_text_BKd, of_text_BKd, everyone)
            mixed_BTd = cross_BTd + near_BTd * looked

        token = token_B1d, self.token_position[None]
        sequence = encode_behind(*token, self.encoder, mixed_BTd, heard.place_BTd, heard.mask_BT)
        whole_Bd, memory_BTd = sequence[:, 0], sequence[:, 1:]
        saliency_BT = family.against_token(self.saliency_clip(memory_BTd), self.saliency_global(whole_Bd))
        passed = cross_BTd, words_BLd, sentence_Bd, local_BTd, mixed_BTd, whole_Bd, memory_BTd
        return Fused(*passed, saliency_BT)

    def _cross(self, heard: family.Given) -> tuple[Tensor, Tensor]:
        """Clips look at words and words at clips, both at the projections; words have no positions."""
        video_BTd, place_BTd, mask_BT, text_BLd, mask_BL = heard
        cross_BTd = self.look_at_words(self.to_words, video_BTd, heard)
        nowhere, blocked = torch.zeros_like(text_BLd), self.blocked(mask_BL, mask_BT)
        at_clips = video_BTd + place_BTd, video_BTd, mask_BT
        words_BLd, _ = look(self.to_clips, text_BLd, nowhere, *at_clips, blocked)
        return cross_BTd, words_BLd

    def _convolve(self, video_BTd: Tensor, mask_BT: Tensor, seen_BT: Tensor) -> Tensor:
        """Three convolutions over time; padding is zero before the first, in the clean way before each."""
        x_BdT = (video_BTd * mask_BT[..., None]).transpose(1, 2)
        for convolution in self.local:
            x_BdT = convolution(x_BdT * seen_BT[:, None])
        return x_BdT.transpose(1, 2)

    def negative_pass(self, stages: Stages, batch: Batch, epoch: float) -> Fused:
        """Each video with the sentence of another sample (its own where it is alone)."""
        return self.fuse(stages.heard.with_text_of(self.negative_rows(stages, batch, epoch)))

    @torch.no_grad()
    def negative_rows(self, stages: Stages, batch: Batch, epoch: float) -> Tensor:
        """(B,) whose sentence is the negative: the next sample's, later the least similar one."""
        if epoch < self.config.negative_epoch:
            return torch.arange(len(stages.text_BLd), device=stages.text_BLd.device).roll(-1)
        video_Bd, clips_BTd, sentence_Bd = self.alignment(stages)
        clip_mean_Bd = masked_mean(clips_BTd, self.counted(batch.video_mask_BT)[..., None], 1)
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

    def terms(self, stages: Stages, batch: Batch, targets: Targets, epoch: float) -> dict[str, Tensor]:
        """Saliency with a negative pass, alignment, set losses of every decoder layer."""
        scores = stages.saliency_BT, self.negative_pass(stages, batch, epoch).saliency_BT
        return {
            "saliency": against_negative(*scores, targets, batch.video_mask_BT, self.config.margin),
            "contrast": self._contrast(stages, batch, targets),
        } | self.set_terms(stages, batch, self.config.background)

    def weights(self) -> dict[str, float]:
        """Of all terms."""
        return super().weights() | {"contrast": self.config.weight_contrast}

    def _contrast(self, stages: Stages, batch: Batch, targets: Targets) -> Tensor:
        """Videos find their sentences and back; clips of the first window are more alike than the others."""
        video_Bd, clips_BTd, sentence_Bd = self.alignment(stages)
        of_video = info_nce(video_Bd, sentence_Bd, 1.0) / 2
        if not self.config.clip_alignment:
            return of_video
        mask_BT, seen_BT = batch.video_mask_BT, self.counted(batch.video_mask_BT)
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
    crossed = model.to_words, model.to_clips, model.sentence_in, model.local, model.centre_attention
    behind = model.encoder, model.slot, model.decoder, model.align_video, model.align_text
    draw_xavier(*(module for module in (*crossed, *behind) if module is not None))
    for parameter in (model.text_centres_Kd, model.video_centres_Kd, model.content_Qd):
        nn.init.xavier_uniform_(parameter)
