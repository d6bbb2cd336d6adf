"""Samples cut at random around their moments, so that where a moment lies says less about it.

Shapes   T clips   D video channels   G moments
"""

from dataclasses import replace

import numpy as np

from momentkit.data.collate import Sample
from momentkit.features.store import time_channels
from momentkit.train.source import SampleSource

SHORTEST_CLIPS = 6  # a crop keeps at least so many clips


class RandomCrop:
    """A source of which a share of the samples is cut: all moments stay, clips before and behind them may go.

    A pure function of (seed, epoch, index), like the source.

    Args:
        source: the samples.
        share: chance of a sample to be cut, in [0, 1].
        seed: of the cuts.
        tef: whether the last two channels are the time channels; they are made anew for what is left.
    """

    def __init__(self, source: SampleSource, share: float, seed: int, tef: bool) -> None:
        self._source, self._share, self._seed, self._tef = source, share, seed, tef

    def __len__(self) -> int:
        return len(self._source)

    def sample(self, index: int, epoch: int) -> Sample:
        """Sample `index` as it is in epoch `epoch`."""
        sample = self._source.sample(index, epoch)
        rng = np.random.default_rng([self._seed, epoch, index, 1])
        if not (rng.random() < self._share and sample.labelled and len(sample.windows_clip)):
            return sample
        clips = len(sample.video_TD)
        inside = np.flatnonzero(sample.saliency_T > 0)
        if not len(inside):
            return sample
        latest = min(max(int(sample.windows_clip[:, 0].min()), 0), int(inside[0]))
        first = int(rng.integers(latest + 1))
        needed = max(
            int(np.ceil(sample.windows_clip[:, 1].max())), int(inside[-1]) + 1, first + SHORTEST_CLIPS
        )
        end = int(rng.integers(min(needed, clips), clips + 1))
        return self._cut(sample, first, end, rng) if end - first < clips else sample

    def _cut(self, sample: Sample, first: int, end: int, rng: np.random.Generator) -> Sample:
        video_TD = sample.video_TD[first:end]
        if self._tef:
            video_TD = np.concatenate([video_TD[:, :-2], time_channels(len(video_TD))], 1)
        saliency_T = sample.saliency_T[first:end]
        positive = np.clip(sample.positive_clip_P - first, 0, len(video_TD) - 1)
        outside = np.flatnonzero(saliency_T == 0)
        negative = sample.negative_clip_P - first
        lost = (negative < 0) | (negative >= len(video_TD))
        if len(outside):
            negative = np.where(lost, rng.choice(outside, len(negative)), negative)
        else:
            negative = np.where(lost, positive, negative)
        return replace(
            sample,
            video_TD=video_TD,
            windows_clip=(sample.windows_clip - first).astype(np.float32),
            saliency_T=saliency_T,
            positive_clip_P=positive,
            negative_clip_P=negative,
            duration_s=len(video_TD) * sample.clip_length_s,
        )
