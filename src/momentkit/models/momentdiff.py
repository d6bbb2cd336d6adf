"""MomentDiff: moments are random spans, moved step by step to where the sentence holds.

    text  (B,L,E) -- projection ----+
    video (B,T,D) -- projection -- cross layers -- [token; clips] -- encoder -- memory --+-- similarity (B,T)
                                                                                         |
    noise (B,Q,2) -- denoiser: spans look at the memory, knowing how noisy they are -----+
              ^------------- DDIM, a step at a time ------+-- spans (B,Q,2), scores (B,Q)

Source   Li et al., "MomentDiff: Generative Video Moment Retrieval from Random to Real", NeurIPS 2023, and
         momentdiff.md. We follow the authors' code where it differs from the paper: 10 steps (paper 50), the
         code of the noise level weighs 0.1 (1), a ranking against the next sample's sentence (none; see
         `similarity`). `faithful=True` brings back the cross-attention mask that is tiled in the wrong order,
         and padding in the denominator of the pointwise loss. The mean over clips of `span_embedding="roi"`
         (paper table 5a) has no published code.
Shapes   B videos  T clips  L words  D, E input widths  d hidden  Q spans  N denoiser layers  G true moments
         cw = centre,width, fractions of the video; noise is added to `signal_scale` (2 cw - 1)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.config import check_sizes
from momentkit.core.errors import ConfigError
from momentkit.core.spans import cw_to_se
from momentkit.core.types import Batch, Losses, Prediction, Targets
from momentkit.diffusion.samplers import Step, add_noise, ddim, noise_like
from momentkit.diffusion.schedules import Schedule, schedule
from momentkit.diffusion.spans import draw_times, own_noise, same_size, to_signal, to_spans
from momentkit.losses.saliency import RANKS, margin, rank
from momentkit.losses.spans import set_terms, targets_as_fractions
from momentkit.nn.attention import BareAttention, PackedAttention
from momentkit.nn.decoder import logit, predict_moments, span_positions
from momentkit.nn.pointwise import Dropout, PReLU
from momentkit.nn.positions import TextPositions, clip_positions, step_code
from momentkit.nn.roi import select_weights
from momentkit.nn.transformer import (
    CrossLayer,
    EncoderLayer,
    InputProjection,
    Mlp,
    draw_xavier,
    released_mask,
)

NARROWEST = 0.01  # width of a placeholder span


@dataclass(frozen=True, kw_only=True)
class MomentDiffConfig:
    """Options; the defaults are the published Charades-STA run on SlowFast and CLIP."""

    video_dim: int = 2818  # clip features with the two time channels, audio included where there is any
    text_dim: int = 512
    hidden: int = 256
    heads: int = 8
    feed_forward: int = 1024
    input_layers: int = 2
    cross_layers: int = 2
    encoder_layers: int = 2
    decoder_layers: int = 2
    dropout: float = 0.1
    input_dropout: float = 0.5
    text_positions: int = 0  # learned positions for so many words; 0 = none (published)

    queries: int = 5  # random spans; may be changed after training. The paper takes 10 for QVHighlights
    steps: int = 10  # of the sampler; may be changed after training
    eta: float = 1.0  # fresh noise a step: 0 none, 1 published
    noise_steps: int = 1000  # T of the schedule
    noise_schedule: Schedule = "cosine"
    signal_scale: float = 2.0  # spans run over -scale..scale before they are noised
    span_embedding: Literal["fc", "roi"] = "fc"  # a linear layer, or the mean of the clips inside
    intensity: float = 0.1  # weight of the code of the noise level; 0 = without, 1 as the paper prints it

    # Similarity loss: "plain" = margin + pointwise + ranking; "scaled" = 10 (margin + pointwise + ranking/10)
    # for the anti-bias splits, QVHighlights, TACoS, ActivityNet; "paper" = eq. 1, pointwise + margin; "none".
    similarity: Literal["plain", "scaled", "paper", "none"] = "plain"
    margin: float = 0.2
    background: float = 0.1  # weight of an unmatched span in the label loss
    weight_span: float = 10.0  # this and the next two are also the costs of the matching
    weight_giou: float = 1.0
    weight_label: float = 4.0
    weight_similarity: float = 4.0
    faithful: bool = False  # the published arithmetic on padding

    def __post_init__(self) -> None:
        check_sizes(self, multiple_of=4)
        if not self.signal_scale > 0:
            raise ConfigError(f"signal_scale must be positive, got {self.signal_scale}")
        if not self.intensity >= 0:
            raise ConfigError(f"intensity must not be negative, got {self.intensity}")
        if not 0 <= self.eta <= 1:
            raise ConfigError(f"eta must lie in [0, 1], got {self.eta}")
        if not 1 <= self.steps <= self.noise_steps:
            raise ConfigError(f"steps must lie in 1..noise_steps = {self.noise_steps}, got {self.steps}")


class Condition(NamedTuple):
    """A video that has looked at a sentence, and what the denoiser's layers see of it.

    Attributes:
        cross_BTd: clips after the cross layers.
        global_Bd: the token behind the encoder; not used further.
        memory_BTd: fusion embeddings.
        mask_BT: True = real clip.
        similarity_BT: score of each clip.
        keys_NBTe, values_NBTd: of each denoiser layer; a key is content and place side by side, e = 2d.
    """

    cross_BTd: Tensor
    global_Bd: Tensor
    memory_BTd: Tensor
    mask_BT: Tensor
    similarity_BT: Tensor
    keys_NBTe: tuple[Tensor, ...] = ()
    values_NBTd: tuple[Tensor, ...] = ()


class Projected(NamedTuple):
    """Features at the model's width.

    Attributes:
        video_BTd, text_BLd: projections.
        positions_BTd: of clips.
        place_BLd: of words; zeros unless the option is on.
    """

    video_BTd: Tensor
    text_BLd: Tensor
    positions_BTd: Tensor
    place_BLd: Tensor


class Denoised(NamedTuple):
    """What each layer of the denoiser makes of noisy spans."""

    hidden_NBQd: Tensor
    logits_NBQ2: Tensor
    spans_cw_NBQ2: Tensor


class Draws(NamedTuple):
    """The random numbers of a training step, all standard normal but the first.

    Attributes:
        time_B: step of the schedule, 0..T-1.
        noise_BQ2: added to the spans.
        placeholder_BQ2: fill up the spans of a sample with G < Q moments; the first G are not used.
    """

    time_B: Tensor
    noise_BQ2: Tensor
    placeholder_BQ2: Tensor


def beside(content: Tensor, place: Tensor, heads: int) -> Tensor:
    """(B, N, d) twice -> (B, N, 2d), content and place side by side within each head."""
    parts = [x.unflatten(-1, (heads, -1)) for x in (content, place)]
    return torch.cat(parts, -1).flatten(-2)


class DenoisingLayer(nn.Module):
    """Intensity-aware attention (eq. 4): spans look at the memory; they do not look at each other.

    Parameter names are the published ones.
    """

    def __init__(self, config: MomentDiffConfig, *, first: bool) -> None:
        super().__init__()
        c, d = config, config.hidden
        self.heads = c.heads
        self.ca_qcontent_proj, self.ca_qpos_sine_proj = nn.Linear(d, d), nn.Linear(d, d)
        self.ca_kcontent_proj, self.ca_v_proj = nn.Linear(d, d), nn.Linear(d, d)
        self.ca_kpos_proj = Mlp(d, d, d, d)
        self.ca_qpos_proj = nn.Linear(d, d) if first else None
        self.cross_attn = BareAttention(d, c.heads, c.dropout)
        self.linear1, self.linear2 = nn.Linear(d, c.feed_forward), nn.Linear(c.feed_forward, d)
        self.norm2, self.norm3 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.activation, self.dropout = PReLU(), Dropout(c.dropout)

    def remember(self, memory_BTd: Tensor, positions_BTd: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (B, T, 2d) and values (B, T, d): they know nothing of the spans, so once a video is enough."""
        content, place = self.ca_kcontent_proj(memory_BTd), self.ca_kpos_proj(positions_BTd)
        if self.ca_qpos_proj is not None:
            content = content + place
        return beside(content, place, self.heads), self.ca_v_proj(memory_BTd)

    def forward(
        self, x_BQd: Tensor, place_BQd: Tensor, sine_BQd: Tensor, key: Tensor, value: Tensor, mask_BT: Tensor
    ) -> Tensor:
        """(B, Q, d) spans -> the same shape.

        Args:
            x_BQd: content of the spans.
            place_BQd: learned code of the noisy span, of the first layer.
            sine_BQd: sine code of the noisy span.
            key, value, mask_BT: of the memory, see `remember`.
        """
        content = self.ca_qcontent_proj(x_BQd)
        if self.ca_qpos_proj is not None:
            content = content + self.ca_qpos_proj(place_BQd)
        query = beside(content, self.ca_qpos_sine_proj(sine_BQd), self.heads)
        seen, _ = self.cross_attn(query, key, value, mask_BT)
        x_BQd = self.norm2(x_BQd + self.dropout(seen))
        hidden = self.linear2(self.dropout(self.activation(self.linear1(x_BQd))))
        return self.norm3(x_BQd + self.dropout(hidden))


class Denoiser(nn.Module):
    """Noisy spans -> spans and their confidence, layer by layer; each span by itself."""

    def __init__(self, config: MomentDiffConfig) -> None:
        super().__init__()
        self.config, d = config, config.hidden
        layers = [DenoisingLayer(config, first=index == 0) for index in range(config.decoder_layers)]
        self.layers = nn.ModuleList(layers)
        self.span_in = nn.Linear(2, d) if config.span_embedding == "fc" else None
        self.place_in = nn.Linear(d, d)
        self.query_scale = Mlp(d, d, d) if config.decoder_layers > 1 else None
        self.norm = nn.LayerNorm(d)
        self.span_head, self.class_head = nn.Linear(d, 2), nn.Linear(d, 2)

    def forward(self, x_BQ2: Tensor, time_B: Tensor, seen: Condition) -> Denoised:
        """Estimate the clean spans.

        Args:
            x_BQ2: noisy spans on the signal's scale; clamped to it.
            time_B: step of the schedule of each sample.
            seen: the memory.
        """
        c = self.config
        span_cw_BQ2 = logit(to_spans(x_BQ2, c.signal_scale)).sigmoid()  # keeps off 0 and 1 by 1e-3
        content_BQd = self.embed(span_cw_BQ2, seen)
        if c.intensity:
            content_BQd = content_BQd + c.intensity * step_code(time_B, c.hidden)[:, None].to(x_BQ2)
        code_BQd = span_positions(span_cw_BQ2, c.hidden)
        place_BQd = self.place_in(code_BQd)
        hidden: list[Tensor] = []
        for layer, key, value in zip(self.layers, seen.keys_NBTe, seen.values_NBTd, strict=True):
            scale = self.query_scale(content_BQd) if self.query_scale is not None and hidden else 1.0
            content_BQd = layer(content_BQd, place_BQd, code_BQd * scale, key, value, seen.mask_BT)
            hidden.append(self.norm(content_BQd))
        hidden_NBQd = torch.stack(hidden)
        return Denoised(hidden_NBQd, self.class_head(hidden_NBQd), self.span_head(hidden_NBQd).sigmoid())

    def remember(
        self, memory_BTd: Tensor, positions_BTd: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Keys and values of every layer."""
        layers = cast(Sequence[DenoisingLayer], self.layers)
        pairs = [layer.remember(memory_BTd, positions_BTd) for layer in layers]
        return tuple(key for key, _ in pairs), tuple(value for _, value in pairs)

    def embed(self, span_cw_BQ2: Tensor, seen: Condition) -> Tensor:
        """(B, Q, 2) spans -> (B, Q, d): a linear layer, or the mean over the clips that a span touches."""
        if self.span_in is not None:
            embedded: Tensor = self.span_in(span_cw_BQ2)
            return embedded
        return select_weights(span_cw_BQ2, seen.mask_BT).squeeze(2) @ seen.memory_BTd


class MomentDiff(nn.Module):
    """The network, its sampler and its losses."""

    share_T: Tensor

    def __init__(self, config: MomentDiffConfig) -> None:
        super().__init__()
        self.config = c = config
        d = c.hidden
        self.video_in = InputProjection(c.video_dim, d, c.input_layers, c.input_dropout)
        self.text_in = InputProjection(c.text_dim, d, c.input_layers, c.input_dropout)
        self.text_positions = (
            TextPositions(c.text_positions, d, c.input_dropout) if c.text_positions else None
        )
        self.token, self.token_position = nn.Parameter(torch.randn(d)), nn.Parameter(torch.randn(d))
        sizes = c.feed_forward, c.dropout
        self.cross = nn.ModuleList(
            CrossLayer(PackedAttention(d, c.heads, c.dropout), d, *sizes, Dropout(c.dropout), PReLU())
            for _ in range(c.cross_layers)
        )
        self.encoder = nn.ModuleList(
            EncoderLayer(d, c.heads, *sizes, Dropout(c.dropout), PReLU()) for _ in range(c.encoder_layers)
        )
        self.denoiser = Denoiser(c)
        draw_xavier(self.cross, self.encoder, self.denoiser)
        self.similarity = nn.Linear(d, 1)
        self.share_T = schedule(c.noise_schedule, c.noise_steps)  # float64, stays on the CPU

    @property
    def sampling(self) -> Mapping[str, str]:
        """Options that may be changed after training."""
        return {"steps": "steps", "proposals": "queries"}

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Prediction:
        """Moments as fractions, similarity as saliency, and the spans of every step as trace.

        Args:
            batch: videos and sentences.
            generator: of the random spans; a sample's follow from it and the sample's noise key alone.
        """
        seen, steps = self.sample(batch, generator=generator)
        final = steps[-1].aside
        answer = predict_moments(final.logits_NBQ2[-1], final.spans_cw_NBQ2[-1], seen.similarity_BT)
        trace = tuple(cw_to_se(step.aside.spans_cw_NBQ2[-1]) for step in steps)
        start_BQ2 = cw_to_se(to_spans(steps[0].x, self.config.signal_scale))
        return replace(answer, trace=trace, start_BQ2=start_BQ2)

    def sample(
        self,
        batch: Batch,
        *,
        queries: int | None = None,
        steps: int | None = None,
        eta: float | None = None,
        generator: torch.Generator | None = None,
        start_BQ2: Tensor | None = None,
        fresh: tuple[Tensor, ...] | None = None,
    ) -> tuple[Condition, tuple[Step[Denoised], ...]]:
        """Denoise random spans; the video meets its sentence once, the spans meet both at every step.

        Args:
            batch: videos and sentences.
            queries, steps, eta: in place of the options.
            generator: of the random spans and of fresh noise.
            start_BQ2, fresh: stored noise in place of drawn.

        Returns:
            What the video looks like to the sentence, and each step with its estimates.
        """
        c, seen = self.config, self.condition(self.project(batch), batch)
        if start_BQ2 is None:
            empty = seen.memory_BTd.new_empty(len(seen.memory_BTd), queries or c.queries, 2)
            start_BQ2 = noise_like(empty, generator, batch.noise_keys)

        def estimate(x_BQ2: Tensor, time: int) -> tuple[Tensor, Denoised]:
            time_B = torch.full((len(x_BQ2),), time, device=x_BQ2.device)
            denoised = self.denoiser(x_BQ2, time_B, seen)
            return to_signal(denoised.spans_cw_NBQ2[-1], c.signal_scale), denoised

        _, trace = ddim(
            estimate,
            start_BQ2,
            self.share_T,
            c.steps if steps is None else steps,
            eta=c.eta if eta is None else eta,
            generator=generator,
            keys=batch.noise_keys,
            fresh=fresh,
        )
        return seen, trace

    def project(self, batch: Batch) -> Projected:
        """Features at the model's width, and positions."""
        text_BLd = self.text_in(batch.text_BLE)
        place_BLd = (
            torch.zeros_like(text_BLd) if self.text_positions is None else self.text_positions(text_BLd)
        )
        positions_BTd = clip_positions(batch.video_mask_BT, self.config.hidden)
        return Projected(self.video_in(batch.video_BTD), text_BLd, positions_BTd, place_BLd)

    def condition(self, given: Projected, batch: Batch, *, other_text: bool = False) -> Condition:
        """Similarity-aware condition: cross layers, encoder with the token in front, similarity head.

        Args:
            given: of `project`.
            batch: for its masks.
            other_text: each video with the sentence of the next sample (its own where it is alone), for the
                similarity loss; positions stay, and the denoiser's part is left out.
        """
        c, mask_BT = self.config, batch.video_mask_BT
        text_BLd, text_mask_BL = given.text_BLd, batch.text_mask_BL
        if other_text:
            text_BLd, text_mask_BL = text_BLd.roll(-1, 0), text_mask_BL.roll(-1, 0)
        blocked = released_mask(mask_BT, text_mask_BL, c.heads) if c.faithful else None
        cross_BTd, keys_BLd = given.video_BTd, text_BLd + given.place_BLd
        for layer in self.cross:
            cross_BTd, _ = layer(cross_BTd, given.positions_BTd, keys_BLd, text_BLd, text_mask_BL, blocked)
        samples = len(cross_BTd)
        sequence = torch.cat([self.token.expand(samples, 1, -1), cross_BTd], 1)
        positions = torch.cat([self.token_position.expand(samples, 1, -1), given.positions_BTd], 1)
        for layer in self.encoder:
            sequence = layer(sequence, positions, F.pad(mask_BT, (1, 0), value=True))
        global_Bd, memory_BTd = sequence[:, 0], sequence[:, 1:]
        seen = Condition(cross_BTd, global_Bd, memory_BTd, mask_BT, self.similarity(memory_BTd).squeeze(-1))
        if other_text:
            return seen
        keys, values = self.denoiser.remember(memory_BTd, given.positions_BTd)
        return seen._replace(keys_NBTe=keys, values_NBTd=values)

    def losses(
        self,
        batch: Batch,
        *,
        generator: torch.Generator | None = None,
        epoch: float = inf,
        draws: Draws | None = None,
    ) -> Losses:
        """Set losses of every denoiser layer on noisy spans (eq. 5), and the similarity loss (eq. 1).

        Args:
            batch: with targets.
            generator: of steps, noise and placeholder spans.
            epoch: not used.
            draws: stored ones in place of drawn.
        """
        c, targets = self.config, batch.targets
        assert targets is not None
        given = self.project(batch)
        seen = self.condition(given, batch)
        truth_cw = targets_as_fractions(targets.windows_clip, batch.video_mask_BT)
        draws = self.draw(seen.memory_BTd, generator) if draws is None else draws
        noisy_BQ2 = self.noisy_spans(truth_cw, draws, generator)
        denoised = self.denoiser(noisy_BQ2, draws.time_B, seen)
        terms = set_terms(
            denoised.logits_NBQ2,
            denoised.spans_cw_NBQ2,
            truth_cw,
            costs=(c.weight_span, c.weight_giou, c.weight_label),
            background=c.background,
        )
        if c.similarity != "none":
            terms["similarity"] = self._similarity(seen, given, batch, targets)
        weights = {
            "span": c.weight_span,
            "giou": c.weight_giou,
            "label": c.weight_label,
            "similarity": c.weight_similarity,
        }
        return Losses(terms, {name: weights[name.split("_")[0]] for name in terms})

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Draws:
        """The random numbers of a training step, for as many samples as `like` has, on its device."""
        time_B = draw_times(len(like), len(self.share_T), like.device, generator)
        spans = like.new_empty(len(like), self.config.queries, 2)
        return Draws(time_B, own_noise(spans, generator), own_noise(spans, generator))

    def noisy_spans(
        self, truth_cw: list[Tensor], draws: Draws, generator: torch.Generator | None = None
    ) -> Tensor:
        """True moments, filled up with placeholders, with noise: (B, Q, 2) on the signal's scale (eq. 3).

        Of more moments than spans, `generator` takes some.
        """
        at = generator.device if generator is not None else "cpu"
        order = [
            torch.randperm(len(truth), generator=generator, device=at).to(truth.device) for truth in truth_cw
        ]
        centre_BQ, width_BQ = (draws.placeholder_BQ2 / 6 + 0.5).unbind(-1)
        placeholder_BQ2 = torch.stack([centre_BQ, width_BQ.clamp(min=NARROWEST)], -1)
        signal_BQ2 = to_signal(same_size(truth_cw, placeholder_BQ2, order), self.config.signal_scale)
        return add_noise(signal_BQ2, draws.noise_BQ2, self.share_T, draws.time_B)

    def _similarity(self, seen: Condition, given: Projected, batch: Batch, targets: Targets) -> Tensor:
        """Pointwise, margin, and (not in the paper) ranking against clips with another sentence."""
        c, score_BT, mask_BT = self.config, seen.similarity_BT, batch.video_mask_BT
        label_BT = (targets.saliency_BT > 0).to(score_BT)
        each_BT = F.binary_cross_entropy_with_logits(score_BT, label_BT, reduction="none") * mask_BT
        pointwise = each_BT.sum() / (mask_BT.numel() if c.faithful else mask_BT.sum())
        gap = margin(score_BT, targets.positive_clip_BP, targets.negative_clip_BP, c.margin)
        if c.similarity == "paper":
            return pointwise + gap / 2  # eq. 1: the mean over pairs, where the code takes twice that
        other_BT = self.condition(given, batch, other_text=True).similarity_BT
        contrast = rank(
            torch.cat([score_BT, other_BT], 1), F.pad(label_BT, (0, label_BT.shape[1])), mask_BT.repeat(1, 2)
        )
        contrast = contrast * (RANKS + 1)  # labels are 0 or 1: one rank, which counts in full here
        return (
            gap + pointwise + contrast if c.similarity == "plain" else 10 * (gap + pointwise + contrast / 10)
        )
