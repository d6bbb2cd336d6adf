"""Zero-shot: the similarity of a sentence and each frame, grouped into moments; nothing is trained.

    video (B,T,D) --+-- cosine (B,T) -- smooth -- calibrate per video --- saliency (B,T)
    text  (B,L,D) --+                                    |
                                                levels -- runs -- contrast -- spans (B,Q,2), score (B,Q)

    1. s_t = cos(v_t, q), q the mean of the text rows: one pooled vector of the space the frames lie in.
    2. s is smoothed by a triangle of `smooth` clips; at the borders over the clips there are.
    3. z_t = (s_t - median s) / (1.4826 MAD s): in units of the film's own spread, since the level and the
       range of such similarities differ from film to film and from sentence to sentence.
    4. At each of `levels` heights between the median and the peak, runs of clips above it are proposals; runs
       that at most `gap` clips divide are one. Low levels give whole events, high ones their cores.
    5. A proposal's contrast is that of a step function with n clips inside and m outside, which is largest
       where both borders are right: t = (mean z inside - mean z outside) sqrt(n m / (n + m)). Its score is
       t / (t + half_score).

Source   ours; levels and runs after temporal actionness grouping, Zhao et al. 2017 (SSN), section 4
Shapes   B videos   T clips   L rows of the sentence   D width of the shared space   Q proposals   N runs
"""

from dataclasses import dataclass
from math import inf
from typing import ClassVar, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from momentkit.core.errors import ConfigError
from momentkit.core.types import Batch, Prediction
from momentkit.nn.masks import masked_mean

_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_LEAST_SPREAD = 1e-3  # of cosines; a film whose frames are all alike has no peaks, whatever the rounding


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig:
    """Options of the zero-shot model; the widths are those of one space, so they must agree."""

    video_dim: int = 512  # width of the frame features, without time channels
    text_dim: int = 512  # width of the sentence vector
    smooth: int = 5  # clips under the triangle; 1 = none
    levels: int = 12  # heights at which runs are cut
    gap: int = 1  # clips that do not break a run
    proposals: int = 50  # kept, by score
    half_score: float = 8.0  # contrast that scores one half; noise alone reaches about 4

    def __post_init__(self) -> None:
        for name in ("video_dim", "text_dim", "smooth", "levels", "proposals"):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if not (self.gap >= 0 and self.half_score > 0):
            raise ConfigError(f"gap must be >= 0 and half_score > 0, got {self.gap} and {self.half_score}")
        if self.smooth % 2 == 0:
            raise ConfigError(f"smooth must be odd, got {self.smooth}")
        if self.video_dim != self.text_dim:
            raise ConfigError(
                f"zeroshot compares frames with sentences in one space, but video_dim is {self.video_dim} "
                f"and text_dim {self.text_dim}; take the pooled outputs of one dual encoder such as CLIP, "
                f"without time channels"
            )


class ZeroShot(nn.Module):
    """See the top of this file. It has no parameters.

    Attributes:
        trainable: False: there is nothing to train, and no losses.
        any_length: the calibration needs the whole film, and the cost is linear in its length.
    """

    trainable: ClassVar[bool] = False
    any_length: ClassVar[bool] = True

    def __init__(self, config: ZeroShotConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Prediction:
        """Proposals in clips; `generator` is not used."""
        mask_BT = batch.video_mask_BT
        z_BT = self._calibrated(self._smoothed(self._similarity(batch), mask_BT), mask_BT)
        rows = [
            self._proposals(z_T[mask_T].double().cpu().numpy())
            for z_T, mask_T in zip(z_BT, mask_BT, strict=True)
        ]
        spans_BQ2 = z_BT.new_zeros(len(rows), self.config.proposals, 2)
        score_BQ = z_BT.new_zeros(len(rows), self.config.proposals)
        valid_BQ = torch.zeros_like(score_BQ, dtype=torch.bool)
        for row, (runs_N2, score_N) in enumerate(rows):
            count = len(score_N)
            spans_BQ2[row, :count] = torch.as_tensor(runs_N2).to(spans_BQ2)
            score_BQ[row, :count] = torch.as_tensor(score_N).to(score_BQ)
            valid_BQ[row, :count] = True
        return Prediction(
            spans_BQ2=spans_BQ2, score_BQ=score_BQ, valid_BQ=valid_BQ, saliency_BT=z_BT, span_unit="clip"
        )

    def losses(
        self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf
    ) -> NoReturn:
        """There are none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("zeroshot has no losses: there is nothing to train")

    def _similarity(self, batch: Batch) -> Tensor:
        """Step 1, (B, T); divided afterwards, so that no second copy of a long film is made."""
        q_BD = F.normalize(masked_mean(batch.text_BLE, batch.text_mask_BL[..., None], 1), dim=1)
        dot_BT = torch.einsum("btd,bd->bt", batch.video_BTD, q_BD)
        return dot_BT / torch.linalg.vector_norm(batch.video_BTD, dim=2).clamp(min=1e-8)

    def _smoothed(self, s_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Step 2; padding weighs nothing."""
        reach = self.config.smooth // 2
        weights_K = (reach + 1 - torch.arange(-reach, reach + 1, device=s_BT.device).abs()).to(s_BT)
        both_BT = torch.stack([s_BT.masked_fill(~mask_BT, 0), mask_BT.to(s_BT)], 1)
        kernel = weights_K.expand(2, 1, -1)
        total_BT, weight_BT = F.conv1d(both_BT, kernel, padding=reach, groups=2).unbind(1)
        return total_BT / weight_BT.clamp(min=1e-8)

    def _calibrated(self, s_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Step 3; 0 on padding."""
        real_BT = s_BT.masked_fill(~mask_BT, torch.nan)
        away_BT = real_BT - real_BT.nanmedian(1, keepdim=True).values
        spread_B1 = away_BT.abs().nanmedian(1, keepdim=True).values * _MAD_TO_SIGMA
        return (away_BT / spread_B1.clamp(min=_LEAST_SPREAD)).masked_fill(~mask_BT, 0)

    def _proposals(self, z_T: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps 4 and 5: runs (N, 2) as first clip and end, and scores (N,), best first."""
        heights = z_T.max() * np.arange(1, self.config.levels + 1) / (self.config.levels + 1)
        runs = {run for height in heights for run in self._runs(z_T >= height)}
        runs_N2 = np.array(sorted(runs), dtype=np.int64)
        clips, sums = len(z_T), np.concatenate([[0.0], z_T.cumsum()])
        inside_N = runs_N2[:, 1] - runs_N2[:, 0]
        outside_N = clips - inside_N
        sum_N = sums[runs_N2[:, 1]] - sums[runs_N2[:, 0]]
        contrast_N = sum_N / inside_N - (sums[-1] - sum_N) / np.maximum(outside_N, 1)
        t_N = np.maximum(contrast_N, 0) * np.sqrt(inside_N * outside_N / clips)
        score_N = t_N / (t_N + self.config.half_score)
        best = np.argsort(-score_N, kind="stable")[: self.config.proposals]
        return runs_N2[best], score_N[best]

    def _runs(self, above_T: NDArray[np.bool_]) -> list[tuple[int, int]]:
        """Runs of True, those divided by at most `gap` clips made one."""
        borders = np.flatnonzero(np.diff(np.pad(above_T, 1).astype(np.int8)))
        joined: list[tuple[int, int]] = []
        for first, end in zip(borders[::2].tolist(), borders[1::2].tolist(), strict=True):
            if joined and first - joined[-1][1] <= self.config.gap:
                joined[-1] = joined[-1][0], end
            else:
                joined.append((first, end))
        return joined
