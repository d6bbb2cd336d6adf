"""Frames at the times asked for: upright, 8-bit RGB, by presentation time, in one pass over the file.

The frame shown at t is the last one whose time is <= t, counted from the first frame shown; times come from
the stamps in the file, never from an index and a rate. See `clock` for stamps that are missing.

Shapes   N times   H, W pixels
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from momentkit.core.timeline import timestamp
from momentkit.video.clock import FrameClock, StampOrigin
from momentkit.video.limits import DEFAULT_LIMITS, Stopwatch, VideoLimits
from momentkit.video.picture import Painter
from momentkit.video.skip import EPSILON_S, PacketChoice
from momentkit.video.source import (
    SkippingFailed,
    ThreadedDecodingFailed,
    VideoSource,
    no_frames,
    open_source,
    truncated,
    words_of,
)

Frame = tuple[float, NDArray[np.uint8]]


def open_video(
    path: str | Path, limits: VideoLimits = DEFAULT_LIMITS, *, tolerate_cut: bool = False
) -> "VideoReader":
    """Open a video file for reading frames; use it in a `with`.

    Args:
        path: a regular file: mp4, mov, mkv, webm, avi or ts.
        limits: what the file may cost; the deadline runs from here.
        tolerate_cut: go on past a cut or damage: the last good frame stands for what is missing, and
            `complete` turns False. Else asking for it raises `truncated`.

    Raises:
        VideoError: whatever is wrong with the file.
    """
    if limits.sandbox:
        from momentkit.video.sandbox import SandboxedReader  # which is made of what stands here

        return SandboxedReader(Path(path), limits, tolerate_cut)
    return VideoReader(Path(path), limits, tolerate_cut)


class VideoReader:
    """A video that was found readable; each call of `frames_at` is one pass over the file.

    Attributes:
        complete: False once something showed that bytes are missing or damaged.
        origin: "guessed" once a frame without a usable stamp was met.
        first_stamp_s: the first shown frame's own stamp; None before it was read, or where it has none.
    """

    def __init__(self, path: Path, limits: VideoLimits, tolerate_cut: bool) -> None:
        self._path, self._limits, self._tolerate = path, limits, tolerate_cut
        self._passes: list[Generator[Frame]] = []
        self.complete = True
        self.origin: StampOrigin = "stamped"
        self.first_stamp_s: float | None = None
        self._open()

    def _open(self) -> None:
        """Find out whether the file can be read, and start the clock."""
        self._watch = Stopwatch(str(self._path), self._limits)
        with open_source(self._path, self._limits, self._watch) as source:
            self.complete = source.complete

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every pass that was left half-way and free what it holds."""
        for running in self._passes:
            running.close()
        self._passes.clear()

    def frames_at(
        self, times_s: Sequence[float] | NDArray[np.float64], size: tuple[int, int] | None = None
    ) -> Iterator[Frame]:
        """The frames shown at the times asked for.

        Args:
            times_s: (N,) seconds from the first frame, finite, >= 0, not falling; after the last frame, the
                last frame is shown.
            size: (height, width) of the upright frame, whatever its aspect; None = as a player shows it.

        Yields:
            N pairs: the frame's own time in seconds, and (H, W, 3) uint8 RGB. A frame asked for twice is the
            same array twice.

        Raises:
            VideoError: while iterating, whatever is wrong with the file as far as it was read.
        """
        asked_s = np.asarray(times_s, dtype=np.float64)
        if asked_s.ndim != 1 or not (np.isfinite(asked_s) & (asked_s >= 0)).all():
            raise ValueError(f"times must be a row of finite seconds >= 0, got {times_s!r}")
        if not (np.diff(asked_s) >= 0).all():
            raise ValueError("times must not fall: the file is read once, forwards")
        if size is not None and not min(size) > 0:
            raise ValueError(f"the size of a frame must be positive, got {size}")
        running = self._pass(asked_s, size)
        self._passes.append(running)
        return running

    def _pass(self, asked_s: NDArray[np.float64], size: tuple[int, int] | None) -> Generator[Frame]:
        """One pass; where it fails, the rest is read again with one thread, or with nothing left out."""
        given, limits, skip = 0, self._limits, True
        while True:
            with closing(self._attempt(asked_s[given:], size, limits, skip)) as attempt:
                try:
                    for frame in attempt:
                        yield frame
                        given += 1
                    return
                except ThreadedDecodingFailed:
                    limits = replace(limits, threads=1)
                except SkippingFailed:
                    skip = False

    def _attempt(
        self, asked_s: NDArray[np.float64], size: tuple[int, int] | None, limits: VideoLimits, skip: bool
    ) -> Generator[Frame]:
        if not len(asked_s):
            return
        with open_source(self._path, limits, self._watch) as source:
            painter = Painter(source, size)
            position = 0
            shown: tuple[float, VideoFrame] | None = None
            for time_s, frame in self._decoded(source, asked_s if skip else None):
                while shown is not None and position < len(asked_s):
                    if asked_s[position] + EPSILON_S >= time_s:
                        break
                    yield shown[0], painter.paint(shown[1])
                    position += 1
                if position == len(asked_s):
                    return
                shown = time_s, frame
            if shown is None:
                raise no_frames(source, source.damage)
            end_s = self._end_s(source)
            for wanted_s in asked_s[position:]:
                if wanted_s + EPSILON_S >= end_s:
                    seen = source.damage or "it ends"
                    raise truncated(self._path, f"{seen}, at {timestamp(max(end_s, 0.0))} of the film")
                yield shown[0], painter.paint(shown[1])

    def _end_s(self, source: VideoSource) -> float:
        """The time from which frames are missing; infinite where none are, or where that is tolerated."""
        if self._tolerate or source.complete:
            return float("inf")
        if source.horizon is None or self.first_stamp_s is None:
            return 0.0
        return source.horizon * float(source.stream.time_base or 0) - self.first_stamp_s

    def _decoded(
        self, source: VideoSource, asked_s: NDArray[np.float64] | None
    ) -> Iterator[tuple[float, VideoFrame]]:
        """Frames in the order shown, with their times; none that a missing part could change.

        Args:
            asked_s: frames that are not shown at these times may be left out.
        """
        clock = FrameClock(source)
        choice = PacketChoice(source, clock, asked_s)
        try:
            for packet, anew in choice.needed(source.packets(stop_at_damage=not self._tolerate)):
                if anew:
                    yield from self._emptied(source, clock)
                    source.stream.codec_context.flush_buffers()
                    source.restart = packet.pts
                clock.sent(packet)
                horizon = source.horizon
                yield from self._timed(source, clock, self._decode(source, clock, packet))
                if source.horizon != horizon:
                    break
            yield from self._emptied(source, clock)
        finally:
            self.complete &= source.complete
            if clock.origin == "guessed":
                self.origin = "guessed"

    def _emptied(self, source: VideoSource, clock: FrameClock) -> Iterator[tuple[float, VideoFrame]]:
        """The frames that the decoder still holds."""
        yield from self._timed(source, clock, self._decode(source, clock, None))
        if source.threaded and source.horizon is None and clock.tail_missing:
            raise ThreadedDecodingFailed
        if source.restart is not None:
            raise SkippingFailed

    def _decode(self, source: VideoSource, clock: FrameClock, packet: Packet | None) -> Sequence[VideoFrame]:
        try:
            return source.stream.codec_context.decode(packet)
        except (av.FFmpegError, ValueError, RuntimeError) as error:
            if source.threaded:
                raise ThreadedDecodingFailed from error
            if isinstance(error, MemoryError):
                raise
            clock.lost()
            if clock.frames > 0:  # a recording that starts between two key frames is not damaged
                before = source.horizon if packet is None else source.first_in_doubt(packet)
                source.note_damage(words_of(error), None if self._tolerate else before)
            return ()

    def _timed(
        self, source: VideoSource, clock: FrameClock, frames: Sequence[VideoFrame]
    ) -> Iterator[tuple[float, VideoFrame]]:
        for frame in frames:
            source.watch.check()
            stamp = clock.stamp_of(frame)
            if source.restart is not None:
                if stamp is None or stamp > source.restart:
                    raise SkippingFailed
                if stamp < source.restart:  # shown before the key frame: it needs frames that were left out
                    continue
                source.restart = None
            if frame.is_corrupt:
                source.note_damage("a frame is damaged", None if self._tolerate else stamp)
            if source.horizon is not None and stamp is not None and stamp >= source.horizon:
                return
            time_s = clock.time_s(stamp)
            self.first_stamp_s = clock.first_stamp_s
            if source.skipped and clock.origin == "guessed":
                raise SkippingFailed
            yield time_s, frame
