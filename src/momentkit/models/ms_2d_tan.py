"""MS-2D-TAN and 2D-TAN: moments are cells of a map; convolutions compare neighbours, a head scores them.

    video (B,T,D) -- 1x1 conv, pooling -- chain of window layers -- K maps (B,d,n,A) --+
    text  (B,L,E) -- LSTM, mean, linear -- sentence (B,d) ------ product, length 1 ----+-- fused maps
    fused map k -- gated convolutions of scale k -- 1x1 conv, sigmoid -- probabilities (B,n,A)

Source   Zhang et al., "Multi-Scale 2D Temporal Adjacency Networks for Moment Localization with Natural
         Language", TPAMI 2021, and "Learning 2D Temporal Adjacent Networks ...", AAAI 2020; their code.
         `geometry="plane"` is 2D-TAN: one map of first and last clip instead of K of first clip and length.
         Faults of the published code that `faithful=True` brings back: batch norm takes its statistics over
         padding, the LSTM runs over padding, cells that are no moment feed their neighbours between
         convolutions, and a pooled clip with one padded part is none.
Shapes   B videos  T clips  N clips after pooling  L words  D, E input widths  d hidden  K scales
         n rows of a scale, N // 2^k  A columns  G windows  Q distinct moments
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Losses, Prediction
from momentkit.losses.maps import iou_targets, map_bce, rescale
from momentkit.nn.map_encoder import (
    ClipEncoder,
    MapFusion,
    SentenceEncoder,
    WindowChain,
    Windows,
    plane_map,
    plane_places,
    resample,
    scale_maps,
)
from momentkit.nn.maps import cell_spans, clip_scores, distinct_moments, merge_maps, valid_cells
from momentkit.nn.pointwise import Dropout


@dataclass(frozen=True, kw_only=True)
class MS2DTANConfig:
    """Options; the defaults are the published Charades-STA I3D run."""

    video_dim: int = 1024
    text_dim: int = 300
    hidden: int = 512
    text_hidden: int = 512  # of the LSTM, both directions together
    text_layers: int = 3
    text_pooling: Literal["mean", "last"] = "mean"  # "last": forward LSTM, state of the last word (2D-TAN)
    resample: Literal["none", "pick", "mean"] = "none"  # to `samples` clips, whatever the video's length
    samples: int = 64
    pool: int = 1  # clips averaged to one
    scales: int = 3  # K
    columns: int = 16  # A, moment lengths stored a scale
    windows: Windows = "conv"  # layers of the chain: conv + batch norm + tanh, max pooling, or conv alone
    geometry: Literal["scales", "plane"] = "scales"
    convs: Literal["gated", "plain", "counted"] = (
        "gated"  # "counted": divided by the valid cells below the kernel
    )
    map_layers: int = 2  # L
    kernel: int = 17  # published rule of thumb: A + 1
    low: float = 0.5  # IoU up to which the target is 0
    high: float = 1.0  # IoU from which it is 1
    dropout: float = 0.0  # between map convolutions; published: none
    input_dropout: float = 0.0  # of clip and word features; published: none
    faithful: bool = False  # the published arithmetic on padding

    def __post_init__(self) -> None:
        for name in (
            "video_dim",
            "text_dim",
            "hidden",
            "text_layers",
            "samples",
            "pool",
            "scales",
            "columns",
        ):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (self.scales == 1 or self.columns % 2 == 0):
            raise ConfigError(f"columns must be even where there are several scales, got {self.columns}")
        if not (self.map_layers >= 1 and self.kernel >= 1 and self.kernel % 2 == 1):
            raise ConfigError(
                f"map convolutions need a layer and an odd kernel, got {self.map_layers}, {self.kernel}"
            )
        if not (self.text_hidden >= 2 and self.text_hidden % 2 == 0):
            raise ConfigError(f"text_hidden must be even, got {self.text_hidden}")
        if not 0 <= self.low < self.high <= 1:
            raise ConfigError(f"0 <= low < high <= 1 must hold, got {self.low}, {self.high}")
        if not (0 <= self.dropout < 1 and 0 <= self.input_dropout < 1):
            raise ConfigError(f"dropouts must lie in [0, 1), got {self.dropout}, {self.input_dropout}")


class MapConv(nn.Module):
    """A convolution over a map: gated by one channel (a sigmoid for all channels of a cell), or plain."""

    def __init__(self, d: int, kernel: int, gated: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(d, d, kernel, padding=kernel // 2)
        self.gate = nn.Conv2d(d, 1, kernel, padding=kernel // 2) if gated else None

    def forward(self, x_BdnA: Tensor) -> Tensor:
        """(B, d, n, A) -> the same; both convolutions read the input."""
        y_BdnA = F.relu(self.conv(x_BdnA))
        return y_BdnA if self.gate is None else y_BdnA * self.gate(x_BdnA).sigmoid()


class MapConvs(nn.Module):
    """The convolutions of one scale."""

    def __init__(self, config: MS2DTANConfig) -> None:
        super().__init__()
        self.config = c = config
        self.layers = nn.ModuleList(
            MapConv(c.hidden, c.kernel, c.convs == "gated") for _ in range(c.map_layers)
        )
        self.drop = Dropout(c.dropout)

    def forward(self, x_BdnA: Tensor, valid_BnA: Tensor) -> Tensor:
        """(B, d, n, A), (B, n, A) -> (B, d, n, A)."""
        if self.config.convs == "counted":
            return self._counted(x_BdnA, valid_BnA)
        for index, layer in enumerate(self.layers):
            if index:
                x_BdnA = self.drop(x_BdnA)
                if not self.config.faithful:
                    x_BdnA = x_BdnA * valid_BnA[:, None]
            x_BdnA = layer(x_BdnA)
        return x_BdnA

    def _counted(self, x_BdnA: Tensor, valid_BnA: Tensor) -> Tensor:
        """2D-TAN: divided by the valid cells below the kernel; cells that see one become valid themselves."""
        c = self.config
        reach = c.kernel // 2 * len(self.layers)  # the map grows by all paddings first, then shrinks
        x_BdnA = F.pad(x_BdnA, (reach,) * 4)
        valid_B1nA = F.pad(valid_BnA, (reach,) * 4)[:, None].to(x_BdnA.dtype)
        ones = valid_B1nA.new_ones(1, 1, c.kernel, c.kernel)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, MapConv)
            count_B1nA = F.conv2d(valid_B1nA, ones).round()
            y_BdnA = F.relu(
                F.conv2d(self.drop(x_BdnA) if index else x_BdnA, layer.conv.weight, layer.conv.bias)
            )
            valid_B1nA = (count_B1nA > 0).to(y_BdnA.dtype)
            x_BdnA = y_BdnA * valid_B1nA / count_B1nA.clamp(min=1)
        return x_BdnA


@dataclass(frozen=True)
class Stages:
    """All that the network computes on the way; lists have an entry a scale."""

    clips_BdN: Tensor
    count_B: Tensor  # real clips after pooling
    unit_B: Tensor  # clips of the batch that one of those covers
    words_BLh: Tensor
    sentence_Bd: Tensor
    maps: list[Tensor]
    valid: list[Tensor]
    fused: list[Tensor]
    compared: list[Tensor]  # after the map convolutions
    logits: list[Tensor]

    @property
    def probabilities(self) -> list[Tensor]:
        """(B, n, A) a scale; 0 where not valid."""
        return [logit.float().sigmoid() * valid for logit, valid in zip(self.logits, self.valid, strict=True)]


class MS2DTAN(nn.Module):
    """The network and its losses."""

    def __init__(self, config: MS2DTANConfig) -> None:
        super().__init__()
        self.config = c = config
        d = c.hidden
        self.input_drop = Dropout(c.input_dropout)
        self.clips = ClipEncoder(c.video_dim, d, c.pool, whole=c.faithful)
        self.windows = WindowChain(d, c.columns, c.scales, c.windows, read_padding=c.faithful)
        self.sentence = SentenceEncoder(
            c.text_dim, c.text_hidden, c.text_layers, d, c.text_pooling, pack=not c.faithful
        )
        self.fusion = MapFusion(d)
        maps = 1 if c.geometry == "plane" else c.scales
        self.convs = nn.ModuleList(MapConvs(c) for _ in range(maps))
        self.heads = nn.ModuleList(nn.Conv1d(d, 1, 1) for _ in range(maps))

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Prediction:
        """Each stored moment once, in clips; nothing here is random, `generator` is unused.

        Where scales store the same moment the highest probability stands. A clip's saliency is the mean
        probability of the moments that cover it.
        """
        stages = self.stages(batch)
        rows = stages.clips_BdN.shape[2]
        if self.config.geometry == "plane":
            spans_Q2, place_Q = self._plane_moments(rows)
            merged_BNN = stages.probabilities[0]
        else:
            spans_Q2, place_Q = distinct_moments(rows, self.config.columns, self.config.scales)
            merged_BNN = merge_maps(stages.probabilities, 0.0)
        spans_Q2, place_Q = spans_Q2.to(merged_BNN.device), place_Q.to(merged_BNN.device)
        score_BQ = merged_BNN.flatten(1)[:, place_Q]
        valid_BQ = spans_Q2[:, 1] <= stages.count_B[:, None]
        saliency_BN = clip_scores(score_BQ, valid_BQ, spans_Q2, rows)
        clip_T = torch.arange(batch.video_mask_BT.shape[1], device=score_BQ.device)
        row_BT = (clip_T / stages.unit_B[:, None]).long().clamp(max=rows - 1)
        return Prediction(
            spans_BQ2=spans_Q2 * stages.unit_B[:, None, None],
            score_BQ=score_BQ,
            valid_BQ=valid_BQ,
            saliency_BT=saliency_BN.gather(1, row_BT),
            span_unit="clip",
        )

    def stages(self, batch: Batch) -> Stages:
        """The whole network; see the picture at the top of the file."""
        c = self.config
        video_BTD, mask_BT = batch.video_BTD, batch.video_mask_BT
        unit_B = mask_BT.new_full((len(mask_BT),), c.pool, dtype=torch.float32)
        if c.resample != "none":
            unit_B = mask_BT.sum(1) / c.samples * c.pool
            video_BTD = resample(video_BTD, mask_BT.sum(1), c.samples, c.resample)
            mask_BT = mask_BT.new_ones(video_BTD.shape[:2])
        clips_BdN, count_B = self.clips(self.input_drop(video_BTD), mask_BT, self.windows.needed_clips)
        windows, rows = self.windows(clips_BdN, count_B), clips_BdN.shape[2]
        words_BLh, sentence_Bd = self.sentence(self.input_drop(batch.text_BLE), batch.text_mask_BL)
        if c.geometry == "plane":
            maps, valid = [plane_map(windows, rows)], [self._plane_valid(rows, count_B)]
        else:
            maps = scale_maps(windows, rows)
            valid = [valid_cells(count_B, rows // 2**k, c.columns, 2**k) for k in range(c.scales)]
        fused = [self.fusion(x, sentence_Bd, real) for x, real in zip(maps, valid, strict=True)]
        compared = [convs(x, real) for convs, x, real in zip(self.convs, fused, valid, strict=True)]
        logits = [
            head(x.flatten(2)).unflatten(2, x.shape[2:])[:, 0]
            for head, x in zip(self.heads, compared, strict=True)
        ]
        return Stages(
            clips_BdN, count_B, unit_B, words_BLh, sentence_Bd, maps, valid, fused, compared, logits
        )

    def _plane_moments(self, rows: int) -> tuple[Tensor, Tensor]:
        """(Q, 2) moments of 2D-TAN's map in clips, (Q,) their places; by first clip, then by length."""
        counts = [
            [(rows - length) // 2**scale + 1 for length in lengths]
            for scale, lengths in enumerate(self._lengths())
        ]
        place_Q = plane_places(counts, rows).sort().values
        return torch.stack([place_Q // rows, place_Q % rows + 1], 1), place_Q

    def _lengths(self) -> list[list[int]]:
        """Window lengths of the chain a scale."""
        half, columns = self.config.columns // 2, self.config.columns
        return [[(a + 1) * 2**k for a in range(half if k else 0, columns)] for k in range(self.config.scales)]

    def _plane_valid(self, rows: int, count_B: Tensor) -> Tensor:
        spans_Q2, place_Q = (x.to(count_B.device) for x in self._plane_moments(rows))
        valid_BQ = spans_Q2[:, 1] <= count_B[:, None]
        empty = valid_BQ.new_zeros(len(count_B), rows * rows)
        return empty.index_copy(1, place_Q, valid_BQ).unflatten(1, (rows, rows))

    def targets(self, stages: Stages, windows_clip: tuple[Tensor, ...]) -> list[Tensor]:
        """(B, n, A) IoU with the true moments a scale, not rescaled; `windows_clip` in clips of the batch."""
        pooled = [window.to(unit) / unit for window, unit in zip(windows_clip, stages.unit_B, strict=True)]
        if self.config.geometry == "plane":
            rows, device = stages.clips_BdN.shape[2], stages.clips_BdN.device
            first_NN = torch.arange(rows, device=device)[:, None].expand(rows, rows)
            return [iou_targets(pooled, torch.stack([first_NN, first_NN.T + 1], -1)) * stages.valid[0]]
        return [
            iou_targets(pooled, cell_spans(valid.shape[1], valid.shape[2], 2**k, valid.device))
            for k, valid in enumerate(stages.valid)
        ]

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """Binary cross entropy with the rescaled IoU, a term a scale, over the batch's valid cells."""
        assert batch.targets is not None
        stages = self.stages(batch)
        targets = self.targets(stages, batch.targets.windows_clip)
        terms = {
            f"scale_{k}": map_bce(logit, rescale(iou, self.config.low, self.config.high), valid)
            for k, (logit, iou, valid) in enumerate(zip(stages.logits, targets, stages.valid, strict=True))
        }
        return Losses(terms, dict.fromkeys(terms, 1.0))
