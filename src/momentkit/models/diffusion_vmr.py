"""DiffusionVMR: moments and clip scores are denoised, from pure noise to the answer.

    video (B,T,D) - projection -+- encoder -- memory -+- moment decoder <- noisy spans (B,Q,2), step
    text  (B,L,E) - projection -+                     +- linear ------------------------> s_dis (B,T)
    both projections ---------------------------------- saliency decoder <- noisy scores (B,T), step -> s_gen
    saliency = s_gen + s_dis

Source   Zhao et al., "DiffusionVMR: Diffusion Model for Joint Video Moment Retrieval and Highlight
         Detection", arXiv 2308.15109. No code is public: what the paper leaves open is decided in
         diffusion_vmr.md, D1 to D32, and stands here as a default. Donors: Moment-DETR (encoder, matcher,
         hinge), DiffusionDet (noising, dynamic interaction, time), DiffusionRet (eq. 10, 11).
Shapes   B videos  T clips  L words  D, E input widths  d hidden  Q proposals  N decoder layers  R bins
         G true moments  k inner width of the dynamic interaction      cw = centre,width, fractions
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.config import check_sizes
from momentkit.core.errors import ConfigError
from momentkit.core.spans import cw_to_se, se_to_cw
from momentkit.core.types import Batch, Losses, Prediction, Targets
from momentkit.diffusion.samplers import add_noise, ddim, noise_like
from momentkit.diffusion.schedules import Schedule, schedule
from momentkit.diffusion.spans import draw_times, noisy_spans, own_noise, to_signal, to_spans
from momentkit.losses.saliency import divergence, margin, median_pair
from momentkit.losses.spans import set_terms, targets_as_fractions
from momentkit.nn.attention import PackedAttention
from momentkit.nn.masks import masked_softmax
from momentkit.nn.pointwise import Dropout
from momentkit.nn.positions import clip_positions, step_code
from momentkit.nn.roi import DynamicInteraction, align_weights, apply_offset, select_weights
from momentkit.nn.set_denoiser import SetDenoiser
from momentkit.nn.transformer import EncoderLayer, InputProjection, Mlp, draw_xavier

SHARPNESS = 100.0  # DiffusionRet's factor in the softmax over scores that lie in [-1, 1]


@dataclass(frozen=True, kw_only=True)
class DiffusionVMRConfig:
    """Options; the defaults are the recommended choices of diffusion_vmr.md."""

    video_dim: int = 2818  # clip features with the two time channels
    text_dim: int = 512
    hidden: int = 256
    heads: int = 8
    feed_forward: int = 1024
    input_layers: int = 2
    encoder_layers: int = 6
    decoder_layers: int = 2
    dropout: float = 0.1
    input_dropout: float = 0.5
    proposals: int = 20  # Q, at inference and at the end of training; any number fits the same weights
    steps: int = 5  # denoising steps at inference; any number fits the same weights
    saliency_steps: int = 0  # those of the saliency; 0 = the same
    eta: float = 1.0  # 1 = fresh noise in every step, 0 = none
    noise_schedule: Schedule = "cosine"
    noise_steps: int = 1000  # T of the paper
    signal_scale: float = 2.0  # spans are noised as numbers in +- this
    grow_epochs: float = 5.0  # training begins with one proposal and adds one every so many epochs; 0 = all
    padding: Literal["normal", "uniform"] = "normal"  # law of the random spans beside the true ones
    task: Literal["moments", "highlights"] = "moments"  # highlights: saliency alone, no moment branch
    moments: Literal["diffusion", "queries"] = "diffusion"  # queries: learned spans, no noise (ablation)
    interaction: Literal["dynamic", "cross"] = "dynamic"  # cross: attention to the memory (ablation)
    roi: Literal["align", "select"] = "align"  # select: the mean of the clips inside
    bins: int = 16  # R, of "align"
    dynamic_width: int = 64  # k
    span_head: Literal["absolute", "refine", "delta"] = "absolute"  # what the span head predicts; see `move`
    saliency: Literal["diffusion", "cosine", "off"] = "diffusion"  # s_gen; the other two are ablations
    saliency_head: Literal["pool_concat", "elementwise"] = "pool_concat"  # readings of eq. 11
    saliency_estimate: Literal["relative", "clamp"] = "relative"  # from logits to scores; see `estimate`
    scaled_attention: bool = False  # divide q.k of eq. 11 by sqrt(d), which the paper does not
    margin: float = 0.2
    background: float = 0.1  # weight of an unmatched proposal in the label loss
    weight_span: float = 5.0
    weight_giou: float = 2.0
    weight_label: float = 2.0
    weight_saliency: float = 1.0
    weight_kl: float = 1.0

    def __post_init__(self) -> None:
        check_sizes(self, multiple_of=4)
        for name in ("proposals", "steps", "noise_steps", "bins", "dynamic_width"):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not max(self.steps, self.saliency_steps) <= self.noise_steps or not self.saliency_steps >= 0:
            raise ConfigError(
                f"steps and saliency_steps reach from 1 to noise_steps ({self.noise_steps}), got "
                f"{self.steps}, {self.saliency_steps}"
            )
        if self.moments == "queries" and self.span_head == "absolute":
            raise ConfigError(
                'learned spans learn through the span head alone, and "absolute" does not start from them; '
                'with moments = "queries" set span_head = "refine"'
            )
        if not (self.signal_scale > 0 and self.grow_epochs >= 0 and 0 <= self.eta <= 1):
            raise ConfigError(
                f"signal_scale must be positive, grow_epochs not negative, eta in 0..1, got "
                f"{self.signal_scale}, {self.grow_epochs}, {self.eta}"
            )


class Condition(NamedTuple):
    """What every denoising step looks at; computed once a query."""

    video_BTd: Tensor  # before the encoder
    sentence_Bd: Tensor  # words pooled by attention
    memory_BTd: Tensor
    positions_BTd: Tensor
    mask_BT: Tensor
    judged_BT: Tensor  # s_dis
    noise_keys: tuple[int, ...]  # of the samples


class Decoded(NamedTuple):
    """Class logits (0 = a moment) and spans of every decoder layer."""

    logits_NBQ2: Tensor
    spans_cw_NBQ2: Tensor


class DenoisingLayer(nn.Module):
    """Proposals look at each other, then at their clips; the step tells the heads how noisy they were."""

    def __init__(self, config: DiffusionVMRConfig) -> None:
        super().__init__()
        c, d = config, config.hidden
        self.attention = PackedAttention(d, c.heads, c.dropout)
        self.interaction = (
            DynamicInteraction(d, c.dynamic_width, c.bins if c.roi == "align" else 1)
            if c.interaction == "dynamic"
            else PackedAttention(d, c.heads, c.dropout)
        )
        self.linear1, self.linear2 = nn.Linear(d, c.feed_forward), nn.Linear(c.feed_forward, d)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(d) for _ in range(3))
        self.dropout = Dropout(c.dropout)
        self.time = nn.Linear(4 * d, 2 * d) if c.moments == "diffusion" else None
        self.label, self.span, self.span_head = nn.Linear(d, 2), Mlp(d, d, d, 2), c.span_head

    def forward(
        self,
        feature_BQd: Tensor,
        spans_cw_BQ2: Tensor,
        roi_BQRd: Tensor | None,
        condition: Condition,
        time_Bh: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features for the next layer, logits and new spans.

        Args:
            feature_BQd, spans_cw_BQ2: of the proposals.
            roi_BQRd: what lies in their spans; None = they attend to the whole memory instead.
            condition: the memory.
            time_Bh: code of the step, h = 4d; None = there are no steps.
        """
        feature_BQd = self.interact(feature_BQd, roi_BQRd, condition)
        told_BQd = self.tell(feature_BQd, time_Bh)
        return feature_BQd, self.label(told_BQd).float(), self.move(told_BQd, spans_cw_BQ2)

    def interact(self, feature_BQd: Tensor, roi_BQRd: Tensor | None, condition: Condition | None) -> Tensor:
        """Self-attention, interaction, feed-forward; as in `forward`."""
        everyone = torch.ones(feature_BQd.shape[:2], dtype=torch.bool, device=feature_BQd.device)
        seen, _ = self.attention(feature_BQd, feature_BQd, feature_BQd, everyone)
        a = self.norm1(feature_BQd + self.dropout(seen))
        if roi_BQRd is None:
            assert condition is not None
            keys = condition.memory_BTd + condition.positions_BTd
            seen, _ = self.interaction(a, keys, condition.memory_BTd, condition.mask_BT)
        else:
            seen = self.interaction(a, roi_BQRd)
        z = self.norm2(a + self.dropout(seen))
        hidden = self.linear2(self.dropout(F.relu(self.linear1(z))))
        return self.norm3(z + self.dropout(hidden))

    def tell(self, feature_BQd: Tensor, time_Bh: Tensor | None) -> Tensor:
        """Features for the heads: scaled and shifted by the step."""
        if self.time is None or time_Bh is None:
            return feature_BQd
        scale, shift = self.time(F.silu(time_Bh))[:, None].chunk(2, -1)
        return feature_BQd * (1 + scale) + shift

    def move(self, feature_BQd: Tensor, spans_cw_BQ2: Tensor) -> Tensor:
        """New spans: outright, or from those that entered the layer by a step in logit space or an offset."""
        move_BQ2 = self.span(feature_BQd).float()
        if self.span_head == "delta":
            return apply_offset(spans_cw_BQ2, move_BQ2).clamp(0, 1)
        if self.span_head == "refine":
            move_BQ2 = move_BQ2 + torch.logit(spans_cw_BQ2, eps=1e-3)
        return move_BQ2.sigmoid()


class DiffusionVMR(nn.Module):
    """The network and its losses."""

    def __init__(self, config: DiffusionVMRConfig) -> None:
        super().__init__()
        self.config = c = config
        d = c.hidden
        self.video_in = InputProjection(c.video_dim, d, c.input_layers, c.input_dropout)
        self.text_in = InputProjection(c.text_dim, d, c.input_layers, c.input_dropout)
        self.encoder = nn.ModuleList(
            EncoderLayer(d, c.heads, c.feed_forward, c.dropout, Dropout(c.dropout), nn.ReLU())
            for _ in range(c.encoder_layers)
        )
        self.judge = nn.Linear(d, 1, bias=False)  # a bias would move all clips alike
        moments, noisy = c.task == "moments", c.moments == "diffusion"
        self.decoder = nn.ModuleList(DenoisingLayer(c) for _ in range(c.decoder_layers)) if moments else None
        time = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, 4 * d))
        self.time = time if moments and noisy else None
        self.pool = nn.Linear(d, 1, bias=False) if c.saliency != "off" else None
        self.saliency = (
            SetDenoiser(d, c.saliency_head, scaled=c.scaled_attention) if c.saliency == "diffusion" else None
        )
        draw_xavier(self)
        learned = moments and not noisy
        self.anchors = nn.Parameter(torch.randn(c.proposals, 2)) if learned else None  # before the sigmoid
        self.queries = nn.Parameter(torch.randn(c.proposals, d)) if learned else None
        self.share_T = schedule(c.noise_schedule, c.noise_steps)

    @property
    def sampling(self) -> Mapping[str, str]:
        """Options that may be changed after training; learned proposals are as many as they are."""
        return {"steps": "steps"} | ({"proposals": "proposals"} if self.time is not None else {})

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Prediction:
        """Moments in clips, and saliency; a sample's noise follows from `generator` and its noise key."""
        return self.sample(batch, generator=generator)

    def sample(
        self,
        batch: Batch,
        *,
        proposals: int | None = None,
        steps: int | None = None,
        eta: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Prediction:
        """Denoise with any number of proposals and steps, whatever the network was trained with.

        Args:
            batch: targets are not looked at.
            proposals, steps, eta: in place of the options; `steps` then holds for the saliency as well.
            generator: of the noise.

        Returns:
            `trace` holds the spans that each step estimates.
        """
        c, condition = self.config, self.encode(batch)
        eta = c.eta if eta is None else eta
        span_steps, saliency_steps = c.steps, c.saliency_steps or c.steps
        if steps is not None:
            span_steps = saliency_steps = steps
        start_cw_BQ2, found = self._moments(condition, proposals, span_steps, eta, generator)
        saliency_BT = condition.judged_BT + self._saliency(condition, saliency_steps, eta, generator)
        # In clips of the grid, the unit of the training targets; the duration may differ (D28).
        clips_B11 = batch.video_mask_BT.sum(1)[:, None, None]
        start_BQ2, *spans = (
            cw_to_se(spans_cw).clamp(0, 1) * clips_B11
            for spans_cw in (start_cw_BQ2, *(decoded.spans_cw_NBQ2[-1] for decoded in found))
        )
        score_BQ = found[-1].logits_NBQ2[-1].softmax(-1)[..., 0]
        valid_BQ = torch.ones_like(score_BQ, dtype=torch.bool)
        return Prediction(
            spans_BQ2=spans[-1],
            score_BQ=score_BQ,
            valid_BQ=valid_BQ,
            saliency_BT=saliency_BT,
            span_unit="clip",
            trace=tuple(spans),
            start_BQ2=start_BQ2,
        )

    def encode(self, batch: Batch) -> Condition:
        """All that does not depend on the noise (eq. 8, 12)."""
        mask_BT, words_BL = batch.video_mask_BT, batch.text_mask_BL
        video_BTd, text_BLd = self.video_in(batch.video_BTD), self.text_in(batch.text_BLE)
        positions_BTd = clip_positions(mask_BT, self.config.hidden)
        positions = torch.cat([positions_BTd, torch.zeros_like(text_BLd)], 1)
        sequence, mask = torch.cat([video_BTd, text_BLd], 1), torch.cat([mask_BT, words_BL], 1)
        for layer in self.encoder:
            sequence = layer(sequence, positions, mask)
        memory_BTd = sequence[:, : video_BTd.shape[1]]
        if self.pool is None:
            sentence_Bd = text_BLd[:, 0]  # nobody looks at it
        else:
            weight_BL = masked_softmax(self.pool(text_BLd)[..., 0], words_BL, 1)
            sentence_Bd = (weight_BL[:, None] @ text_BLd)[:, 0]
        judged_BT = self.judge(memory_BTd)[..., 0].float()
        return Condition(
            video_BTd, sentence_Bd, memory_BTd, positions_BTd, mask_BT, judged_BT, batch.noise_keys
        )

    def decode(self, condition: Condition, spans_cw_BQ2: Tensor, time_B: Tensor) -> Decoded:
        """One call of the moment decoder; each layer starts from the spans of the one before.

        Args:
            condition: of `encode`.
            spans_cw_BQ2: noisy spans, within [0, 1].
            time_B: step of each sample.
        """
        assert self.decoder is not None
        feature_BQd = None if self.queries is None else self.queries.expand(*spans_cw_BQ2.shape[:2], -1)
        time_Bh = None if self.time is None else self.time(step_code(time_B, self.config.hidden))
        logits, spans = [], []
        for layer in self.decoder:
            if feature_BQd is None:
                feature_BQd = self.crop(condition, spans_cw_BQ2).mean(2)  # eq. 9
            cropped = self.config.interaction == "dynamic"
            roi_BQRd = self.crop(condition, spans_cw_BQ2) if cropped else None
            feature_BQd, logits_BQ2, moved_BQ2 = layer(
                feature_BQd, spans_cw_BQ2, roi_BQRd, condition, time_Bh
            )
            logits.append(logits_BQ2)
            spans.append(moved_BQ2)
            spans_cw_BQ2 = moved_BQ2.detach()
        return Decoded(torch.stack(logits), torch.stack(spans))

    def crop(self, condition: Condition, spans_cw_BQ2: Tensor) -> Tensor:
        """Memory inside each span, (B, Q, R, d); R is 1 for "select"."""
        if self.config.roi == "align":
            weight_BQRT = align_weights(spans_cw_BQ2, condition.mask_BT, self.config.bins)
        else:
            weight_BQRT = select_weights(spans_cw_BQ2, condition.mask_BT)
        return (weight_BQRT.flatten(1, 2) @ condition.memory_BTd).unflatten(1, weight_BQRT.shape[1:3])

    def _moments(
        self,
        condition: Condition,
        proposals: int | None,
        steps: int,
        eta: float,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, list[Decoded]]:
        """Spans that the moment decoder is first given, and what it says at each step."""
        samples, scale = len(condition.mask_BT), self.config.signal_scale

        def decode(spans_cw_BQ2: Tensor, time: int) -> Decoded:
            return self.decode(
                condition, spans_cw_BQ2, torch.full((samples,), time, device=spans_cw_BQ2.device)
            )

        if self.decoder is None:
            none = condition.judged_BT.new_zeros(1, samples, 0, 2)
            return none[0], [Decoded(none, none)]
        if self.anchors is not None:
            if proposals not in (None, len(self.anchors)):
                raise ConfigError(
                    f'moments = "queries" has learned {len(self.anchors)} proposals, {proposals} were asked '
                    f'for; only moments = "diffusion" takes any number'
                )
            anchors_BQ2 = self.anchors.sigmoid().expand(samples, -1, 2)
            return anchors_BQ2, [decode(anchors_BQ2, 0)]
        count = self.config.proposals if proposals is None else proposals
        if not count >= 1:
            raise ConfigError(f"proposals must be at least 1, got {count}")

        def denoise(x_BQ2: Tensor, time: int) -> tuple[Tensor, Decoded]:
            decoded = decode(to_spans(x_BQ2, scale), time)
            return to_signal(decoded.spans_cw_NBQ2[-1], scale), decoded

        keys = condition.noise_keys
        noise_BQ2 = noise_like(condition.judged_BT.new_empty(samples, count, 2), generator, keys)
        _, trace = ddim(denoise, noise_BQ2, self.share_T, steps, eta=eta, generator=generator, keys=keys)
        return to_spans(noise_BQ2, scale), [step.aside for step in trace]

    def _saliency(
        self, condition: Condition, steps: int, eta: float, generator: torch.Generator | None
    ) -> Tensor:
        """s_gen, (B, T)."""
        if self.pool is None:
            return torch.zeros_like(condition.judged_BT)
        if self.saliency is None:
            return self._cosine(condition)

        def denoise(x_BT: Tensor, time: int) -> tuple[Tensor, None]:
            time_B = torch.full((len(x_BT),), time, device=x_BT.device)
            return self.estimate(self.saliency_logits(condition, x_BT, time_B), condition.mask_BT), None

        keys = condition.noise_keys
        noise_BT = noise_like(condition.judged_BT, generator, keys)
        scores_BT, _ = ddim(denoise, noise_BT, self.share_T, steps, eta=eta, generator=generator, keys=keys)
        return scores_BT

    def saliency_logits(self, condition: Condition, noisy_BT: Tensor, time_B: Tensor) -> Tensor:
        """One call of the saliency decoder, (B, T)."""
        assert self.saliency is not None
        code_Bd = step_code(time_B, self.config.hidden)
        return self.saliency(condition.sentence_Bd, condition.video_BTd, condition.mask_BT, noisy_BT, code_Bd)

    def estimate(self, logits_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Scores from logits: softmax over its largest, in (0, 1]; or, as DiffusionRet, cut to +-1 (D15)."""
        if self.config.saliency_estimate == "clamp":
            return logits_BT.clamp(-1, 1) * mask_BT
        hidden_BT = logits_BT.masked_fill(~mask_BT, -torch.inf)
        return (hidden_BT - hidden_BT.amax(1, keepdim=True)).exp()

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """Set losses of every decoder layer, the hinge on s_dis, the divergence of s_gen (eq. 13 to 17).

        Args:
            batch: with targets.
            generator: of steps, random spans and noise; each sample has its own.
            epoch: decides how many proposals there are.
        """
        c, targets, condition = self.config, batch.targets, self.encode(batch)
        assert targets is not None
        time_B = draw_times(len(condition.mask_BT), len(self.share_T), condition.mask_BT.device, generator)
        positive, negative = targets.positive_clip_BP, targets.negative_clip_BP
        if c.task == "highlights":  # D27: beside the extremes a random pair
            noise_BT = own_noise(condition.judged_BT, generator)
            pair = median_pair(targets.saliency_BT, condition.mask_BT, noise_BT)
            positive, negative = torch.cat([positive, pair[0]], 1), torch.cat([negative, pair[1]], 1)
        terms = {"saliency": margin(condition.judged_BT, positive, negative, c.margin)}
        if c.saliency != "off":
            terms["kl"] = self._divergence(condition, targets, time_B, generator)
        if self.decoder is not None:
            truth_cw = [_inside(cw) for cw in targets_as_fractions(targets.windows_clip, batch.video_mask_BT)]
            if self.anchors is None:
                count, law, scale = self.training_proposals(epoch), c.padding, c.signal_scale
                spans = noisy_spans(truth_cw, count, law, scale, self.share_T, time_B, generator)
            else:
                spans = self.anchors.sigmoid().expand(len(time_B), -1, 2)
            decoded = self.decode(condition, spans, time_B)
            costs = c.weight_span, c.weight_giou, 1.0  # eq. 14
            terms |= set_terms(*decoded, truth_cw, costs=costs, background=c.background)
        weights = {
            "span": c.weight_span,
            "giou": c.weight_giou,
            "label": c.weight_label,
            "saliency": c.weight_saliency,
            "kl": c.weight_kl,
        }
        return Losses(terms, {name: weights[name.split("_")[0]] for name in terms})

    def training_proposals(self, epoch: float) -> int:
        """How many proposals there are: from 1 to all of them, one more every `grow_epochs`."""
        c = self.config
        if epoch >= (c.proposals - 1) * c.grow_epochs:
            return c.proposals
        return 1 + int(epoch // c.grow_epochs)

    def _divergence(
        self, condition: Condition, targets: Targets, time_B: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """KL(p || softmax of the logits), p the labels as a distribution; mean over samples that have any."""
        c, label_BT, mask_BT = self.config, targets.saliency_BT, condition.mask_BT
        if self.saliency is None:
            logits_BT = SHARPNESS * self._cosine(condition)
        else:
            clean_BT = label_BT / label_BT.amax(1, keepdim=True).clamp(min=1e-6)
            noisy_BT = add_noise(clean_BT, own_noise(clean_BT, generator), self.share_T, time_B)
            logits_BT = self.saliency_logits(condition, noisy_BT, time_B)
            if c.saliency_estimate == "clamp":
                logits_BT = SHARPNESS * logits_BT
        return divergence(logits_BT, label_BT, mask_BT)

    def _cosine(self, condition: Condition) -> Tensor:
        """Of each clip with the sentence, (B, T)."""
        return F.cosine_similarity(condition.video_BTd, condition.sentence_Bd[:, None], -1).float()


def _inside(spans_cw: Tensor) -> Tensor:
    """True spans cut to the clips there are; those wholly beyond them are left out."""
    spans_se = cw_to_se(spans_cw).clamp(0, 1)
    return se_to_cw(spans_se[spans_se[:, 1] > spans_se[:, 0]])
