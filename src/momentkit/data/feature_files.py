"""The feature files of a data set's rows: found, read once, checked, normalised, joined.

Shapes   T clips   D video channels   A audio channels   L words   E text channels
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import DataError, FeatureError
from momentkit.core.types import Query
from momentkit.data.cache import Entry, fingerprint, load_entries
from momentkit.data.options import DataConfig, StreamConfig
from momentkit.features.store import (
    average_rows,
    find_features,
    join_streams,
    prepare_rows,
    read_contract,
    read_text,
    read_video_stream,
    require_stream,
    time_channels,
)
from momentkit.features.words import read_word_vectors, sentence_rows, tokenise

Rows = NDArray[np.float32]


class FeatureFiles:
    """Features by row, ready for a model.

    Args:
        config: the folders and what they hold.
        queries: the rows.
        name: what a memory map is called after.

    Attributes:
        videos: vid -> entry; `lost` is what `max_clips` cut, then what each stream lost to the shortest
            (audio last).
        texts: text file or sentence -> entry; `lost` is what `max_words` cut.
        words: how many words the sentences have together, where they are looked up in a file of word vectors.
        unknown_words: those the file does not have, and how often each is used.
    """

    def __init__(self, config: DataConfig, queries: Sequence[Query], name: str) -> None:
        self._config = config
        self._text_patterns = config.text_files()
        self._video_dim = config.contract.video_dim
        self.words, self.unknown_words = 0, Counter[str]()
        for stream in (*config.streams, config.text):
            seen = read_contract(Path(config.root) / stream.folder)
            if seen is not None:
                require_stream(stream.contract, seen, str(Path(config.root) / stream.folder))
        video_files = {query.vid: self._paths_of_video(query) for query in queries}
        self.videos = self._load(video_files, self._read_video, f"{name}_video")
        if config.text.is_word_file:
            self.texts = self._look_up(queries)
        else:
            text_files = {self._text_name(query): self._paths_of_text(query) for query in queries}
            self.texts = self._load(text_files, self._read_text, f"{name}_text")

    def video(self, query: Query) -> Rows:
        """(T, D) float32, time channels last, read-only."""
        return self.videos[query.vid].rows_ND[:, : self._video_dim]

    def audio(self, query: Query) -> Rows | None:
        """(T, A) float32, time channels last, read-only; None where audio is no input of its own."""
        return self.videos[query.vid].rows_ND[:, self._video_dim :] if self._config.audio_apart else None

    def text(self, query: Query) -> Rows:
        """(L, E) float32, read-only."""
        return self.texts[self._text_name(query)].rows_ND

    def _text_name(self, query: Query) -> str:
        if self._config.text.is_word_file:
            return query.text
        return "+".join(_fill(pattern, query) for pattern in self._text_patterns)

    def _paths_of_video(self, query: Query) -> list[list[Path]]:
        root = Path(self._config.root)
        return [
            [root / stream.folder / _fill(pattern, query) for pattern in self._config.video_files(stream)]
            for stream in self._config.streams
        ]

    def _paths_of_text(self, query: Query) -> list[list[Path]]:
        folder = Path(self._config.root) / self._config.text.folder
        return [[folder / _fill(pattern, query) for pattern in self._text_patterns]]

    def _load(
        self,
        files: dict[str, list[list[Path]]],
        read: Callable[[list[list[Path]]], Entry],
        name: str,
    ) -> dict[str, Entry]:
        found = _find_all(files)
        map_to = None
        if self._config.memory_map:
            everything = [path for streams in found.values() for paths in streams for path in paths]
            map_to = Path(self._config.memory_map) / f"{name}_{fingerprint(str(self._config), everything)}"
        return load_entries(list(found), lambda key: read(found[key]), map_to)

    def _read_video(self, files: list[list[Path]]) -> Entry:
        limit = self._config.max_clips
        streams, too_long = [], 0
        for stream, paths in zip(self._config.streams, files, strict=True):
            rows_TD = _read_stream(paths, stream, read_video_stream, stream.key or "features")
            too_long = max(too_long, len(rows_TD) - limit) if limit > 0 else 0
            kept_TD = rows_TD[:limit] if limit > 0 else rows_TD
            streams.append(prepare_rows(kept_TD, stream.normalisation))
        joined_TD, cut = join_streams(streams)
        longest = len(joined_TD) + max(cut)
        if max(cut) > max(2, self._config.max_cut * longest):
            lengths = ", ".join(f"{path[0]}: {len(rows)}" for path, rows in zip(files, streams, strict=True))
            raise FeatureError(
                f"the streams of a video differ in length ({lengths}); are they of one clip length? "
                "max_cut sets how much may be cut"
            )
        return Entry(self._timed(joined_TD), (max(too_long, 0), *cut))

    def _timed(self, joined_TD: Rows) -> Rows:
        """Averaged to the wanted rows, and the time channels behind the video and again behind audio."""
        config = self._config
        if config.clips:
            joined_TD = average_rows(joined_TD, config.clips, published=config.clips_rule == "published")
        if not config.tef:
            return joined_TD
        time_T2 = time_channels(len(joined_TD))
        if config.audio is None:
            return np.concatenate([joined_TD, time_T2], 1)
        video_TD, audio_TA = np.split(joined_TD, [joined_TD.shape[1] - config.audio.dim], 1)
        return np.concatenate([video_TD, time_T2, audio_TA, time_T2], 1)

    def _read_text(self, files: list[list[Path]]) -> Entry:
        stream = self._config.text
        return self._words(_read_stream(files[0], stream, read_text, stream.key or "last_hidden_state"))

    def _words(self, rows_LE: Rows) -> Entry:
        stream, limit = self._config.text, self._config.max_words
        kept_LE = rows_LE[:limit] if limit > 0 else rows_LE
        return Entry(prepare_rows(kept_LE, stream.normalisation), (len(rows_LE) - len(kept_LE),))

    def _look_up(self, queries: Sequence[Query]) -> dict[str, Entry]:
        """Word vectors of each sentence; what has none is counted as often as it is used."""
        stream = self._config.text
        words = {query.text: tokenise(query.text, stream.tokens) for query in queries}
        used = Counter(word for query in queries for word in words[query.text])
        vectors = read_word_vectors(Path(self._config.root) / stream.folder, used.keys(), stream.dim)
        self.words = used.total()
        self.unknown_words = Counter({word: n for word, n in used.items() if word not in vectors})
        if not vectors:
            raise FeatureError(f"{stream.folder} has none of the {len(used)} words of the sentences")
        return {text: self._words(sentence_rows(found, vectors, stream.dim)) for text, found in words.items()}


def _find_all(files: dict[str, list[list[Path]]]) -> dict[str, list[list[Path]]]:
    """The same with endings; says how many files are missing, not only the first."""
    found: dict[str, list[list[Path]]] = {}
    missing: list[FeatureError] = []
    for name, streams in files.items():
        try:
            found[name] = [[find_features(path) for path in paths] for paths in streams]
        except FeatureError as error:
            missing.append(error)
    if missing:
        raise FeatureError(f"{missing[0]}; {len(missing)} of {len(files)} are wanting")
    return found


def _read_stream(
    paths: Sequence[Path], stream: StreamConfig, read: Callable[[Path, str], Rows], key: str
) -> Rows:
    parts = [read(path, key) for path in paths]
    rows_ND = parts[0] if len(parts) == 1 else join_streams(parts)[0]
    if rows_ND.shape[1] != stream.dim:
        raise FeatureError(f"{paths[0]}: {rows_ND.shape[1]} channels, dim = {stream.dim} is declared")
    return rows_ND


def _fill(pattern: str, query: Query) -> str:
    """A file name, refused where an id would lead out of the folder."""
    for value in (query.vid, str(query.qid)):
        if value in (".", "..") or any(sign in value for sign in "/\\\0"):
            raise DataError(f"line {query.line}: {value!r} cannot be part of a file name; rename it")
    return pattern.replace("{vid}", query.vid).replace("{qid}", str(query.qid))
