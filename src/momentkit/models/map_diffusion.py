"""Multi-scale 2D map diffusion: the map of all moments' IoU with the truth is denoised, knowing the sentence.

    video, text -- MS-2D-TAN's encoder -- condition: K maps (B,d_F,n,A), once a query
    noise maps (B,n,A) -- decoder k: map and condition side by side, gated convolutions, each told the step --
              ^------------------------- DDIM, a step at a time -------------------------+-- IoU maps (B,n,A)

Source   Zhang et al., "Multi-scale 2D Temporal Map Diffusion Models for Natural Language Video Localization",
         arXiv 2401.08232. No code is public; what the paper leaves open is decided in map_diffusion.md,
         section 12 (D1 to D22), and is an option here. Eq. 5 is misprinted and read as DDIM; eq. 6 scales by
         1 + weight, as the code that it cites; eq. 8 prints a norm, the text says mean squared error.
Shapes   B videos  T clips  N clips after pooling  L words  D, E input widths  f condition width
         d decoder width  h width of the projected map  e time width  K scales
         n rows of a scale, N // 2^k  A columns  C cells of a scale, n * A  Q distinct moments
State    (B, N, K, A): cell (i, j) of scale k lies at [i * 2^k, k, j], so that more padding moves nothing
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Losses, Prediction
from momentkit.diffusion.samplers import Step, add_noise, ddim, noise_like
from momentkit.diffusion.schedules import Schedule, schedule
from momentkit.diffusion.spans import draw_times, own_noise
from momentkit.losses.maps import iou_targets, map_bce, map_mse, rescale
from momentkit.nn.map_encoder import (
    ClipEncoder,
    MapFusion,
    SentenceEncoder,
    WindowChain,
    Windows,
    scale_maps,
)
from momentkit.nn.maps import cell_spans, clip_scores, distinct_moments, merge_maps, valid_cells
from momentkit.nn.pointwise import Dropout
from momentkit.nn.stylization import MaskedGroupNorm, MixedAttention, Stylization, TokenNorm, time_vectors

TRACED = 10  # best moments of each step that the trace keeps


@dataclass(frozen=True, kw_only=True)
class MapDiffusionConfig:
    """Options; the defaults are the paper's Charades-STA run, with the recommended decisions."""

    video_dim: int = 1024
    text_dim: int = 300
    hidden: int = 512  # f, of the encoder and the condition
    text_hidden: int = 512  # of the LSTM, both directions together
    text_layers: int = 3
    pack_text: bool = True  # D6; False: the LSTM runs over padding
    pool: int = 1  # clips averaged to one
    scales: int = 3  # K
    columns: int = 16  # A
    windows: Windows = "conv"  # layers of the chain: conv + batch norm + tanh, max pooling, or conv alone
    scale_condition: bool = True  # D7: times sqrt(f), so that its entries are of order one

    decoder: Literal["conv", "transformer"] = "conv"
    # Table 3. "multiply" is the conv decoder's, "cross_attention" the transformer's.
    condition: Literal["concat", "multiply", "cross_attention"] = "concat"
    single_scale: bool = False  # transformer: the tokens of all scales in one sequence, one decoder
    width: int = 512  # d
    map_width: int = 64  # h, D12; "multiply" takes `hidden`
    map_mlp: bool = False  # D12: two layers in place of a linear map of the noisy map
    layers: int = 2  # L; the transformer of the paper has 4
    kernel: int = 17
    gate: Literal["one", "all"] = "one"  # D10: gate channels
    remask: bool = True  # D11; False: cells that are no moment feed their neighbours
    groups: int = 32  # D9: of the group norm
    heads: int = 8
    feed_forward: int = 1024
    positions: bool = True  # D14: a learned vector a cell, in the transformer
    position_rows: int = 64  # later rows of the finest map share the last one's vectors
    scaled_attention: bool = True  # D16
    time_factor: int = 4  # D8: the time vector is so many times `width`
    style_fusion: bool = True  # table 5: at the start of the conv decoder
    style_conv: bool = True  # after each convolution; of the transformer, after attention and feed-forward

    target: Literal["full", "rescaled"] = "full"  # table 4
    loss: Literal["mse", "bce"] = "mse"
    low: float = 0.5  # "rescaled": IoU up to which the target is 0
    high: float = 1.0  # and from which it is 1
    truths: Literal["max", "mean"] = "max"  # D1: of several true moments
    signal_scale: float = 0.0  # D2: 0 = the map itself is noised; s > 0: s (2 map - 1)
    shared_noise: bool = False  # D3: cells of several scales that are the same moment share their noise
    time_per_sample: bool = True  # D4
    noise_schedule: Schedule = "linear"  # D5
    noise_steps: int = 1000  # T
    steps: int = 2  # D19, of the sampler; may be changed after training. Ten were worse (docs/log.md)
    eta: float = 0.0  # D19: fresh noise a step
    draws: int = 1  # ours: starts from noise, whose maps are averaged; may be changed after training
    clamp: bool = True  # D18: estimates between steps are cut to the range of maps; the last one never is

    dropout: float = 0.0  # between decoder layers
    input_dropout: float = 0.0  # of clip and word features

    def __post_init__(self) -> None:
        counts = ("video_dim", "text_dim", "hidden", "text_layers", "pool", "scales", "columns", "map_width")
        for name in (*counts, "layers", "groups", "feed_forward", "position_rows", "time_factor", "draws"):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (self.scales == 1 or self.columns % 2 == 0):
            raise ConfigError(f"columns must be even where there are several scales, got {self.columns}")
        if not (self.kernel >= 1 and self.kernel % 2 == 1):
            raise ConfigError(f"kernel must be odd, got {self.kernel}")
        if not (self.text_hidden >= 2 and self.text_hidden % 2 == 0):
            raise ConfigError(f"text_hidden must be even, got {self.text_hidden}")
        if not (self.width >= 2 and self.heads >= 1 and self.width % self.heads == 0):
            raise ConfigError(f"width must be a multiple of heads, got {self.width}, {self.heads}")
        if self.condition == ("cross_attention" if self.decoder == "conv" else "multiply"):
            raise ConfigError(f"the {self.decoder} decoder knows no condition {self.condition!r}; use concat")
        if self.single_scale and self.decoder == "conv":
            raise ConfigError("single_scale puts tokens in one sequence, which needs decoder = transformer")
        if not (0 <= self.signal_scale < inf and 0 <= self.eta <= 1):
            raise ConfigError(
                f"signal_scale must not be negative and eta lie in 0..1, got {self.signal_scale}, {self.eta}"
            )
        if not 1 <= self.steps <= self.noise_steps:
            raise ConfigError(f"steps must lie in 1..noise_steps = {self.noise_steps}, got {self.steps}")
        if not 0 <= self.low < self.high <= 1:
            raise ConfigError(f"0 <= low < high <= 1 must hold, got {self.low}, {self.high}")
        if not (0 <= self.dropout < 1 and 0 <= self.input_dropout < 1):
            raise ConfigError(f"dropouts must lie in [0, 1), got {self.dropout}, {self.input_dropout}")


@dataclass(frozen=True)
class Condition:
    """What a decoder knows of video and sentence, a map a scale; and which clips and cells are real."""

    maps: list[Tensor]  # (B, f, n, A)
    valid: list[Tensor]  # (B, n, A)
    count_B: Tensor
    rows: int  # N


class MapProjection(nn.Module):
    """Noisy map (B, C) -> h channels a cell, next to or times the condition -> d channels."""

    def __init__(self, c: MapDiffusionConfig) -> None:
        super().__init__()
        h = c.hidden if c.condition == "multiply" else c.map_width
        self.multiply = c.condition == "multiply"
        layers: list[nn.Module] = [nn.Linear(1, h)]
        self.map_in = nn.Sequential(*layers, nn.SiLU(), nn.Linear(h, h)) if c.map_mlp else layers[0]
        self.out = nn.Linear(h if self.multiply else h + c.hidden, c.width)

    def forward(self, y_BC: Tensor, condition_BCf: Tensor) -> Tensor:
        """(B, C), (B, C, f) -> (B, C, d)."""
        h_BCh = self.map_in(y_BC[..., None])
        joined = h_BCh * condition_BCf if self.multiply else torch.cat([h_BCh, condition_BCf], 2)
        out: Tensor = self.out(joined)
        return out


class ConvLayer(nn.Module):
    """A gated convolution, and the style of its output."""

    def __init__(self, c: MapDiffusionConfig, styled: bool) -> None:
        super().__init__()
        d, padding = c.width, c.kernel // 2
        self.conv = nn.Conv2d(d, d, c.kernel, padding=padding)
        self.gate = nn.Conv2d(d, 1 if c.gate == "one" else d, c.kernel, padding=padding)
        norm = MaskedGroupNorm(d, c.groups)
        self.style = Stylization(d, c.time_factor * d, norm) if styled else None


class ConvDecoder(nn.Module):
    """The decoder of one scale: fusion layer, gated convolutions, each with its stylization as a residual."""

    def __init__(self, c: MapDiffusionConfig) -> None:
        super().__init__()
        self.config, d = c, c.width
        self.fuse = MapProjection(c)
        norm = MaskedGroupNorm(d, c.groups)
        self.style = Stylization(d, c.time_factor * d, norm) if c.style_fusion else None
        self.layers = nn.ModuleList(ConvLayer(c, c.style_conv) for _ in range(c.layers))
        self.drop = Dropout(c.dropout)
        self.out = nn.Linear(d, 1)

    def forward(self, y_BnA: Tensor, condition_BfnA: Tensor, time_Be: Tensor, valid_BnA: Tensor) -> Tensor:
        """(B, n, A), (B, f, n, A), (B, e), (B, n, A) -> (B, n, A), 0 where not valid."""
        shape, real_BC = valid_BnA.shape[1:], valid_BnA.flatten(1)
        mask_BC1 = real_BC[..., None]
        kept_BC1 = mask_BC1 if self.config.remask else torch.ones_like(mask_BC1)
        u_BCd = self.fuse(y_BnA.flatten(1), condition_BfnA.flatten(2).transpose(1, 2))
        x_BCd = u_BCd if self.style is None else u_BCd + self.style(u_BCd, time_Be, real_BC)
        x_BCd = x_BCd * kept_BC1
        for layer in cast(list[ConvLayer], self.layers):
            x_BdnA = self.drop(x_BCd).transpose(1, 2).unflatten(2, shape)
            u_BdnA = F.relu(layer.conv(x_BdnA)) * layer.gate(x_BdnA).sigmoid()
            u_BCd = u_BdnA.flatten(2).transpose(1, 2) * kept_BC1
            added_BCd = u_BCd if layer.style is None else layer.style(u_BCd, time_Be, real_BC)
            x_BCd = (x_BCd + added_BCd) * kept_BC1
        return (self.out(x_BCd) * mask_BC1)[..., 0].unflatten(1, shape)


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each followed by its stylization (if `style_conv`) as a residual."""

    def __init__(self, c: MapDiffusionConfig) -> None:
        super().__init__()
        d, crossed = c.width, c.condition == "cross_attention"
        self.attention = MixedAttention(d, c.hidden if crossed else 0, c.heads, c.scaled_attention)
        self.linear1, self.linear2 = nn.Linear(d, c.feed_forward), nn.Linear(c.feed_forward, d)
        self.styles = nn.ModuleList(
            Stylization(d, c.time_factor * d, TokenNorm(d)) for _ in range(2 if c.style_conv else 0)
        )

    def forward(
        self, x_BCd: Tensor, time_Be: Tensor, real_BC: Tensor, condition_BCf: Tensor | None
    ) -> Tensor:
        """Tokens -> tokens."""
        for part in range(2):
            if part == 0:
                u_BCd = self.attention(x_BCd, real_BC, condition_BCf, real_BC)
            else:
                u_BCd = self.linear2(F.gelu(self.linear1(x_BCd)))
            x_BCd = x_BCd + (self.styles[part](u_BCd, time_Be, real_BC) if len(self.styles) else u_BCd)
        return x_BCd


class TransformerDecoder(nn.Module):
    """Cells as tokens; of one scale, or of all scales in one sequence.

    Args:
        c: options.
        scales: the k that it serves.
    """

    def __init__(self, c: MapDiffusionConfig, scales: range) -> None:
        super().__init__()
        self.config, self.scales, d = c, scales, c.width
        self.fuse = MapProjection(c) if c.condition == "concat" else nn.Linear(1, d)
        rows = [max(1, c.position_rows // 2**k) for k in scales]
        self.places = nn.ParameterList(
            torch.randn(count, c.columns, d) * 0.02 for count in rows if c.positions
        )
        self.scale = nn.Parameter(torch.randn(len(scales), d) * 0.02) if len(scales) > 1 else None
        self.layers = nn.ModuleList(TransformerLayer(c) for _ in range(c.layers))
        self.drop = Dropout(c.dropout)
        self.out = nn.Linear(d, 1)

    def forward(
        self, maps: list[Tensor], conditions: list[Tensor], time_Be: Tensor, valid: list[Tensor]
    ) -> list[Tensor]:
        """A (B, n, A) map for each scale that it serves, 0 where not valid."""
        shapes = [real.shape[1:] for real in valid]
        y_BC, real_BC = (torch.cat([x.flatten(1) for x in many], 1) for many in (maps, valid))
        condition_BCf = torch.cat([x.flatten(2) for x in conditions], 2).transpose(1, 2)
        if isinstance(self.fuse, MapProjection):
            x_BCd, seen = self.fuse(y_BC, condition_BCf), None
        else:
            x_BCd, seen = self.fuse(y_BC[..., None]), condition_BCf
        x_BCd = x_BCd + self._places([shape[0] for shape in shapes], x_BCd)
        for layer in self.layers:
            x_BCd = layer(self.drop(x_BCd), time_Be, real_BC, seen)
        out_BC = self.out(x_BCd)[..., 0] * real_BC
        pieces = out_BC.split([shape.numel() for shape in shapes], 1)
        return [piece.unflatten(1, shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def _places(self, rows: list[int], like: Tensor) -> Tensor:
        """(C, d) or zeros: a vector a cell, and one a scale where there are several."""
        parts = []
        for index, count in enumerate(rows):
            cells_Cd = like.new_zeros(count * self.config.columns, like.shape[2])
            if len(self.places):
                table = self.places[index]
                row_n = torch.arange(count, device=like.device).clamp(max=table.shape[0] - 1)
                cells_Cd = table[row_n].flatten(0, 1)
            parts.append(cells_Cd if self.scale is None else cells_Cd + self.scale[index])
        return torch.cat(parts)


class MapDiffusion(nn.Module):
    """The network, its losses and its sampler."""

    share_T: Tensor

    def __init__(self, config: MapDiffusionConfig) -> None:
        super().__init__()
        self.config = c = config
        self.share_T = schedule(c.noise_schedule, c.noise_steps)  # float64, on the CPU whatever the device
        self.input_drop = Dropout(c.input_dropout)
        self.clips = ClipEncoder(c.video_dim, c.hidden, c.pool, whole=False)
        self.chain = WindowChain(c.hidden, c.columns, c.scales, c.windows, read_padding=False)
        self.sentence = SentenceEncoder(
            c.text_dim, c.text_hidden, c.text_layers, c.hidden, "mean", pack=c.pack_text
        )
        self.fusion = MapFusion(c.hidden)
        wide = c.time_factor * c.width
        styled = c.style_conv or (c.style_fusion and c.decoder == "conv")
        self.time = (
            nn.Sequential(nn.Linear(c.width, wide), nn.SiLU(), nn.Linear(wide, wide)) if styled else None
        )
        if c.decoder == "conv":
            self.decoders = nn.ModuleList(ConvDecoder(c) for _ in range(c.scales))
        elif c.single_scale:
            self.decoders = nn.ModuleList([TransformerDecoder(c, range(c.scales))])
        else:
            self.decoders = nn.ModuleList(TransformerDecoder(c, range(k, k + 1)) for k in range(c.scales))

    @property
    def sampling(self) -> Mapping[str, str]:
        """Options that may be changed after training; the proposals are the cells of the maps."""
        return {"steps": "steps"}

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Prediction:
        """Each stored moment once, best first, in clips; the trace holds the best moments of every step.

        A score is the estimated IoU, cut to [0, 1]; the order is that of the uncut values. A clip's saliency
        is the mean score of the moments that cover it.

        Args:
            batch: videos and sentences.
            generator: of the noise; a sample's follows from it and the sample's noise key alone.
        """
        condition, draws = self.sample(batch, generator=generator)
        states = ((steps[0].x, *(step.aside for step in steps)) for steps in draws)  # the noise first
        spans_Q2, place_Q = distinct_moments(condition.rows, self.config.columns, self.config.scales)
        spans_Q2, place_Q = spans_Q2.to(condition.count_B.device), place_Q.to(condition.count_B.device)
        valid_BQ = spans_Q2[:, 1] <= condition.count_B[:, None]
        clips_Q2 = spans_Q2.float() * self.config.pool
        trace = []
        for each in zip(*states, strict=True):
            maps = self._maps(torch.stack(each).mean(0), condition)
            value_BQ = self.merged(maps, condition).flatten(1)[:, place_Q]
            order_BQ = value_BQ.argsort(dim=1, descending=True, stable=True)
            best = clips_Q2[order_BQ[:, :TRACED]] * valid_BQ.gather(1, order_BQ[:, :TRACED])[..., None]
            trace.append(F.pad(best, (0, 0, 0, TRACED - best.shape[1])))
        score_BQ = value_BQ.clamp(0, 1) * valid_BQ
        saliency_BN = clip_scores(score_BQ, valid_BQ, spans_Q2, condition.rows)
        saliency_BT = saliency_BN.repeat_interleave(self.config.pool, 1)[:, : batch.video_mask_BT.shape[1]]
        return Prediction(
            spans_BQ2=clips_Q2[order_BQ],
            score_BQ=score_BQ.gather(1, order_BQ),
            valid_BQ=valid_BQ.gather(1, order_BQ),
            saliency_BT=saliency_BT,
            span_unit="clip",
            trace=tuple(trace[1:]),
            start_BQ2=trace[0],
        )

    def merged(self, maps: list[Tensor], condition: Condition) -> Tensor:
        """(B, N, N) highest value of each moment, in units of the target; -infinity where none is real."""
        c = self.config
        if c.signal_scale and c.loss == "mse":
            maps = [(values / c.signal_scale + 1) / 2 for values in maps]
        real = [
            values.masked_fill(~valid, -torch.inf)
            for values, valid in zip(maps, condition.valid, strict=True)
        ]
        return merge_maps(real, -torch.inf)

    def sample(
        self,
        batch: Batch,
        *,
        steps: int | None = None,
        eta: float | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Condition, list[tuple[Step[Tensor], ...]]]:
        """Denoise; video and sentence are encoded once, the decoders run at every step of every draw.

        Args:
            batch: videos and sentences.
            steps, eta: in place of the options.
            generator: of all noise.

        Returns:
            The condition, and the steps of each draw; a step's `aside` is what the decoders gave, uncut.
        """
        c, condition = self.config, self.condition(batch)
        like = condition.maps[0].new_empty(
            len(condition.count_B), condition.rows, c.scales, c.columns, dtype=torch.float32
        )

        def denoise(state_BNKA: Tensor, time: int) -> tuple[Tensor, Tensor]:
            time_B = torch.full((len(state_BNKA),), time, device=state_BNKA.device)
            maps = self.denoise(self._maps(state_BNKA, condition), time_B, condition)
            values = self._state([self.value(x).float() for x in maps], condition)
            low, high = (-c.signal_scale, c.signal_scale) if c.signal_scale else (0.0, 1.0)
            signal = values if c.loss == "mse" else self.to_signal(values)
            return signal.clamp(low, high) if c.clamp else signal, values

        draws = []
        for _ in range(c.draws):
            _, trace = ddim(
                denoise,
                self._shared(noise_like(like, generator, batch.noise_keys)),
                self.share_T,
                steps or c.steps,
                eta=c.eta if eta is None else eta,
                generator=generator,
                keys=batch.noise_keys,
            )
            draws.append(trace)
        return condition, draws

    def condition(self, batch: Batch) -> Condition:
        """Section 3 of map_diffusion.md: MS-2D-TAN's fused maps."""
        c = self.config
        clips_BfN, count_B = self.clips(
            self.input_drop(batch.video_BTD), batch.video_mask_BT, self.chain.needed_clips
        )
        rows = clips_BfN.shape[2]
        maps = scale_maps(self.chain(clips_BfN, count_B), rows)
        _, sentence_Bf = self.sentence(self.input_drop(batch.text_BLE), batch.text_mask_BL)
        valid = [valid_cells(count_B, rows // 2**k, c.columns, 2**k) for k in range(c.scales)]
        factor = c.hidden**0.5 if c.scale_condition else 1.0
        fused = [factor * self.fusion(x, sentence_Bf, real) for x, real in zip(maps, valid, strict=True)]
        return Condition(fused, valid, count_B, rows)

    def denoise(self, maps: list[Tensor], time_B: Tensor, condition: Condition) -> list[Tensor]:
        """Noisy maps at a step -> what the decoders say of the clean ones (before `value`).

        Args:
            maps: (B, n, A) a scale; what they hold where no cell is valid is not read.
            time_B: steps of the schedule.
            condition: of `condition`.
        """
        vector_Bd = time_vectors(time_B, self.config.width)
        time_Be = vector_Bd if self.time is None else self.time(vector_Bd)  # without a style nobody reads it
        maps = [y * valid for y, valid in zip(maps, condition.valid, strict=True)]
        if self.config.single_scale:
            return cast(list[Tensor], self.decoders[0](maps, condition.maps, time_Be, condition.valid))
        parts = zip(self.decoders, maps, condition.maps, condition.valid, strict=True)
        if self.config.decoder == "conv":
            return [decoder(y, seen, time_Be, valid) for decoder, y, seen, valid in parts]
        return [decoder([y], [seen], time_Be, [valid])[0] for decoder, y, seen, valid in parts]

    def value(self, out: Tensor) -> Tensor:
        """The estimated map: the output itself (squared error), or its sigmoid (cross entropy)."""
        return out if self.config.loss == "mse" else out.sigmoid()

    def to_signal(self, target: Tensor) -> Tensor:
        """g: a map in [0, 1] -> what is noised."""
        scale = self.config.signal_scale
        return scale * (2 * target - 1) if scale else target

    def targets(self, windows_clip: tuple[Tensor, ...], condition: Condition) -> list[Tensor]:
        """(B, n, A) a scale in [0, 1]: IoU (eq. 1), or its rescaled form; `windows_clip` in clips."""
        c = self.config
        pooled = [window / c.pool for window in windows_clip]
        maps = []
        for k, valid in enumerate(condition.valid):
            spans = cell_spans(valid.shape[1], valid.shape[2], 2**k, valid.device)
            iou = iou_targets(pooled, spans, c.truths)
            maps.append(rescale(iou, c.low, c.high) if c.target == "rescaled" else iou)
        return maps

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """Eq. 7 and 8: a term a scale at one random step a sample, mean over the batch's valid cells."""
        c = self.config
        assert batch.targets is not None
        condition = self.condition(batch)
        targets = self.targets(batch.targets.windows_clip, condition)
        clean = self._state([self.to_signal(target) for target in targets], condition)
        samples = len(clean) if c.time_per_sample else 1
        time_B = draw_times(samples, c.noise_steps, clean.device, generator).expand(len(clean))
        noise = self._shared(own_noise(clean, generator))
        noisy = self._maps(add_noise(clean, noise, self.share_T, time_B), condition)  # eq. 4
        out = self.denoise(noisy, time_B, condition)
        terms = {}
        for k, (estimate, target, valid) in enumerate(zip(out, targets, condition.valid, strict=True)):
            if c.loss == "mse":
                terms[f"scale_{k}"] = map_mse(estimate, self.to_signal(target), valid)
            else:
                terms[f"scale_{k}"] = map_bce(estimate, target, valid)
        return Losses(terms, dict.fromkeys(terms, 1.0))

    def _maps(self, state_BNKA: Tensor, condition: Condition) -> list[Tensor]:
        """The maps of a state, (B, n, A) a scale."""
        return [state_BNKA[:, : valid.shape[1] * 2**k : 2**k, k] for k, valid in enumerate(condition.valid)]

    def _state(self, maps: list[Tensor], condition: Condition) -> Tensor:
        """Maps (B, n, A) a scale -> one state; zero where no cell is."""
        columns = []
        for k, values in enumerate(maps):
            spread_BnsA = F.pad(values[:, :, None], (0, 0, 0, 2**k - 1)).flatten(1, 2)
            columns.append(F.pad(spread_BnsA, (0, 0, 0, condition.rows - spread_BnsA.shape[1])))
        return torch.stack(columns, 2)

    def _shared(self, noise_BNKA: Tensor) -> Tensor:
        """D3: where a scale repeats a moment of the scale before, its noise as well."""
        half = self.config.columns // 2
        if not self.config.shared_noise:
            return noise_BNKA
        planes = [noise_BNKA[:, :, 0]]
        for k in range(1, self.config.scales):
            planes.append(torch.cat([planes[-1][:, :, 1::2], noise_BNKA[:, :, k, half:]], 2))
        return torch.stack(planes, 2)
