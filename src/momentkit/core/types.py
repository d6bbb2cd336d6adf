"""The vocabulary: what flows from annotations and features to batches, predictions and moments.

Shapes   B videos (one query each)   T clips   D video channels   L words   E text channels   A audio channels
         Q proposals   G true moments   P clip pairs of the margin loss
Units    _s seconds   _clip clip index   none = fraction or score.   Masks are bool, True = real.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from momentkit.core.contract import FeatureContract
from momentkit.core.errors import FeatureError
from momentkit.core.timeline import SpanUnit

QueryId = int | str


class Moment(BaseModel):
    """A stretch of the video that answers the query.

    Attributes:
        start_s: seconds from the first shown frame.
        end_s: seconds, not before `start_s`.
        score: confidence in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    start_s: float = Field(ge=0)
    end_s: float = Field(ge=0)
    score: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.end_s >= self.start_s:
            raise ValueError(f"a moment ends at {self.end_s} before it starts at {self.start_s}")
        return self


@dataclass(frozen=True, kw_only=True)
class Query:
    """One row of an annotation file: a sentence about a video, with the truth where it is known.

    Attributes:
        qid: as the file gives it; an int 3 is not the string "3". Rows are keyed by position, not by qid.
        text: the sentence.
        vid: key of the video's feature files.
        duration_s: seconds.
        windows_s: true moments in seconds, (start, end); None where the file has no labels.
        relevant_clips: clip indices inside the moments (QVHighlights); None elsewhere.
        saliency_scores: per relevant clip, one 0..4 score of each of three raters; None elsewhere.
        clip_labels: per clip, one score of each rater (TVSum 20, YouTube 1); None elsewhere.
        annotators: first and last chunk of five seconds that each annotator chose (DiDeMo); None elsewhere.
        domain: TVSum, YouTube only.
        line: 1-based line in the file.
    """

    qid: QueryId
    text: str
    vid: str
    duration_s: float
    windows_s: tuple[tuple[float, float], ...] | None = None
    relevant_clips: tuple[int, ...] | None = None
    saliency_scores: tuple[tuple[float, ...], ...] | None = None
    clip_labels: tuple[tuple[float, ...], ...] | None = None
    annotators: tuple[tuple[int, int], ...] | None = None
    domain: str = ""
    line: int = 0


@dataclass(frozen=True, kw_only=True)
class VideoFeatures:
    """A video's features, ready for a model: streams normalised, cut to the shortest, concatenated; no tef.

    Attributes:
        features_TD: (T, D) float32.
        contract: what they are; None where the source does not say.
        duration_s: seconds.
        clip_length_s: seconds.
        cut_clips: rows dropped from each stream to reach the shortest.
    """

    features_TD: NDArray[np.float32]
    clip_length_s: float
    duration_s: float
    contract: FeatureContract | None = None
    cut_clips: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """A sentence's word features, ready for a model.

    Attributes:
        words_LE: (L, E) float32, start and end tokens included where the encoder has them.
        unknown_words: words the encoder has no entry for; said to the user, never silently zero.
    """

    words_LE: NDArray[np.float32]
    unknown_words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The truth of a batch.

    Attributes:
        windows_clip: B tensors (G, 2) start, end in clips (seconds / clip length), not rounded; G may be 0.
        saliency_BT: graded relevance of each clip, 0..12 or 0/1; 0 on padding.
        positive_clip_BP, negative_clip_BP: clip indices of the margin loss.
        negative_text_BLE, negative_text_mask_BL: words of a sentence about another video (BM-DETR), or None.
    """

    windows_clip: tuple[Tensor, ...]
    saliency_BT: Tensor
    positive_clip_BP: Tensor
    negative_clip_BP: Tensor
    negative_text_BLE: Tensor | None = None
    negative_text_mask_BL: Tensor | None = None

    def to(self, device: torch.device | str) -> "Targets":
        """The same truth on a device."""
        words_BLE, words_mask_BL = self.negative_text_BLE, self.negative_text_mask_BL
        return Targets(
            windows_clip=tuple(window.to(device) for window in self.windows_clip),
            saliency_BT=self.saliency_BT.to(device),
            positive_clip_BP=self.positive_clip_BP.to(device),
            negative_clip_BP=self.negative_clip_BP.to(device),
            negative_text_BLE=None if words_BLE is None else words_BLE.to(device),
            negative_text_mask_BL=None if words_mask_BL is None else words_mask_BL.to(device),
        )


def noise_key(*identity: int | str) -> int:
    """What tells a query from others, as one number below 2^64; the same on every machine.

    Args:
        *identity: such as qid, vid and text. The text 3 is not the number 3.
    """
    return int.from_bytes(hashlib.blake2b(json.dumps(identity).encode(), digest_size=8).digest())


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a model sees. Padding may hold any finite number: no answer depends on it.

    Attributes:
        video_BTD: clip features, time channels last.
        video_mask_BT: True = real clip; each row's real clips come first.
        text_BLE: word features.
        text_mask_BL: True = real word; each row's real words come first.
        audio_BTA: audio features, or None.
        video_keys: B names; equal names mean the same video. Models with negative pairs use them to tell a
            true negative from another query of the same video. Empty: all differ.
        noise_keys: B whole numbers, from `noise_key`; models that start from noise draw each sample's by the
            seed and its key. Empty: the samples share their noise.
        targets: the truth; None at inference.

    Raises:
        FeatureError: shapes that do not fit, a mask that is not bool, a sample without a clip or a word,
            a number that is not finite, noise keys of other samples. Checked where batches are made, on the
            CPU.
    """

    video_BTD: Tensor
    video_mask_BT: Tensor
    text_BLE: Tensor
    text_mask_BL: Tensor
    audio_BTA: Tensor | None = None
    video_keys: tuple[str, ...] = ()
    noise_keys: tuple[int, ...] = ()
    targets: Targets | None = None

    def __post_init__(self) -> None:
        if self.video_BTD.device.type != "cpu":
            return  # the same batch was checked before it was moved
        if self.noise_keys and len(self.noise_keys) != len(self.video_BTD):
            raise FeatureError(
                f"noise_keys are one a sample or none, got {len(self.noise_keys)} for {len(self.video_BTD)}"
            )
        pairs = [("video", self.video_BTD, self.video_mask_BT), ("text", self.text_BLE, self.text_mask_BL)]
        if self.audio_BTA is not None:
            pairs.append(("audio", self.audio_BTA, self.video_mask_BT))
        for name, features, mask in pairs:
            if features.ndim != 3 or mask.dtype != torch.bool or features.shape[:2] != mask.shape:
                raise FeatureError(
                    f"{name}: features (B, N, channels) and a bool mask (B, N) are wanted, got "
                    f"{tuple(features.shape)} and {mask.dtype} {tuple(mask.shape)}"
                )
            if not mask.any(1).all():
                empty = (~mask.any(1)).nonzero()[0].item()
                raise FeatureError(
                    f"{name}: sample {empty} of the batch is all padding; drop it or give it content"
                )
            # By the extremes, which NaN passes through: a mask of hours of features would be large.
            if not torch.isfinite(torch.stack(features.aminmax())).all():
                bad = (~torch.isfinite(features)).any(2).any(1).nonzero()[0].item()
                raise FeatureError(f"{name}: sample {bad} of the batch holds a number that is not finite")

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        return replace(
            self,
            video_BTD=self.video_BTD.to(device),
            video_mask_BT=self.video_mask_BT.to(device),
            text_BLE=self.text_BLE.to(device),
            text_mask_BL=self.text_mask_BL.to(device),
            audio_BTA=None if self.audio_BTA is None else self.audio_BTA.to(device),
            targets=None if self.targets is None else self.targets.to(device),
        )


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model answers.

    Attributes:
        spans_BQ2: start, end of each proposal, in `span_unit`; not clamped to the video.
        score_BQ: confidence in [0, 1]; 0 where not valid.
        valid_BQ: False where a proposal lies in padding.
        saliency_BT: score of each clip; higher is more salient, unbounded; padding holds anything.
        span_unit: "clip" or "fraction" (of the duration).
        trace: spans of every refinement step, for models that have steps; else empty.
        start_BQ2: spans that the first of these steps was given: pure noise; None without a trace.
    """

    spans_BQ2: Tensor
    score_BQ: Tensor
    valid_BQ: Tensor
    saliency_BT: Tensor
    span_unit: SpanUnit
    trace: tuple[Tensor, ...] = ()
    start_BQ2: Tensor | None = None


@dataclass(frozen=True)
class Losses:
    """The terms of a training loss, unweighted, and their weights.

    Attributes:
        terms: name -> scalar tensor.
        weights: name -> factor; the same names.
    """

    terms: Mapping[str, Tensor]
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """Weighted sum, a scalar with a graph."""
        return torch.stack([self.weights[name] * term for name, term in self.terms.items()]).sum()


class GroundingModel(Protocol):
    """What the trainer and the grounder ask of a model (an `nn.Module`).

    A submodule named `distill` serves training alone: averages and saved weights leave it out.
    """

    config: Any

    def __call__(self, batch: Batch, *, generator: torch.Generator | None = None) -> Prediction: ...

    def losses(self, batch: Batch, *, generator: torch.Generator | None = None, epoch: float = inf) -> Losses:
        """Training terms of a batch with targets.

        Args:
            batch: with `targets`.
            generator: of all that is random and is no dropout.
            epoch: epochs trained so far, the current one counted by its share; for losses with a schedule.
        """
        ...


@runtime_checkable
class SamplingModel(Protocol):
    """A model that denoises, some of whose options may be changed after training."""

    config: Any

    @property
    def sampling(self) -> Mapping[str, str]:
        """What people call such an option ("steps", "proposals") -> its field of `config`."""
        ...
