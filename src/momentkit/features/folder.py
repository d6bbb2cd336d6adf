"""Folders of feature files: extracted from films or sentences, verified against their contract, compared.

Files hold raw rows, as published ones do; the contract beside them says how a model's door normalises them.

Shapes   N rows (clips or words)   D channels
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from momentkit.core.contract import StreamContract
from momentkit.core.errors import FeatureError, MomentkitError
from momentkit.features.base import FrameEncoder, SoundEncoder, TextEncoder
from momentkit.features.extract import Progress, encode_text, encode_video
from momentkit.features.sound import encode_sound
from momentkit.features.store import (
    CONTRACT_FILE,
    read_contract,
    read_headers,
    read_text,
    read_video_stream,
    write_features,
)
from momentkit.video.limits import DEFAULT_LIMITS, VideoLimits

TEXT_KEY = "last_hidden_state"
_ENDINGS = (".npz", ".npy", ".pt")
_SENTENCES_AT_ONCE = 256


def extract_film(
    film: str | Path,
    encoder: FrameEncoder | SoundEncoder,
    folder: str | Path,
    *,
    limits: VideoLimits = DEFAULT_LIMITS,
    tolerate_cut: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Encode a film into `<folder>/<name of the film>.npz`, key `features`, raw rows.

    Raises:
        VideoError: the film cannot be read.
        FeatureMismatchError: the folder holds features of another contract.
    """
    with _raw(encoder) as contract:
        if isinstance(encoder, SoundEncoder):
            made = encode_sound(film, encoder, limits, tolerate_cut=tolerate_cut, progress=progress)
        else:
            made = encode_video(film, encoder, limits, tolerate_cut=tolerate_cut, progress=progress)
    return write_features(film_file(film, folder), made.features_TD, contract)


def film_file(film: str | Path, folder: str | Path) -> Path:
    """Where `extract_film` puts the features of a film."""
    return Path(folder) / f"{Path(film).stem}.npz"


def extract_sentences(
    sentences: Mapping[str, str], encoder: TextEncoder, folder: str | Path
) -> dict[str, list[str]]:
    """Encode sentences into `<folder>/<name>.npz`, key `last_hidden_state`, raw rows.

    Args:
        sentences: name of the file -> sentence.
        encoder: what turns sentences into rows.
        folder: receives the files.

    Returns:
        Words that the encoder does not know -> the names of the files they stand in.
    """
    unknown: dict[str, list[str]] = {}
    names = list(sentences)
    with _raw(encoder) as contract:
        for first in range(0, len(names), _SENTENCES_AT_ONCE):
            some = names[first : first + _SENTENCES_AT_ONCE]
            made = encode_text([sentences[name] for name in some], encoder)
            for name, features in zip(some, made, strict=True):
                write_features(Path(folder) / f"{name}.npz", features.words_LE, contract, TEXT_KEY)
                for word in features.unknown_words:
                    unknown.setdefault(word, []).append(name)
    return unknown


@contextmanager
def _raw(encoder: FrameEncoder | SoundEncoder | TextEncoder) -> Iterator[StreamContract]:
    """The encoder's contract; inside the `with` the encoder's rows are neither normalised nor rounded."""
    contract = encoder.contract
    encoder.contract = contract.model_copy(update={"normalisation": "none", "dtype": "float32"})
    try:
        yield contract
    finally:
        encoder.contract = contract


@dataclass(frozen=True, kw_only=True)
class FolderReport:
    """What was found in a folder of feature files.

    Attributes:
        files, rows: how many were read and are sound.
        zero_rows: rows of zeros among them: silence, black frames, unknown words.
        faults: a sentence each.
    """

    files: int
    rows: int
    zero_rows: int
    faults: tuple[str, ...]


def verify_folder(folder: str | Path) -> FolderReport:
    """Read every feature file of a folder and compare it with the folder's contract.

    Raises:
        FeatureError: no folder, no feature file, or a contract that cannot be read.
    """
    folder = Path(folder)
    contract = read_contract(folder)
    files = feature_files(folder)
    faults = [] if contract is not None else [f"{folder} has no {CONTRACT_FILE}: nothing says what these are"]
    sound = rows = zero_rows = 0
    for file in files:
        try:
            values_ND = read_rows(file)
            stored = next(iter(read_headers(file).values()))[1]
            if contract is not None and values_ND.shape[1] != contract.dim:
                raise FeatureError(
                    f"{file} has {values_ND.shape[1]} channels, the contract says {contract.dim}"
                )
            if contract is not None and stored != contract.dtype:
                raise FeatureError(f"{file} is stored as {stored}, the contract says {contract.dtype}")
        except MomentkitError as error:
            faults.append(str(error))
            continue
        sound, rows = sound + 1, rows + len(values_ND)
        zero_rows += int((~values_ND.any(1)).sum())
    return FolderReport(files=sound, rows=rows, zero_rows=zero_rows, faults=tuple(faults))


def feature_files(folder: Path) -> list[Path]:
    """Feature files of a folder, in name order.

    Raises:
        FeatureError: there is no folder, or none in it.
    """
    if not folder.is_dir():
        raise FeatureError(f"{folder} is no folder; give a folder of feature files")
    files = sorted(path for path in folder.iterdir() if path.suffix in _ENDINGS and path.name[0] != ".")
    if not files:
        raise FeatureError(f"{folder} holds no feature file ({', '.join(_ENDINGS)})")
    return files


def read_rows(file: Path) -> NDArray[np.float32]:
    """(N, D) float32 of a feature file, be they clips or words.

    Raises:
        FeatureError: missing or damaged.
    """
    if TEXT_KEY in read_headers(file):
        return read_text(file, TEXT_KEY)
    return read_video_stream(file)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Features of the same films by two ways of making them.

    Attributes:
        names: of the films in both.
        cosine: one (N,) row of cosines a film, clip by clip.
        lost: films whose numbers of rows differ -> (rows in A, rows in B); the first ones are compared.
        only_a, only_b: films that one side lacks.
    """

    names: tuple[str, ...]
    cosine: tuple[NDArray[np.float64], ...]
    lost: dict[str, tuple[int, int]]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    @property
    def all(self) -> NDArray[np.float64]:
        """Cosines of all clips of all films."""
        return np.concatenate(self.cosine)

    def worst(self, count: int) -> list[tuple[float, str, int]]:
        """The clips that differ most: cosine, film, number of the clip."""
        clips = [
            (float(value), name, clip)
            for name, row in zip(self.names, self.cosine, strict=True)
            for clip, value in enumerate(row)
        ]
        return sorted(clips)[:count]


def compare_features(a: str | Path, b: str | Path) -> Comparison:
    """Compare two feature files, or two folders file by file (by name without ending).

    Raises:
        FeatureError: nothing in common, a damaged file, or different numbers of channels.
    """
    a, b = Path(a), Path(b)
    if a.is_dir() != b.is_dir():
        raise FeatureError(f"{a} and {b} must be two files or two folders")
    files_a, files_b = ({"": a}, {"": b}) if a.is_file() else (_by_name(a), _by_name(b))
    shared = sorted(files_a.keys() & files_b.keys())
    if not shared:
        raise FeatureError(f"{a} and {b} have no file name in common")
    cosines, lost = [], {}
    for name in shared:
        left, right = read_rows(files_a[name]), read_rows(files_b[name])
        if left.shape[1] != right.shape[1]:
            raise FeatureError(
                f"{files_a[name]} has {left.shape[1]} channels, {files_b[name]} has {right.shape[1]}; "
                "these are features of two encoders"
            )
        if len(left) != len(right):
            lost[name or a.stem] = len(left), len(right)
        rows = min(len(left), len(right))
        cosines.append(cosine_of(left[:rows], right[:rows]))
    return Comparison(
        names=tuple(name or a.stem for name in shared),
        cosine=tuple(cosines),
        lost=lost,
        only_a=tuple(sorted(files_a.keys() - files_b.keys())),
        only_b=tuple(sorted(files_b.keys() - files_a.keys())),
    )


def cosine_of(a_ND: NDArray[np.float32], b_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) cosine of each pair of rows; two rows of zeros agree (1), one alone agrees with nothing (0)."""
    a, b = a_ND.astype(np.float64), b_ND.astype(np.float64)
    length_a, length_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    length = length_a * length_b
    cosine = (a * b).sum(1) / np.where(length > 0, length, 1)
    return np.where((length_a == 0) & (length_b == 0), 1.0, cosine)


def _by_name(folder: Path) -> dict[str, Path]:
    # The loaders' order: where a name has several endings, the first of these is read.
    files = sorted(feature_files(folder), key=lambda file: _ENDINGS.index(file.suffix), reverse=True)
    return {file.name.removesuffix(file.suffix): file for file in files}
