"""Annotations + feature files -> samples; sample i is a pure function of (index, seed, epoch).

Everything is read, checked, normalised and joined once, when the data set is made; a sample is a view of that
with labels drawn for the epoch. What was cut or left out is counted in `report`.

Shapes   T clips   D video channels   L words   E text channels   G true moments   N rows
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from momentkit.core.contract import FeatureContract
from momentkit.core.errors import DataError, FeatureError
from momentkit.core.timeline import seconds_to_clips
from momentkit.core.types import Query
from momentkit.data.collate import Sample
from momentkit.data.feature_files import FeatureFiles
from momentkit.data.forms import load_rows
from momentkit.data.labels import Labels, binary_labels, no_labels, rated_labels, rater_labels, window_labels
from momentkit.data.leakage import source_of
from momentkit.data.options import DataConfig
from momentkit.data.report import DatasetReport
from momentkit.data.tvsum import with_true_durations

_log = logging.getLogger(__name__)


class GroundingDataset:
    """The rows of one annotation file with their features.

    Args:
        config: where things lie and how they are read.
        split: "train", "val" (files of the configuration), or the path of another annotation file.
        seed: with the epoch decides the random clips of the margin loss; not negative.

    Attributes:
        queries: the rows, in file order.
        report: what was cut, left out or is unusual.

    Raises:
        DataError: the annotations, or their fit with the features.
        FeatureError: a feature file is missing, damaged or of other width than declared; names the file.
        FeatureMismatchError: the contract beside the files differs from the declared one.
    """

    def __init__(self, config: DataConfig, split: str = "train", seed: int = 0) -> None:
        self.config, self.split, self.seed = config, split, seed
        files = {"train": config.train, "val": config.val}
        path = Path(config.root) / files[split] if split in files else Path(split)
        if config.train_text and path == Path(config.root) / config.train:
            self.config = config = replace(config, text=replace(config.text, folder=config.train_text))
        annotations = load_rows(config, path)
        self.queries = _chosen(annotations.queries, config, path)
        mended = annotations.mended()
        if config.drop_whole_videos:
            self.queries = _without_whole_videos(self.queries, path, mended)
        self._features = FeatureFiles(config, self.queries, path.name.partition(".")[0])
        for query in self.queries:
            _check_labels(query, len(self._features.video(query)), config, path)
        self.report = DatasetReport.of(config, self.queries, self._features, mended)
        for note in self.report.notes:
            _log.warning(note)
        draws = config.negative_sentences and split == "train"
        self._others = OtherVideos(self.videos_N, path) if draws else None

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def contract(self) -> FeatureContract:
        """What the features are; a model's weights are checked against it."""
        return self.config.contract

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        """Clips of each row's video."""
        return np.array([len(self._features.video(query)) for query in self.queries])

    @property
    def videos_N(self) -> NDArray[np.int64]:
        """A number for each row's video; rows of one video (`video_key`) share it."""
        keys = [video_key(query.vid, self.config) for query in self.queries]
        return np.unique(keys, return_inverse=True)[1].astype(np.int64)

    def sample(self, index: int, epoch: int = 0) -> Sample:
        """One row, ready for a model.

        Args:
            index: 0..len-1.
            epoch: not negative; without effect on anything but the random picks.
        """
        config, query = self.config, self.queries[index]
        rng = np.random.default_rng([self.seed, 0 if config.fixed_picks else epoch, index])
        video_TD, audio_TA = self._features.video(query), self._features.audio(query)
        if config.layout == "tvsum" and query.clip_labels is not None:
            # The published loader cuts to the labels here, behind the time channels of the whole video.
            video_TD = video_TD[: len(query.clip_labels)]
            audio_TA = None if audio_TA is None else audio_TA[: len(query.clip_labels)]
        labels = _labels(query, len(video_TD), config, rng)
        clip_length_s = query.duration_s / config.clips if config.clips else config.clip_length_s
        windows_clip = seconds_to_clips(np.array(query.windows_s or (), np.float64), clip_length_s)
        windows_clip = windows_clip.reshape(-1, 2).astype(np.float32)
        if config.max_windows is not None and len(windows_clip) > config.max_windows:
            windows_clip = rng.permutation(windows_clip)[: config.max_windows]
        negative_text_LE = None
        if self._others is not None:
            other = self._others.draw(index, np.random.default_rng([self.seed, epoch, index, 4]))
            negative_text_LE = self._features.text(self.queries[other])
        return Sample(
            query=query,
            video_TD=video_TD,
            text_LE=self._features.text(query),
            audio_TA=audio_TA,
            windows_clip=windows_clip,
            saliency_T=labels.saliency_T,
            positive_clip_P=labels.positive_clip_P,
            negative_clip_P=labels.negative_clip_P,
            negative_text_LE=negative_text_LE,
            labelled=is_labelled(query, config),
            video_key=video_key(query.vid, config),
            clip_length_s=clip_length_s,
            duration_s=query.duration_s,
        )


class OtherVideos:
    """Draws a row of another video, every such row with the same chance.

    Args:
        videos_N: number of each row's video.
        path: the annotation file, for the message.

    Raises:
        DataError: all rows are of one video.
    """

    def __init__(self, videos_N: NDArray[np.int64], path: Path) -> None:
        self._order_N = np.argsort(videos_N, kind="stable")  # rows of one video side by side
        _, start, count = np.unique(videos_N[self._order_N], return_index=True, return_counts=True)
        self._start_N, self._count_N = start[videos_N], count[videos_N]
        if len(start) < 2:
            raise DataError(f"{path} has one video; negative_sentences needs rows of two or more")

    def draw(self, index: int, rng: np.random.Generator) -> int:
        """A row whose video is not that of row `index`."""
        count = self._count_N[index]
        place = int(rng.integers(len(self._order_N) - count))
        return int(self._order_N[place if place < self._start_N[index] else place + count])


def is_labelled(query: Query, config: DataConfig) -> bool:
    """Whether the row has the truth its layout trains on."""
    if config.layout in ("tvsum", "youtube"):
        return query.clip_labels is not None
    return query.windows_s is not None


def video_key(vid: str, config: DataConfig) -> str:
    """The vid, or the source it was cut from ("<source>_<start>_<end>"): equal keys are the same video."""
    by_source = config.video_key == "source" or (
        config.video_key == "layout" and config.layout in ("qvhighlights", "subtitles")
    )
    return source_of(vid) if by_source else vid


def _chosen(queries: Sequence[Query], config: DataConfig, path: Path) -> list[Query]:
    kept = [query for query in queries if config.domain in ("", query.domain)]
    if not kept:
        domains = ", ".join(sorted({query.domain for query in queries} - {""})) or "none"
        raise DataError(f"{path} has no row of domain {config.domain!r}; its domains are {domains}")
    return with_true_durations(kept, config.clip_length_s) if config.layout == "tvsum" else kept


def _without_whole_videos(queries: Sequence[Query], path: Path, said: list[str]) -> list[Query]:
    """The rows whose first window is shorter than the video; what is left out is said."""
    kept = [
        query
        for query in queries
        if not (query.windows_s and query.windows_s[0][1] - query.windows_s[0][0] >= query.duration_s)
    ]
    if not kept:
        raise DataError(
            f"{path}: every row's first window is as long as its video; drop_whole_videos left none"
        )
    if lost := len(queries) - len(kept):
        said.append(f"{path}: {lost} of {len(queries)} rows left out, their first window is the whole video")
    return kept


def _labels(query: Query, clips: int, config: DataConfig, rng: np.random.Generator) -> Labels:
    """The rule of the layout; ratings, where a row has them, go before windows."""
    if config.layout in ("tvsum", "youtube"):
        if query.clip_labels is None:
            return no_labels(clips, pairs=1)
        rule = rater_labels if config.layout == "tvsum" else binary_labels
        return rule(query.clip_labels, clips)
    if query.relevant_clips is not None and query.saliency_scores is not None:
        return rated_labels(query.relevant_clips, query.saliency_scores, clips, rng)
    by_duration = config.label_step == "duration" and config.layout != "subtitles"
    step_s = query.duration_s / clips if by_duration or config.clips else config.clip_length_s
    return window_labels(query.windows_s or (), clips, step_s, rng)


def _check_labels(query: Query, clips: int, config: DataConfig, path: Path) -> None:
    """YouTube's clips overlap, so features of another length belong to other clips."""
    labels = query.clip_labels
    if config.layout == "youtube" and labels is not None and len(labels) != clips and config.max_clips < 0:
        raise FeatureError(
            f"{path}:{query.line}: label has {len(labels)} clips and the features of {query.vid} {clips}; "
            "YouTube Highlights needs one feature row a label"
        )
