"""A film or sentences -> features ready for a model: sampled, encoded, normalised, in flat memory.

While a chunk of frames is encoded, a thread decodes the next one; more than these two are never held.

Clip i covers [i * c, (i + 1) * c) seconds; its frames are those shown at i * c + the encoder's offsets, no
later than the last frame. A film of d seconds has ceil(d / c) clips, at least one: a last clip that is not
full is kept, so that no second is left out.

Shapes   T clips   D video channels   L words   E text channels
Source   normalisation: x / (norm(x) + 1e-5) a row, as Moment-DETR's line of work does it
"""

import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from momentkit.core.contract import FeatureContract, StreamContract
from momentkit.core.errors import FeatureError, VideoError
from momentkit.core.timeline import timestamp
from momentkit.core.types import TextFeatures, VideoFeatures
from momentkit.features.base import FrameEncoder, SoundEncoder, TextEncoder
from momentkit.features.store import join_streams, prepare_rows
from momentkit.video.limits import DEFAULT_LIMITS, VideoLimits
from momentkit.video.probe import VideoInfo, probe
from momentkit.video.reader import VideoReader, open_video

_log = logging.getLogger(__name__)
CHUNK_BYTES = 48 * 1024**2  # pixels held at once, one clip at least
CHUNK_CLIPS = 64

Progress = Callable[[int, int], object]
"""Called with clips done and clips in all."""


def clip_count(duration_s: float, clip_length_s: float) -> int:
    """Clips of a film: ceil(duration / clip length), at least 1; a rounding error adds none."""
    return max(1, math.ceil(duration_s / clip_length_s - 1e-6))


def encode_video(
    path: str | Path,
    encoder: FrameEncoder,
    limits: VideoLimits = DEFAULT_LIMITS,
    *,
    contract: FeatureContract | None = None,
    tolerate_cut: bool = False,
    progress: Progress | None = None,
) -> VideoFeatures:
    """Encode a film, holding no more than two chunks of its frames.

    Args:
        path: the film.
        encoder: what turns frames into rows.
        limits: what the film may cost, for measuring and for decoding each.
        contract: handed on with the features, so that a model can check them.
        tolerate_cut: encode what is whole of a cut film; else it is refused.
        progress: told about each chunk.

    Returns:
        (T, D) float32 features, normalised as `encoder.contract` says.

    Raises:
        VideoError: the film cannot be read, or is cut.
        FeatureError: the encoder gave a wrong number of rows or a number that is not finite.
    """
    info = whole_film(path, limits, tolerate_cut=tolerate_cut)
    length_s = encoder.clip_length_s
    clips = clip_count(info.duration_s, length_s)
    starts_s = np.arange(clips)[:, None] * length_s
    times_s = np.minimum(starts_s + np.asarray(encoder.frame_offsets_s)[None], info.last_frame_s)
    rows: list[NDArray[np.float32]] = []
    done = 0
    with (
        open_video(path, limits, tolerate_cut=tolerate_cut) as reader,
        closing(_decoded_ahead(reader, times_s, encoder.frame_size)) as chunks,
    ):
        for frames in chunks:
            chunk_TD = finish_rows(encoder.encode_frames(frames), encoder.contract)
            rows.append(checked_rows(chunk_TD, len(frames) // times_s.shape[1], encoder, done))
            done += len(chunk_TD)
            if progress is not None:
                progress(done, clips)
    return VideoFeatures(
        features_TD=np.concatenate(rows),
        clip_length_s=length_s,
        duration_s=info.duration_s,
        contract=contract,
    )


def encode_streams(
    path: str | Path,
    encoders: Sequence[FrameEncoder],
    limits: VideoLimits = DEFAULT_LIMITS,
    *,
    contract: FeatureContract | None = None,
    progress: Progress | None = None,
) -> VideoFeatures:
    """Encode a film by several encoders of one clip length, their channels side by side.

    The film is read once for each. A film that changes meanwhile, such as a recording that goes on, gives
    streams of different lengths: they are cut to the shortest, and a warning is logged.

    Args:
        path: the film.
        encoders: at least one.
        limits: what the film may cost, for each reading.
        contract: handed on with the features.
        progress: told about each chunk, in clips of all streams together.

    Returns:
        (T, sum of D) float32 features, each stream normalised on its own.

    Raises:
        VideoError, FeatureError: as `encode_video`.
    """
    made: list[VideoFeatures] = []
    for encoder in encoders:
        told = None
        if progress is not None:
            before, tell = len(made), progress

            def told(done: int, clips: int, before: int = before, tell: Progress = tell) -> object:
                return tell(before * clips + done, len(encoders) * clips)

        made.append(encode_video(path, encoder, limits, contract=contract, progress=told))
    if len(made) == 1:
        return made[0]
    joined_TD, cut = join_streams([one.features_TD for one in made])
    if any(cut):
        _log.warning(
            "%s changed while it was read: its streams have %s clips and are cut to the shortest",
            path,
            ", ".join(str(len(one.features_TD)) for one in made),
        )
    duration_s = min(one.duration_s for one in made)
    return replace(made[0], features_TD=joined_TD, duration_s=duration_s)


def whole_film(path: str | Path, limits: VideoLimits, *, tolerate_cut: bool = False) -> VideoInfo:
    """Measure a film.

    Raises:
        VideoError: it cannot be read, or is cut and that is not tolerated.
    """
    info = probe(path, limits)
    if not (info.complete or tolerate_cut):
        raise VideoError(
            "truncated",
            f"{path} is cut off or damaged: its first {timestamp(info.duration_s)} are whole; "
            "fetch or copy it again",
        )
    return info


def _decoded_ahead(
    reader: VideoReader, times_s: NDArray[np.float64], size: tuple[int, int] | None
) -> Generator[list[NDArray[np.uint8]]]:
    """The chunks, each decoded while the caller works on the one before; closing it ends the thread."""
    given_up = Event()
    chunks = _chunks(reader, times_s, size, given_up)
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as pool:
        coming = pool.submit(next, chunks, None)
        try:
            while (frames := coming.result()) is not None:
                coming = pool.submit(next, chunks, None)
                yield frames
        finally:
            given_up.set()


def _chunks(
    reader: VideoReader, times_s: NDArray[np.float64], size: tuple[int, int] | None, given_up: Event
) -> Iterator[list[NDArray[np.uint8]]]:
    """Frames of whole clips, as many clips as fit a chunk."""
    per_clip = times_s.shape[1]
    frames: list[NDArray[np.uint8]] = []
    held_bytes = 0
    for _, frame in reader.frames_at(times_s.reshape(-1), size):
        if given_up.is_set():
            return
        frames.append(frame)
        held_bytes += frame.nbytes
        full = held_bytes >= CHUNK_BYTES or len(frames) >= CHUNK_CLIPS * per_clip
        if full and len(frames) % per_clip == 0:
            yield frames
            frames, held_bytes = [], 0
    if frames:
        yield frames


def checked_rows(
    rows_TD: NDArray[np.float32], clips: int, encoder: FrameEncoder | SoundEncoder, first_clip: int
) -> NDArray[np.float32]:
    """The rows that an encoder gave for `clips` clips from `first_clip` on.

    Raises:
        FeatureError: not (clips, D), or not finite.
    """
    wanted = clips, encoder.contract.dim
    if rows_TD.shape != wanted:
        raise FeatureError(
            f"{encoder.contract.encoder} gave rows of shape {rows_TD.shape}, expected {wanted}"
        )
    finite_T = np.isfinite(rows_TD).all(axis=1)
    if not finite_T.all():
        clip = first_clip + int(np.argmin(finite_T))
        raise FeatureError(
            f"{encoder.contract.encoder} gave a number that is not finite for the clip at "
            f"{timestamp(clip * encoder.clip_length_s)}; its weights are damaged or the precision is too low"
        )
    return rows_TD


def encode_text(sentences: Sequence[str], encoder: TextEncoder) -> list[TextFeatures]:
    """Encode sentences; each row normalised as `encoder.contract` says.

    Raises:
        QueryError: a sentence is empty or too long for the encoder.
        FeatureError: the encoder gave a number that is not finite.
    """
    encoded = [
        replace(one, words_LE=finish_rows(one.words_LE, encoder.contract))
        for one in encoder.encode_text(sentences)
    ]
    for sentence, features in zip(sentences, encoded, strict=True):
        if not (len(features.words_LE) and np.isfinite(features.words_LE).all()):
            raise FeatureError(
                f"{encoder.contract.encoder} gave no word or a number that is not finite for {sentence!r}; "
                "its weights are damaged or the precision is too low"
            )
    return encoded


def finish_rows(rows: NDArray[np.float32], contract: StreamContract) -> NDArray[np.float32]:
    """Raw rows (N, D) of an encoder -> float32 rows as a model trained with `contract` expects them.

    Features that were stored in half precision are rounded as they were then.

    Raises:
        FeatureError: a normalisation other than "l2" and "none".
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite here is refused by the caller
        stored = rows.astype(np.float16) if contract.dtype == "float16" else rows
        return prepare_rows(stored.astype(np.float32), contract.normalisation)
