"""Sets of synthetic films on disk, in the QVHighlights layout.

annotations/{train,val}.jsonl             questions with windows, relevant clips, saliency of three raters
annotations/{train,val}_negatives.jsonl   sentences about what is not in their film
videos/<vid>.mp4                          where asked for
features/video/<vid>.npz                  `features` (T, C)
features/text/qid<qid>.npz                `last_hidden_state` (L, E)
data.toml                                 the [data] section that reads all this
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import ConfigError
from momentkit.core.files import atomic_write
from momentkit.data.info import data_section
from momentkit.data.synthetic.descriptor import clip_count, direct_features
from momentkit.data.synthetic.draw import Renderer
from momentkit.data.synthetic.film import write_film
from momentkit.data.synthetic.plan import FilmOptions, make_film
from momentkit.data.synthetic.questions import CLIP_LENGTH_S, absent, questions, row
from momentkit.data.synthetic.world import Film
from momentkit.features.base import FrameEncoder, TextEncoder
from momentkit.features.store import write_features

SPLITS = ("train", "val")
Features = Literal["none", "direct", "encoded"]
_FILMS_A_SPLIT = 10_000_000  # seeds of one set never meet those of another split or set
_QIDS_A_SPLIT = 10_000_000


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    """What a set holds.

    Attributes:
        films: how many films each split has, by split name ("train", "val").
        seed: of everything; sets of different seeds share no film.
        queries: most questions a film.
        negatives: most sentences a film about what is not in it.
        video: whether mp4 files are written.
        features: "none", "direct" (drawn from how the encoder reads films) or "encoded" (drawn and encoded).
        height, width, fps: of the mp4 files.
        film: what films are like.
    """

    films: tuple[tuple[str, int], ...] = (("train", 200), ("val", 50))
    seed: int = 0
    queries: int = 4
    negatives: int = 1
    video: bool = False
    features: Features = "direct"
    height: int = 144
    width: int = 256
    fps: int = 12
    film: FilmOptions = field(default_factory=FilmOptions)

    def __post_init__(self) -> None:
        for split, count in self.films:
            if split not in SPLITS or not 0 <= count < _FILMS_A_SPLIT:
                raise ConfigError(
                    f"a split is one of {', '.join(SPLITS)} with 0 or more films, got {split}: {count}"
                )
        if not (self.queries >= 1 and self.negatives >= 0 and self.seed >= 0):
            raise ConfigError("queries must be at least 1; negatives and seed must not be negative")


@dataclass(frozen=True, kw_only=True)
class SetReport:
    """What was written.

    Attributes:
        films, queries, negatives: counts over all splits.
        seconds: of film.
    """

    films: int
    queries: int
    negatives: int
    seconds: int


def film_of(split: str, number: int, seed: int, options: FilmOptions | None = None) -> Film:
    """Film `number` of a split of the set of a seed."""
    base = (seed * len(SPLITS) + SPLITS.index(split)) * _FILMS_A_SPLIT
    # No underscore: QVHighlights readers cut ids at the last two.
    return make_film(base + number, options, vid=f"{split}-{seed}-{number:05d}")


def synthesize(
    directory: str | Path,
    options: SetOptions,
    *,
    frame_encoder: FrameEncoder | None = None,
    text_encoder: TextEncoder | None = None,
    progress: Callable[[int], None] = lambda films: None,
) -> SetReport:
    """Write a set.

    Args:
        directory: made where missing; files of the same name are replaced.
        options: what the set holds.
        frame_encoder, text_encoder: the encoders whose features are written; both, unless features is "none".
        progress: called after each film with how many are done.

    Raises:
        ConfigError: features are asked for and an encoder is missing.
    """
    root = Path(directory)
    if options.features != "none" and (frame_encoder is None or text_encoder is None):
        raise ConfigError(f"features = {options.features!r} needs a frame encoder and a text encoder")
    counts = {"films": 0, "queries": 0, "negatives": 0, "seconds": 0}
    for split, count in options.films:
        lines: dict[str, list[str]] = {"queries": [], "negatives": []}
        for number in range(count):
            film = film_of(split, number, options.seed, options.film)
            rows = _rows(film, number, options, SPLITS.index(split))
            if options.video:
                path = root / "videos" / f"{film.vid}.mp4"
                write_film(film, path, height=options.height, width=options.width, fps=options.fps)
            if frame_encoder is not None and text_encoder is not None and options.features != "none":
                _write_features(root, film, rows, options.features, frame_encoder, text_encoder)
            for kind, kept in lines.items():
                kept += [json.dumps(each) for each in rows[kind]]
                counts[kind] += len(rows[kind])
            counts["films"] += 1
            counts["seconds"] += film.duration_s
            progress(counts["films"])
        for name, kept in ((split, lines["queries"]), (f"{split}_negatives", lines["negatives"])):
            atomic_write(root / "annotations" / f"{name}.jsonl", "".join(f"{line}\n" for line in kept))
    if frame_encoder is not None and text_encoder is not None and options.features != "none":
        train, val = (root / "annotations" / f"{split}.jsonl" for split in ("train", "val"))
        contracts = frame_encoder.contract, text_encoder.contract
        section = data_section(
            root, train, val, *contracts, CLIP_LENGTH_S, layout="qvhighlights", features="features/"
        )
        atomic_write(root / "data.toml", section)
    return SetReport(**counts)


def _rows(film: Film, number: int, options: SetOptions, split: int) -> dict[str, list[dict[str, object]]]:
    rng = np.random.default_rng([film.seed, 5])
    qid = split * _QIDS_A_SPLIT + number * (options.queries + options.negatives)
    asked, missing = questions(film, options.queries, rng), absent(film, options.negatives, rng)
    return {
        "queries": [row(question, qid + i, film, rng) for i, question in enumerate(asked)],
        "negatives": [
            row(question, qid + options.queries + i, film, rng) for i, question in enumerate(missing)
        ],
    }


def _write_features(
    root: Path, film: Film, rows: dict[str, list[dict[str, object]]], features: Features,
    frame_encoder: FrameEncoder, text_encoder: TextEncoder,
) -> None:  # fmt: skip
    if features == "direct":
        video_TC = direct_features(film, np.random.default_rng([film.seed, 6]), CLIP_LENGTH_S)
    else:
        video_TC = encoded_features(film, frame_encoder)
    write_features(root / "features" / "video" / film.vid, video_TC, frame_encoder.contract)
    every = [each for kind in rows.values() for each in kind]
    for each, text in zip(
        every, text_encoder.encode_text([str(each["query"]) for each in every]), strict=True
    ):
        path = root / "features" / "text" / f"qid{each['qid']}"
        write_features(path, text.words_LE, text_encoder.contract, "last_hidden_state")


def encoded_features(film: Film, encoder: FrameEncoder) -> NDArray[np.float32]:
    """Draw a film at the encoder's size, without a video file between, and encode it: (T, C)."""
    if encoder.frame_size is None:
        raise ConfigError(f"{encoder.contract.encoder} takes frames of any size; encode the mp4 file instead")
    starts_s = np.arange(clip_count(film, CLIP_LENGTH_S), dtype=np.float64) * CLIP_LENGTH_S
    times_s = starts_s[:, None] + np.array(encoder.frame_offsets_s)
    return encoder.encode_frames(list(Renderer(film, *encoder.frame_size).frames(times_s.ravel())))
