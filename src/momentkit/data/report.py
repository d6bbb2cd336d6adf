"""What was cut, left out or is unusual in a data set, in numbers and in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from momentkit.core.errors import DataError
from momentkit.core.types import Query
from momentkit.data.feature_files import FeatureFiles
from momentkit.data.options import DataConfig


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """Counts over one data set.

    Attributes:
        videos, queries: how many.
        uneven_videos: videos whose streams differed in length.
        cut_clips: rows each stream lost to the shortest, over all videos.
        long_videos: videos cut to `max_clips`.
        long_texts: sentences cut to `max_words`.
        dropped_clip_ids: relevant clip ids beyond the features.
        label_cuts: videos whose labels and features differ in length (TVSum).
        unknown_words: words without a vector -> how often they are used; only where words are looked up.
        unlabelled: rows without windows and without clip labels.
        notes: the above as sentences, and what was mended in the annotations; empty where there is nothing.
    """

    videos: int
    queries: int
    uneven_videos: int
    cut_clips: tuple[int, ...]
    long_videos: int
    long_texts: int
    dropped_clip_ids: int
    label_cuts: int
    unknown_words: Mapping[str, int]
    unlabelled: int
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, config: DataConfig, queries: Sequence[Query], features: FeatureFiles, mended: Sequence[str]
    ) -> Self:
        """Count.

        Raises:
            DataError: most videos are far longer or shorter than their clips say.
        """
        _check_clip_length(config, queries, features)
        lost = np.array([entry.lost for entry in features.videos.values()])
        uneven, cut_clips = int((lost[:, 1:].max(1) > 0).sum()), tuple(lost[:, 1:].sum(0).tolist())
        long_videos = int((lost[:, 0] > 0).sum())
        long_texts = sum(entry.lost[0] > 0 for entry in features.texts.values())
        dropped = sum(
            clip >= len(features.video(query)) for query in queries for clip in query.relevant_clips or ()
        )
        label_cuts = sum(
            query.clip_labels is not None and len(query.clip_labels) != len(features.video(query))
            for query in queries
        )
        unlabelled = sum(query.windows_s is None and query.clip_labels is None for query in queries)
        said = {
            f"{uneven} of {len(lost)} videos have streams of different length; cut to the shortest, "
            f"rows lost by stream: {', '.join(map(str, cut_clips))}": uneven,
            f"{long_videos} of {len(lost)} videos cut to max_clips = {config.max_clips}": long_videos,
            f"{long_texts} of {len(features.texts)} texts cut to max_words = {config.max_words}": long_texts,
            f"{dropped} relevant clip ids lie beyond the features and are left out": dropped,
            f"{label_cuts} videos have labels of another length; cut to the shorter": label_cuts,
            _said_of_words(features, config): features.unknown_words.total(),
            f"{unlabelled} of {len(queries)} rows have no labels": unlabelled,
        }
        return cls(
            videos=len(lost),
            queries=len(queries),
            uneven_videos=uneven,
            cut_clips=cut_clips,
            long_videos=long_videos,
            long_texts=long_texts,
            dropped_clip_ids=dropped,
            label_cuts=label_cuts,
            unknown_words=dict(features.unknown_words),
            unlabelled=unlabelled,
            notes=(*mended, *(sentence for sentence, count in said.items() if count)),
        )


def _said_of_words(features: FeatureFiles, config: DataConfig) -> str:
    often = ", ".join(f"{word!r} {count}" for word, count in features.unknown_words.most_common(5))
    return (
        f"{features.unknown_words.total()} of {features.words} words have no vector in {config.text.folder} "
        f"and are zeros: {len(features.unknown_words)} different ones, most often {often}"
    )


def _check_clip_length(config: DataConfig, queries: Sequence[Query], features: FeatureFiles) -> None:
    """A wrong clip length runs without any error and moves every window."""
    if config.clips or config.layout in ("tvsum", "youtube"):  # no clip length; no windows
        return
    ratios = [
        len(entry.rows_ND) * config.clip_length_s / query.duration_s
        for query in queries
        if not (entry := features.videos[query.vid]).lost[0]
    ]
    if ratios and not 0.67 < (middle := float(np.median(ratios))) < 1.5:
        raise DataError(
            f"the clips of a typical video cover {middle:.2f} of its duration at clip_length_s = "
            f"{config.clip_length_s}; at {config.clip_length_s / middle:.3g} they would cover all"
        )
