"""The sound of a film: mono samples at an asked rate, counted from the first frame shown.

Channels are averaged. Where the stamps leave a gap there is silence; what comes before the first frame, or
twice, is left out. A packet that does not decode is a gap. Memory does not grow with the length.

Shapes   C channels   S samples
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from numpy.typing import NDArray

from momentkit.core.errors import VideoError
from momentkit.video.limits import DEFAULT_LIMITS, Stopwatch, VideoLimits
from momentkit.video.source import CODECS, CONTAINERS, check_file, words_of

_COMMON = ("aac", "mp3", "mp3float", "mp2", "mp2float", "ac3", "eac3", "flac", "alac")
_OPEN = ("opus", "libopus", "vorbis", "libvorbis")
_PLAIN = ("pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8", "pcm_mulaw", "pcm_alaw")
SOUND_CODECS = frozenset((*_COMMON, *_OPEN, *_PLAIN))
_GAP_S = 0.1  # stamps are rounded: less than this is no gap
_SILENCE = 1 << 16  # samples of silence given at once

Block = NDArray[np.float32]


def read_sound(
    path: str | Path, sample_rate: int, first_stamp_s: float = 0.0, limits: VideoLimits = DEFAULT_LIMITS
) -> Iterator[Block]:
    """Samples of the first sound track, block by block; sample n was heard n / sample_rate after time zero.

    Args:
        path: a film: mp4, mov, mkv, webm, avi or ts.
        sample_rate: samples a second.
        first_stamp_s: the stamp that is time zero: `VideoInfo.first_stamp_s`.
        limits: bytes, duration and deadline.

    Yields:
        (S,) float32, S varying, mostly in [-1, 1].

    Raises:
        VideoError: while iterating: no sound track, one that cannot be decoded, or a limit.
    """
    path = Path(path)
    if not sample_rate > 0:
        raise ValueError(f"the sample rate must be positive, got {sample_rate}")
    if limits.sandbox:
        from momentkit.video.sandbox import sound_of

        yield from sound_of(path, sample_rate, first_stamp_s, limits)
        return
    check_file(path, limits)
    watch = Stopwatch(str(path), limits)
    try:
        with av.open(
            str(path.absolute()),
            container_options={
                "format_whitelist": CONTAINERS,
                "protocol_whitelist": "file",
                "codec_whitelist": ",".join(sorted(CODECS | SOUND_CODECS)),
            },
            metadata_errors="replace",
        ) as container:
            yield from _placed(path, container, sample_rate, first_stamp_s, limits, watch)
    except VideoError:
        raise
    except (av.FFmpegError, OSError, ValueError, RuntimeError) as error:
        raise VideoError(
            "not_a_video", f"the sound of {path} cannot be read ({words_of(error)}); convert it to AAC"
        ) from error


def _placed(
    path: Path,
    container: InputContainer,
    rate: int,
    first_stamp_s: float,
    limits: VideoLimits,
    watch: Stopwatch,
) -> Iterator[Block]:
    """Runs of samples, each put where its stamp says."""
    given = 0
    for start_s, block in _runs(path, container, rate):
        watch.check()
        place = round((start_s - first_stamp_s) * rate)
        if place + len(block) > limits.max_duration_s * rate:
            raise VideoError("too_long", f"the sound of {path} goes beyond {limits.max_duration_s:g} s")
        while given < place:
            silence = min(place - given, _SILENCE)
            yield np.zeros(silence, np.float32)
            given += silence
        kept = block[given - place :]
        if len(kept):
            yield kept
            given += len(kept)


def _runs(path: Path, container: InputContainer, rate: int) -> Iterator[tuple[float, Block]]:
    """Blocks of samples and the second each begins at; a new run after each gap."""
    resampler: AudioResampler | None = None
    run_s, run_samples = 0.0, 0  # where the run began, and how many samples of it were given
    due_s: float | None = None  # when the next frame of the run should begin
    frames, kind = 0, ("", "", 0)
    for frame in _decoded(path, container):
        frames += 1
        stamp_s = due_s if frame.time is None else float(frame.time)
        stamp_s = 0.0 if stamp_s is None else stamp_s
        seen = frame.format.name, frame.layout.name, frame.sample_rate
        if due_s is None or seen != kind or abs(stamp_s - due_s) > _GAP_S:
            for block in _resampled(resampler, None):
                yield run_s + run_samples / rate, block
                run_samples += len(block)
            # The layout is left as it is: mixing down by averaging is done below, where it is defined.
            resampler, run_s, run_samples, kind = AudioResampler("fltp", None, rate), stamp_s, 0, seen
        due_s = stamp_s + frame.samples / frame.sample_rate
        frame.pts, frame.time_base = None, Fraction(1, frame.sample_rate)  # the run's place is kept here
        for block in _resampled(resampler, frame):
            yield run_s + run_samples / rate, block
            run_samples += len(block)
    for block in _resampled(resampler, None):
        yield run_s + run_samples / rate, block
        run_samples += len(block)
    if not frames:
        raise VideoError("no_frames", f"the sound of {path} does not decode; convert it to AAC")


def _resampled(resampler: AudioResampler | None, frame: AudioFrame | None) -> Iterator[Block]:
    """Mono blocks at the new rate; None empties the resampler."""
    for made in resampler.resample(frame) if resampler else ():
        block_CS = made.to_ndarray()
        if block_CS.size:
            yield np.nan_to_num(block_CS.mean(axis=0, dtype=np.float32), posinf=0.0, neginf=0.0)


def _decoded(path: Path, container: InputContainer) -> Iterator[AudioFrame]:
    if not container.streams.audio:
        raise VideoError("no_frames", f"{path} has no sound; use an encoder of frames")
    stream = container.streams.audio[0]
    name = stream.codec_context.name
    if name not in SOUND_CODECS:
        raise VideoError(
            "unsupported_codec",
            f"the sound of {path} is coded as {name}; read are {', '.join(sorted(SOUND_CODECS))}; "
            "convert it to AAC",
        )
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # a cut file: what came before stands
            return
        if packet is None:
            return
        try:
            yield from stream.codec_context.decode(packet)
        except av.FFmpegError:
            continue
