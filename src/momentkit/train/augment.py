"""Samples changed at random while training: cut around their moments, faster or slower, short of words.

Shapes   T clips   D video channels   L words   G moments
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


class Stretch:
    """A source of which a share of the samples plays faster or slower: clips are repeated or left out.

    Args:
        source: the samples.
        share: chance of a sample to be stretched, in [0, 1].
        seed: of the rates, drawn between 1 / `most` and `most` on a logarithmic scale.
        tef: whether the last two channels are the time channels; they are made anew.
        most: largest rate.
    """

    def __init__(self, source: SampleSource, share: float, seed: int, tef: bool, most: float = 1.5) -> None:
        self._source, self._share, self._seed, self._tef, self._most = source, share, seed, tef, most

    def __len__(self) -> int:
        return len(self._source)

    def sample(self, index: int, epoch: int) -> Sample:
        """Sample `index` as it is in epoch `epoch`."""
        sample = self._source.sample(index, epoch)
        rng = np.random.default_rng([self._seed, epoch, index, 3])
        if not (rng.random() < self._share and sample.labelled):
            return sample
        old = len(sample.video_TD)
        new = max(SHORTEST_CLIPS, round(old * self._most ** rng.uniform(-1, 1)))
        clip_T = (np.arange(new) * old // new).astype(np.int64)
        video_TD = sample.video_TD[clip_T]
        if self._tef:
            video_TD = np.concatenate([video_TD[:, :-2], time_channels(new)], 1)

        inside_T = sample.saliency_T > 0

        def moved(clip_P: np.ndarray) -> np.ndarray:
            """The nearest clip left of the same kind, inside or outside the moments."""
            gap_PT = np.abs(clip_T - clip_P[:, None]) + old * (inside_T[clip_T] != inside_T[clip_P][:, None])
            return gap_PT.argmin(1)

        return replace(
            sample,
            video_TD=video_TD,
            windows_clip=(sample.windows_clip * (new / old)).astype(np.float32),
            saliency_T=sample.saliency_T[clip_T],
            positive_clip_P=moved(sample.positive_clip_P),
            negative_clip_P=moved(sample.negative_clip_P),
            duration_s=sample.duration_s * new / old,
        )


class WordDrop:
    """A source whose sentences lose each word with some chance; one word always stays.

    Args:
        source: the samples.
        rate: chance of a word to go, in [0, 1).
        seed: of the draws.
    """

    def __init__(self, source: SampleSource, rate: float, seed: int) -> None:
        self._source, self._rate, self._seed = source, rate, seed

    def __len__(self) -> int:
        return len(self._source)

    def sample(self, index: int, epoch: int) -> Sample:
        """Sample `index` as it is in epoch `epoch`."""
        sample = self._source.sample(index, epoch)
        rng = np.random.default_rng([self._seed, epoch, index, 2])
        words = len(sample.text_LE)
        stays_L = rng.random(words) >= self._rate
        stays_L[rng.integers(words)] = True
        return replace(sample, text_LE=sample.text_LE[stays_L])
