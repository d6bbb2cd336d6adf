"""The sound of a film -> one row a clip, in flat memory.

Clip i is what is heard in [i * c, (i + 1) * c) seconds from the first frame, in as many clips as the frames
give; where the sound is shorter than the film there is silence, where it is longer the rest is left out.

Shapes   T clips   S samples of a clip   D channels
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from momentkit.core.types import VideoFeatures
from momentkit.features.base import SoundEncoder
from momentkit.features.extract import Progress, checked_rows, clip_count, finish_rows, whole_film
from momentkit.video.limits import DEFAULT_LIMITS, VideoLimits
from momentkit.video.sound import read_sound

CHUNK_CLIPS = 32


def encode_sound(
    path: str | Path,
    encoder: SoundEncoder,
    limits: VideoLimits = DEFAULT_LIMITS,
    *,
    tolerate_cut: bool = False,
    progress: Progress | None = None,
) -> VideoFeatures:
    """Encode a film's sound.

    Args:
        path: the film.
        encoder: what turns samples into rows.
        limits: what the film may cost.
        tolerate_cut: encode what is whole of a cut film; else it is refused.
        progress: told about each chunk.

    Returns:
        (T, D) float32 features, normalised as `encoder.contract` says.

    Raises:
        VideoError: the film cannot be read, is cut, or has no sound.
        FeatureError: the encoder gave a wrong number of rows or a number that is not finite.
    """
    info = whole_film(path, limits, tolerate_cut=tolerate_cut)
    clips = clip_count(info.duration_s, encoder.clip_length_s)
    rows: list[NDArray[np.float32]] = []
    done = 0
    blocks = read_sound(path, encoder.sample_rate, info.first_stamp_s, limits)
    for samples_TS in sound_clips(blocks, clips, encoder.clip_length_s * encoder.sample_rate):
        chunk_TD = finish_rows(encoder.encode_sound(samples_TS), encoder.contract)
        rows.append(checked_rows(chunk_TD, len(samples_TS), encoder, done))
        done += len(chunk_TD)
        if progress is not None:
            progress(done, clips)
    return VideoFeatures(
        features_TD=np.concatenate(rows), clip_length_s=encoder.clip_length_s, duration_s=info.duration_s
    )


def sound_clips(
    blocks: Iterator[NDArray[np.float32]], clips: int, samples: float
) -> Iterator[NDArray[np.float32]]:
    """Samples cut into clips, some at a time.

    Args:
        blocks: (S,) one after another.
        clips: how many are wanted.
        samples: of a clip; where that is no whole number, clip i begins at the sample nearest to i * samples.

    Yields:
        (T, S) with S = round(samples), `clips` rows in all.
    """
    length = round(samples)
    held, start, done = np.zeros(0, np.float32), 0, 0  # `start` is the number of the first sample held
    made: list[NDArray[np.float32]] = []
    pieces: list[NDArray[np.float32]] = []
    waiting = 0
    while done < clips:
        begin = round(done * samples)
        while start + len(held) + waiting < begin + length:
            block = next(blocks, None)
            if block is None:  # the sound ends before the film
                block = np.zeros(begin + length - start - len(held) - waiting, np.float32)
            pieces.append(block)
            waiting += len(block)
        if pieces:
            held, pieces, waiting = np.concatenate([held, *pieces]), [], 0
        made.append(held[begin - start : begin - start + length])
        held, start = held[begin - start :], begin
        done += 1
        if len(made) == CHUNK_CLIPS or done == clips:
            yield np.stack(made)
            made = []
