"""Samples -> a batch. The only place that pads.

Shapes   B samples   T clips   D video channels   A audio channels   L words   E text channels
         G true moments   P clip pairs
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from momentkit.core.errors import DataError
from momentkit.core.types import Batch, Query, Targets, noise_key


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row of a data set, ready for a model. Arrays may be read-only views of a cache.

    Attributes:
        query: the row.
        video_TD: (T, D) float32, time channels included.
        text_LE: (L, E) float32.
        audio_TA: (T, A) float32, time channels included; None where audio is no input of its own.
        windows_clip: (G, 2) float32 start, end in clips, not rounded; G is 0 where nothing matches.
        saliency_T: (T,) float32.
        positive_clip_P, negative_clip_P: (P,) int64.
        negative_text_LE: (L, E) float32 words about another video, or None.
        labelled: False where the file has no truth; the four arrays above then mean nothing.
        video_key: equal keys mean the same video.
        clip_length_s: seconds a clip covers.
        duration_s: seconds.
    """

    query: Query
    video_TD: NDArray[np.float32]
    text_LE: NDArray[np.float32]
    windows_clip: NDArray[np.float32]
    saliency_T: NDArray[np.float32]
    positive_clip_P: NDArray[np.int64]
    negative_clip_P: NDArray[np.int64]
    audio_TA: NDArray[np.float32] | None = None
    negative_text_LE: NDArray[np.float32] | None = None
    labelled: bool = True
    video_key: str
    clip_length_s: float
    duration_s: float


def collate(samples: Sequence[Sample], *, with_targets: bool = True) -> Batch:
    """Pad samples with zeros to the longest and stack them.

    Args:
        samples: at least one.
        with_targets: whether the truth comes along.

    Raises:
        DataError: targets are wanted of a row that has none.
    """
    if not samples:
        raise ValueError("a batch holds at least one sample")
    video_BTD, video_mask_BT = _pad([sample.video_TD for sample in samples])
    text_BLE, text_mask_BL = _pad([sample.text_LE for sample in samples])
    heard = [sample.audio_TA for sample in samples if sample.audio_TA is not None]
    return Batch(
        video_BTD=video_BTD,
        video_mask_BT=video_mask_BT,
        text_BLE=text_BLE,
        text_mask_BL=text_mask_BL,
        audio_BTA=_pad(heard)[0] if len(heard) == len(samples) else None,
        video_keys=tuple(sample.video_key for sample in samples),
        noise_keys=tuple(noise_key(s.query.qid, s.query.vid, s.query.text) for s in samples),
        targets=_targets(samples) if with_targets else None,
    )


def _pad(rows: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    lengths_B = np.array([len(row) for row in rows])
    padded = np.zeros((len(rows), lengths_B.max(), rows[0].shape[1]), np.float32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    mask = np.arange(lengths_B.max()) < lengths_B[:, None]
    return torch.from_numpy(padded), torch.from_numpy(mask)


def _targets(samples: Sequence[Sample]) -> Targets:
    for sample in samples:
        if not sample.labelled:
            raise DataError(
                f"row {sample.query.line} (qid {sample.query.qid!r}) has no labels; "
                "a file without labels can be predicted on, not trained or measured on"
            )
    saliency_BT1, _ = _pad([sample.saliency_T[:, None] for sample in samples])
    words = [sample.negative_text_LE for sample in samples if sample.negative_text_LE is not None]
    negative_BLE, negative_mask_BL = _pad(words) if len(words) == len(samples) else (None, None)
    return Targets(
        windows_clip=tuple(torch.tensor(sample.windows_clip).reshape(-1, 2) for sample in samples),
        saliency_BT=saliency_BT1[..., 0],
        positive_clip_BP=torch.from_numpy(np.stack([sample.positive_clip_P for sample in samples])),
        negative_clip_BP=torch.from_numpy(np.stack([sample.negative_clip_P for sample in samples])),
        negative_text_BLE=negative_BLE,
        negative_text_mask_BL=negative_mask_BL,
    )
