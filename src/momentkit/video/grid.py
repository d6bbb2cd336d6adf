"""The frame grid of a film: its exact rate, its number of frames, the time code of its first frame.

Editors count in frames, at rates such as 30000/1001 whose time code drops numbers to keep up with the clock.
A stretch of seconds becomes frames in one place, here, so that every format names the same ones.

Units   _s seconds from the first shown frame; frame numbers from 0, ends exclusive.
Source  drop-frame counting: SMPTE ST 12-1 (two numbers a minute, but not each tenth minute)
"""

import math
import re
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from momentkit.core.errors import VideoError
from momentkit.video.limits import DEFAULT_LIMITS, Stopwatch, VideoLimits
from momentkit.video.probe import VideoInfo, probe
from momentkit.video.source import VideoSource, open_source

_STANDARD = tuple(
    Fraction(rate)
    for rate in ("24000/1001", 24, 25, "30000/1001", 30, 48, 50, "60000/1001", 60, 100, "120000/1001", 120)
)
_NEAR = 2e-4  # containers round the rate; 24 and 24000/1001 are five times as far apart
_TIMECODE = re.compile(r"(\d\d):([0-5]\d):([0-5]\d)([:;.])(\d\d)")


@dataclass(frozen=True, kw_only=True)
class FrameGrid:
    """Frames of a film as an editor counts them.

    Attributes:
        rate: frames per second, exact.
        frames: of the film.
        first_frame: number that the film's own time code gives its first frame; 0 where it has none.
        drop: whether that time code drops numbers.
        steady: False where frames come at uneven times, so that frame numbers are those of an editor that
            conforms the film to `rate`.
    """

    rate: Fraction
    frames: int
    first_frame: int = 0
    drop: bool = False
    steady: bool = True

    def stretch(self, start_s: float, end_s: float) -> tuple[int, int]:
        """The first frame of a stretch and the one after its last: nearest borders, at least one frame."""
        first = min(max(_nearest(start_s * self.rate), 0), self.frames - 1)
        return first, max(min(_nearest(end_s * self.rate), self.frames), first + 1)

    def seconds(self, frame: int) -> float:
        """When a frame begins."""
        return float(frame / self.rate)


def _nearest(frames: float | Fraction) -> int:
    return math.floor(frames + Fraction(1, 2))


def frame_grid(
    path: str | Path, limits: VideoLimits = DEFAULT_LIMITS, info: VideoInfo | None = None
) -> FrameGrid:
    """Measure the grid of a film.

    Args:
        path: the film.
        limits: what it may cost.
        info: what `probe` said, where that is known.

    Raises:
        VideoError: the film cannot be read.
    """
    if limits.sandbox:
        from momentkit.video.sandbox import ask

        return ask(FrameGrid, "grid", path, limits, info=info and {**asdict(info), "path": str(path)})
    info = info or probe(path, limits)
    with open_source(path, limits, Stopwatch(str(path), limits)) as source:
        rate = _rate(source, info)
        written = _written_timecode(source)
    frames = max(1, _nearest(Fraction(info.duration_s) * rate))
    drop = ";" in written if written else rate in (Fraction(30000, 1001), Fraction(60000, 1001))
    first = frame_number(written, rate) if written else 0
    return FrameGrid(
        rate=rate, frames=frames, first_frame=first, drop=drop, steady=abs(frames - info.frames) <= 1
    )


def frame_number(timecode: str, rate: Fraction) -> int:
    """Time code -> frame number; with ";" or "." before the frames, numbers are dropped.

    >>> frame_number("00:01:00;02", Fraction(30000, 1001)), frame_number("00:01:00:02", Fraction(30))
    (1800, 1802)
    """
    match = _TIMECODE.fullmatch(timecode)
    if match is None:
        raise ValueError(f"{timecode!r} is no time code")
    hours, minutes, seconds, mark, frames = match.groups()
    nominal = round(rate)
    whole_minutes = 60 * int(hours) + int(minutes)
    number = (60 * whole_minutes + int(seconds)) * nominal + int(frames)
    if mark == ":":
        return number
    return number - nominal // 15 * (whole_minutes - whole_minutes // 10)


def _rate(source: VideoSource, info: VideoInfo) -> Fraction:
    """The mean rate where a film is steady, snapped to the standard one it stands for."""
    stream = source.stream
    found = [Fraction(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate and rate > 0]
    for rate in found:
        for standard in _STANDARD:
            if abs(rate / standard - 1) < _NEAR:
                return standard
    if found:
        return found[0].limit_denominator(1001)
    if not info.duration_s > 0:
        raise VideoError("no_frames", f"{source.path} has no frame rate; convert it to H.264")
    return Fraction(info.frames / info.duration_s).limit_denominator(1001)


def _written_timecode(source: VideoSource) -> str:
    """The time code that the file carries for its first frame; "" where it carries none that can be read."""
    places = [source.stream.metadata, source.container.metadata]
    places += [stream.metadata for stream in source.container.streams.data]
    found = next((place["timecode"] for place in places if "timecode" in place), "")
    return found if _TIMECODE.fullmatch(found) else ""
