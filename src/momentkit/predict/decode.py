"""From a model's prediction to windows in seconds: sort, clamp, round, suppress.

Shapes   B videos   Q proposals   T clips   N windows kept
Source   flashvtg.md section 8, detr_family.md section 6
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from momentkit.core.errors import ConfigError
from momentkit.core.timeline import to_seconds
from momentkit.core.types import Prediction
from momentkit.predict.expected import expected_order
from momentkit.predict.suppress import clip_and_round, decay_nms, greedy_nms, temporal_nms


@dataclass(frozen=True, kw_only=True)
class PostProcess:
    """How windows are read off a prediction; the published settings a data set are in `configs/`."""

    top: int = 50  # proposals kept, by score
    clamp: bool = True  # to [0, duration]
    maximum_s: float = 0.0  # then to [0, maximum_s]; 0 = off. 150 in the QVHighlights family
    step_s: float = 0.0  # then to multiples of this; 0 = off
    # "greedy": map models; "expected": no suppression but our choice of windows, `predict/expected.py`
    nms: Literal["none", "normal", "linear", "temporal", "greedy", "expected"] = "none"
    nms_threshold: float = 0.7
    keep: int = 5  # windows that "greedy" and "expected" keep
    sharpness: float = 1.0  # "expected": a proposal's probability goes with score ** sharpness
    border_spread: float = 0.0  # "expected": deviation of a border, in lengths of its window
    # "expected": windows that are likely before anything is known of the query, as fractions of the duration
    # (the location prior of the training moments), and their share of the evidence.
    location: tuple[tuple[float, float], ...] = ()
    location_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("top", "keep", "sharpness"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"predict.{name} must be positive, got {getattr(self, name)}")
        if not (self.maximum_s >= 0 and self.step_s >= 0):
            raise ConfigError(
                f"predict.maximum_s and step_s must not be negative, got {self.maximum_s}, {self.step_s}"
            )
        if not 0 <= self.border_spread < 1:
            raise ConfigError(f"predict.border_spread must lie in [0, 1), got {self.border_spread}")
        if not 0 <= self.location_share < 1:
            raise ConfigError(f"predict.location_share must lie in [0, 1), got {self.location_share}")
        if not all(len(pair) == 2 and 0 <= pair[0] < pair[1] <= 1 for pair in self.location):
            raise ConfigError(
                "predict.location must list [start, end] as fractions of the duration with start below end, "
                f"got {list(self.location)}"
            )
        if (self.location_share > 0) != bool(self.location):
            raise ConfigError(
                "predict.location and predict.location_share go together; one of them is missing"
            )
        if not 0 < self.nms_threshold <= 1:
            raise ConfigError(f"predict.nms_threshold must lie in (0, 1], got {self.nms_threshold}")


@dataclass(frozen=True)
class Decoded:
    """One query's answer.

    Attributes:
        windows_N3: (N, 3) float32 start_s, end_s, score; highest score first; times and scores to 4 decimals.
        saliency_T: (T,) float32, one score a real clip.
    """

    windows_N3: NDArray[np.float32]
    saliency_T: NDArray[np.float32]


def decode(
    prediction: Prediction,
    clips_B: Sequence[int],
    clip_length_s: float | Sequence[float],
    durations_s_B: Sequence[float],
    post: PostProcess,
) -> list[Decoded]:
    """Windows and saliency of each sample of a batch.

    Args:
        prediction: of B samples.
        clips_B: real clips of each.
        clip_length_s: seconds, of all samples or of each.
        durations_s_B: seconds of each video.
        post: what to do.
    """
    lengths_s_B = [clip_length_s] * len(clips_B) if isinstance(clip_length_s, float | int) else clip_length_s
    prediction_rows = zip(
        prediction.spans_BQ2.float().cpu(),
        prediction.score_BQ.float().cpu(),
        prediction.valid_BQ.cpu(),
        prediction.saliency_BT.float().cpu(),
        clips_B,
        lengths_s_B,
        durations_s_B,
        strict=True,
    )
    result = []
    for spans_Q2, score_Q, valid_Q, saliency_T, clips, length_s, duration_s in prediction_rows:
        spans_s_Q2 = to_seconds(spans_Q2[valid_Q], prediction.span_unit, length_s, duration_s)
        windows_N3 = torch.cat([spans_s_Q2, score_Q[valid_Q][:, None]], 1)
        windows_N3 = windows_N3[windows_N3[:, 2].argsort(descending=True, stable=True)][: post.top]
        windows_N3 = post_process(windows_N3, duration_s, post)
        result.append(Decoded(windows_N3.numpy(), saliency_T[:clips].numpy()))
    return result


def post_process(windows_N3: torch.Tensor, duration_s: float, post: PostProcess) -> torch.Tensor:
    """Clamp, print to 4 decimals, round to the grid, suppress: the published order."""
    if post.clamp:
        windows_N3 = torch.cat([windows_N3[:, :2].clamp(0, duration_s), windows_N3[:, 2:]], 1)
    windows_N3 = _four_decimals(windows_N3)
    windows_N3 = clip_and_round(windows_N3, post.maximum_s or None, post.step_s or None)
    if post.nms == "expected":
        chosen_N3 = expected_order(
            windows_N3,
            duration_s,
            sharpness=post.sharpness,
            border_spread=post.border_spread,
            keep=post.keep,
            location_M2=duration_s * torch.tensor(post.location).reshape(-1, 2),
            location_share=post.location_share,
        )
        return _four_decimals(chosen_N3)
    if post.nms == "greedy":
        return greedy_nms(windows_N3, post.nms_threshold, post.keep)
    if post.nms == "temporal":
        return temporal_nms(windows_N3, post.nms_threshold)
    if post.nms != "none":
        return decay_nms(windows_N3, post.nms_threshold, post.nms)
    return windows_N3


def _four_decimals(windows_N3: torch.Tensor) -> torch.Tensor:
    """As the published programs print them."""
    return torch.from_numpy(np.round(windows_N3.double().numpy(), 4)).float()
