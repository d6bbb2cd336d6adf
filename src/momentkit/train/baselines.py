"""What a figure must be held against: where moments usually lie, and a model that cannot read or see.

The location prior answers every query with the same windows, as fractions of the duration. The two probes
give the same model another query's text (of another video), or another video's frames: a model that loses
little there has learnt little from what it was not given.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import DataError
from momentkit.core.types import Query
from momentkit.data.collate import Sample
from momentkit.train.source import SampleSource

GRID = 40  # borders of the prior lie on multiples of 1/40 of the duration
PRIOR_WINDOWS = 10  # as many as mAP reads
R1_THRESHOLDS = (0.5, 0.7)
MAP_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


def fit_location_prior(queries: Sequence[Query]) -> NDArray[np.float64]:
    """The constant windows that do best on these queries: the first by R1@0.5 and R1@0.7, each next by mAP.

    Greedy: each time the window is added that hits most moments which no window before it hit, summed over
    the ten thresholds of mAP.

    Args:
        queries: with `windows_s`; queries without a window count for nothing.

    Returns:
        (10, 2) start and end as fractions of the duration, best first.

    Raises:
        DataError: no query has a window.
    """
    truths_G2 = np.array(
        [(s / q.duration_s, e / q.duration_s) for q in queries for s, e in q.windows_s or ()]
    )
    if not len(truths_G2):
        raise DataError("the location prior cannot be fitted: no training query has a window")
    weights_G = np.array([1 / len(q.windows_s) for q in queries for _ in q.windows_s or () if q.windows_s])
    start_C, end_C = (index / GRID for index in np.triu_indices(GRID + 1, 1))
    iou_CG = _iou(np.stack([start_C, end_C], 1), truths_G2)
    first = max_index(sum(((iou_CG >= threshold) @ weights_G) for threshold in R1_THRESHOLDS))
    chosen, reached_G = [first], iou_CG[first]
    while len(chosen) < PRIOR_WINDOWS:
        best_CG = np.maximum(iou_CG, reached_G)
        following = max_index(sum(((best_CG >= threshold) @ weights_G) for threshold in MAP_THRESHOLDS))
        chosen.append(following)
        reached_G = best_CG[following]
    return np.stack([start_C[chosen], end_C[chosen]], 1)


def max_index(values: Any) -> int:
    """Index of the largest value; of nearly equal ones the first, so that rounding decides nothing."""
    return int(np.flatnonzero(values >= values.max() - 1e-9)[0])


def _iou(a_N2: NDArray[np.float64], b_M2: NDArray[np.float64]) -> NDArray[np.float64]:
    (a_start, a_end), (b_start, b_end) = a_N2.T[:, :, None], b_M2.T[:, None, :]
    inner = np.clip(np.minimum(a_end, b_end) - np.maximum(a_start, b_start), 0, None)
    union = (a_end - a_start) + (b_end - b_start) - inner
    # A hair above, so that 0.35 / 0.7 counts as one half.
    return np.where(union > 0, inner / np.where(union > 0, union, 1), 0) + 1e-12


def prior_rows(queries: Sequence[Query], prior_N2: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The prior's submission for these queries: its windows in seconds, in order, scores falling."""
    count = len(prior_N2)
    return [
        {
            "qid": query.qid,
            "vid": query.vid,
            "query": query.text,
            "pred_relevant_windows": [
                [round(start * query.duration_s, 4), round(end * query.duration_s, 4), (count - rank) / count]
                for rank, (start, end) in enumerate(prior_N2.tolist())
            ],
        }
        for query in queries
    ]


def other_video(queries: Sequence[Query], seed: int) -> NDArray[np.int64]:
    """For each query the position of a random query of another video; a pure function of the seed.

    Raises:
        DataError: there is only one video.
    """
    names = np.array([query.vid for query in queries])
    if len(set(names.tolist())) < 2:
        raise DataError("the probes need queries of two videos at least")
    generator = np.random.default_rng(seed)
    partner = generator.integers(len(names), size=len(names))
    while (same := names[partner] == names).any():
        partner[same] = generator.integers(len(names), size=int(same.sum()))
    return partner


def other_sentence(queries: Sequence[Query], videos: Sequence[str], seed: int) -> NDArray[np.int64]:
    """For each query the position of a random query of another video, of its domain, in other words.

    A sentence that is also said about the query's own video, word for word, is not taken: it is true there.

    Args:
        queries: all of them.
        videos: the video of each; equal names are the same video.
        seed: decides which.

    Raises:
        DataError: a video for which there is no such sentence.
    """
    said = [" ".join(query.text.lower().split()) for query in queries]
    own: dict[str, set[str]] = {}
    for video, text in zip(videos, said, strict=True):
        own.setdefault(video, set()).add(text)
    domains: dict[str, list[int]] = {}
    for index, query in enumerate(queries):
        domains.setdefault(query.domain, []).append(index)
    generator, chosen = np.random.default_rng(seed), []
    for query, video in zip(queries, videos, strict=True):
        same = domains[query.domain]
        tried = generator.choice(same, 32)  # enough nearly always; all are looked through only where not
        chosen.append(next((int(i) for i in (*tried, *same) if said[i] not in own[video]), -1))
        if chosen[-1] < 0:
            raise DataError(f"no query of another video asks anything that is not also asked about {video}")
    return np.array(chosen, np.int64)


class OtherText:
    """The same samples, each with the words of a query of another video.

    Args:
        source: the samples.
        queries: of the source.
        seed: which other query.
        videos: of each query; equal names are the same video; by default their `vid`.
    """

    def __init__(
        self,
        source: SampleSource,
        queries: Sequence[Query],
        seed: int = 0,
        videos: Sequence[str] | None = None,
    ) -> None:
        self._source, self.queries = source, list(queries)
        names = [query.vid for query in queries] if videos is None else videos
        self._partner = other_sentence(queries, names, seed)

    def __len__(self) -> int:
        return len(self._source)

    def sample(self, index: int, epoch: int) -> Sample:
        """Sample `index` with foreign words."""
        words = self._source.sample(int(self._partner[index]), epoch).text_LE
        return replace(self._source.sample(index, epoch), text_LE=words)


class OtherVideo:
    """The same samples, each with the frames of another video, stretched to the length of its own.

    Stretched means: clip i of T reads the foreign clip at the same fraction of the video. The time channels
    stay its own.

    Args:
        source: the samples.
        queries: of the source.
        time_channels: how many channels at the end tell the time; 2 where tef is on, else 0.
        seed: which other video.
    """

    def __init__(
        self, source: SampleSource, queries: Sequence[Query], time_channels: int, seed: int = 0
    ) -> None:
        self._source, self.queries, self._partner = source, list(queries), other_video(queries, seed)
        self._time_channels = time_channels

    def __len__(self) -> int:
        return len(self._source)

    def sample(self, index: int, epoch: int) -> Sample:
        """Sample `index` with foreign frames."""
        sample = self._source.sample(index, epoch)
        foreign = self._source.sample(int(self._partner[index]), epoch)
        foreign_TD = foreign.video_TD
        clips, foreign_clips = sample.video_TD.shape[0], foreign_TD.shape[0]
        nearest_T = ((np.arange(clips) + 0.5) * foreign_clips / clips).astype(np.int64)
        video_TD = foreign_TD[nearest_T]
        if self._time_channels:
            video_TD[:, -self._time_channels :] = sample.video_TD[:, -self._time_channels :]
        heard_TA = None if foreign.audio_TA is None else foreign.audio_TA[nearest_T]
        return replace(sample, video_TD=video_TD, audio_TA=heard_TA)
