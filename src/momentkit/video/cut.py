"""Stretches of a film into a new mp4: copied as they are stored, or encoded again, exact to the frame.

A stored stream can be entered at a key frame only. A copy therefore begins at the key frame before each
stretch and may end with frames that others were predicted from; it costs no quality and hardly any time. An
exact cut shows frame k at k / rate and nothing else. Sound is copied in both: its packets of about 20 ms
follow the picture.
"""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.reformatter import Colorspace

from momentkit.core.errors import MomentkitError, VideoError
from momentkit.core.files import atomic_write
from momentkit.core.timeline import timestamp
from momentkit.video.grid import FrameGrid, frame_grid
from momentkit.video.limits import DEFAULT_LIMITS, Stopwatch, VideoLimits
from momentkit.video.probe import probe
from momentkit.video.reader import open_video
from momentkit.video.source import VideoSource, open_source, words_of

_COPIED_PICTURES = frozenset(("h264", "hevc", "av1", "libdav1d", "libaom-av1", "vp9", "mpeg4", "mpeg2video"))
_COPIED_SOUNDS = frozenset(("aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus", "alac", "flac"))
_QUALITY = {"crf": "17", "preset": "medium"}  # of x264: looks like the source
_HD_LINES = 720  # as `picture` reads untagged films
_COLOUR_TAGS = {Colorspace.ITU709: 1, Colorspace.ITU601: 6}  # AVCOL_*_BT709, AVCOL_*_SMPTE170M

Stretch = tuple[int, int]
"""First frame and the frame after the last."""


@dataclass(frozen=True, kw_only=True)
class CutReport:
    """What a cut film holds.

    Attributes:
        path: the new film.
        exact: encoded again, else copied.
        asked: the stretches asked for.
        taken_s: what each became: start and end in seconds of the source.
        rate: of the source.
        sound: what became of it, for a person; "" where it was copied or there was none.
    """

    path: Path
    exact: bool
    asked: tuple[Stretch, ...]
    taken_s: tuple[tuple[float, float], ...]
    rate: Fraction
    sound: str = ""

    @property
    def sentence(self) -> str:
        """How it was cut and how far that is from what was asked, in one sentence."""
        count = f"{len(self.asked)} stretch{'es' if len(self.asked) > 1 else ''}"
        sound = f"; {self.sound}" if self.sound else ""
        if self.exact:
            frames = sum(end - first for first, end in self.asked)
            return f"{self.path.name}: {count}, {frames} frames encoded again, exact to the frame{sound}"
        borders = zip(self.asked, self.taken_s, strict=True)
        extra = [(float(a / self.rate) - c, d - float(b / self.rate)) for (a, b), (c, d) in borders]
        early, late = (max(0.0, *seconds) for seconds in zip(*extra, strict=True))
        return (
            f"{self.path.name}: {count} copied without loss from the key frame before each: starts up to "
            f"{early:.2f} s early and ends up to {late:.2f} s late{sound}"
        )


def cut_film(
    film: str | Path,
    stretches: Sequence[Stretch],
    target: str | Path,
    *,
    exact: bool = False,
    grid: FrameGrid | None = None,
    limits: VideoLimits = DEFAULT_LIMITS,
) -> CutReport:
    """Write stretches of a film behind each other into an mp4.

    Args:
        film: the source; never written to.
        stretches: frames of `grid`, in order of time, not overlapping.
        target: the new file.
        exact: encode again so that it holds these frames only; else copy from the key frame before each.
        grid: of the film, where it is known.
        limits: what the film may cost.

    Raises:
        MomentkitError: the codec cannot be copied into an mp4, the target is the film, or cannot be written.
        VideoError: the film cannot be read.
    """
    film, target = Path(film), Path(target)
    if not stretches:
        raise MomentkitError(f"there is nothing to cut from {film.name}: no moment was found")
    if target.exists() and target.samefile(film):
        raise MomentkitError(f"{target} is the film itself; name another file for the cut")
    grid = grid or frame_grid(film, limits)
    if any(end <= start for start, end in stretches) or any(b[0] < a[1] for a, b in pairwise(stretches)):
        raise ValueError(f"stretches must rise and not overlap, got {stretches!r}")
    work = _encode if exact else _copy
    taken: list[tuple[tuple[float, float], ...]] = []
    sounds: list[str] = []

    def write(path: Path) -> None:
        seconds, sound = work(film, stretches, path, grid, limits)
        taken.append(tuple(seconds))
        sounds.append(sound)

    atomic_write(target, write)
    return CutReport(
        path=target,
        exact=exact,
        asked=tuple(stretches),
        taken_s=taken[0],
        rate=grid.rate,
        sound=sounds[0],
    )


def _copy(
    film: Path, stretches: Sequence[Stretch], path: Path, grid: FrameGrid, limits: VideoLimits
) -> tuple[list[tuple[float, float]], str]:
    info = probe(film, limits)
    keys = _key_stamps(film, limits)
    with open_source(film, limits, Stopwatch(str(film), limits)) as source:
        name = source.stream.codec_context.name
        if name not in _COPIED_PICTURES or not keys:
            raise MomentkitError(
                f"{film.name} is coded as {name}, which does not go into an mp4 as it is; cut it with --exact"
            )
        with av.open(str(path), "w", format="mp4") as output:
            joiner = _Joiner(source, output, info.first_stamp_s)
            taken = []
            for first, end in stretches:
                taken.append(joiner.add(keys, grid.seconds(first), grid.seconds(end)))
    return taken, joiner.sound_note


def _key_stamps(film: Path, limits: VideoLimits) -> list[int]:
    """Presentation stamps of the key frames, rising; one pass that decodes nothing."""
    with open_source(film, limits, Stopwatch(str(film), limits)) as source:
        packets = source.packets(stop_at_damage=True)
        return sorted(
            packet.pts
            for packet in packets
            if packet.is_keyframe and packet.pts is not None and not packet.is_discard
        )


class _Joiner:
    """Copies packets of stretches so that each begins where the one before ended."""

    def __init__(self, source: VideoSource, output: OutputContainer, first_stamp_s: float) -> None:
        self._source, self._output = source, output
        self._first_s = first_stamp_s
        self._video = output.add_stream_from_template(source.stream, opaque=True)
        self._sound_in, self._sound, self.sound_note = _sound_stream(source.container, output)
        self._time = Fraction(0)  # of the new film, where the next stretch goes
        self._lead = 0  # ticks that decoding runs ahead of showing, the most so far
        self._last_decoded: int | None = None

    def add(self, keys: list[int], start_s: float, end_s: float) -> tuple[float, float]:
        """Copy a stretch; gives the seconds of the source that were taken."""
        stream = self._source.stream
        tick = Fraction(stream.time_base or Fraction(1, 90000))
        half_frame = self._source.frame_length_s / 2
        key = keys[max(bisect.bisect_right(keys, (start_s + self._first_s + half_frame) / tick) - 1, 0)]
        end = (end_s + self._first_s - half_frame) / tick
        origin = key * tick  # seconds of the source that become `self._time`
        stamps = [(packet.pts or 0, packet.duration or 0) for packet in self._pictures(key, end)]
        if not stamps:
            raise VideoError("truncated", f"{self._source.path}: no frame at {timestamp(start_s)}")
        length = max(stamp + duration for stamp, duration in stamps) * tick - origin
        # When each is decoded: as early as the order of showing allows. Some containers do not say.
        shown = sorted(stamp for stamp, _ in stamps)
        self._lead = max(self._lead, *(a - b for a, (b, _) in zip(shown, stamps, strict=True)))
        if self._last_decoded is not None:
            late = self._last_decoded + 1 - (round(self._time / tick) - self._lead)
            self._time += max(late, 0) * tick
        moved = round(self._time / tick) - key
        pictures = islice(self._pictures(key, end), len(stamps))
        for packet, decoded in zip(pictures, shown, strict=True):
            packet.pts, packet.dts = (packet.pts or 0) + moved, decoded - self._lead + moved
            packet.stream = self._video
            self._last_decoded = packet.dts
            _mux(self._output, packet)
        if self._sound_in is not None and self._sound is not None:
            _copy_sound(self._source, self._sound_in, self._sound, self._output, origin, length, self._time)
        self._time += length
        return float(origin) - self._first_s, float(origin + length) - self._first_s

    def _pictures(self, key: int, end: float) -> Iterator[Packet]:
        """Packets from a key frame up to the last that is shown before the end, in the order stored.

        Frames shown before the key frame are left out. Frames that others are predicted from are stored
        before them: one of these that is shown after the end moves the end, so that no frame is missing.
        """
        held: list[Packet] = []
        for packet in _packets_from(self._source.container, self._source.stream, key):
            self._source.watch.check()
            if packet.pts is None or packet.pts < key:
                continue
            if packet.dts is not None and packet.dts >= end:
                return
            held.append(packet)
            if packet.pts < end:
                end = max(end, *(one.pts + 1 for one in held if one.pts is not None))
                yield from held  # the caller moves their stamps
                held = []


def _packets_from(container: InputContainer, stream: Stream, key: int) -> Iterator[Packet]:
    """Packets of a stream from the one stamped `key` on; from the beginning where seeking overshoots."""
    for place in (key, None):
        container.seek(key if place is not None else stream.start_time or 0, stream=stream, backward=True)
        packets = (packet for packet in container.demux(stream) if packet.size)
        for packet in packets:
            if packet.pts == key:
                yield packet
                yield from packets
                return
            if packet.dts is not None and packet.dts > key:
                break


def _mux(output: OutputContainer, packets: Packet | Sequence[Packet]) -> None:
    """Write; what goes wrong here is no fault of the film."""
    try:
        output.mux(packets)
    except (av.FFmpegError, OSError) as error:
        raise MomentkitError(f"cannot write the cut: {words_of(error)}") from error


def _sound_stream(
    container: InputContainer, output: OutputContainer
) -> tuple[Stream | None, Stream | None, str]:
    """The first audio stream and its copy in the output; None and a note where it cannot be copied."""
    sounds = container.streams.audio
    if not sounds:
        return None, None, ""
    sound = sounds[0]
    name = sound.codec_context.name if sound.codec_context is not None else "something unknown"
    if name not in _COPIED_SOUNDS:
        return None, None, f"without sound: {name} does not go into an mp4 as it is"
    return sound, output.add_stream_from_template(sound, opaque=True), ""


def _copy_sound(
    source: VideoSource,
    sound_in: Stream,
    sound_out: Stream,
    output: OutputContainer,
    origin: Fraction,
    length: Fraction,
    time: Fraction,
) -> None:
    """Sound packets that begin in [origin, origin + length) of the source, moved to `time`."""
    tick = Fraction(sound_in.time_base or Fraction(1, 48000))
    source.container.seek(int(origin / tick), stream=sound_in, backward=True)
    for packet in source.container.demux(sound_in):
        source.watch.check()
        if packet.pts is None or not packet.size or packet.pts * tick < origin:
            continue
        if packet.pts * tick >= origin + length:
            return
        moved = round((time - origin) / tick)
        packet.pts += moved
        packet.dts = packet.pts
        packet.stream = sound_out
        _mux(output, packet)


def _encode(
    film: Path, stretches: Sequence[Stretch], path: Path, grid: FrameGrid, limits: VideoLimits
) -> tuple[list[tuple[float, float]], str]:
    info = probe(film, limits)
    # Asked a quarter of a frame late, so that no rounding of stamps shows the neighbour.
    times_s = [float((frame + Fraction(1, 4)) / grid.rate) for one in stretches for frame in range(*one)]
    size = (info.height - info.height % 2, info.width - info.width % 2)  # 4:2:0 has no odd sizes
    first_s = Fraction(info.first_stamp_s)
    with (
        open_source(film, limits, Stopwatch(str(film), limits)) as source,
        open_video(film, limits) as reader,
        av.open(str(path), "w", format="mp4") as output,
    ):
        video = output.add_stream("libx264", rate=grid.rate, options=_QUALITY)
        video.height, video.width, video.pix_fmt = *size, "yuv420p"
        space = Colorspace.ITU709 if size[0] >= _HD_LINES else Colorspace.ITU601
        _tag_colours(video.codec_context, _COLOUR_TAGS[space])
        sound_in, sound_out, note = _sound_stream(source.container, output)
        pictures, done = reader.frames_at(times_s, size), 0
        for first, end in stretches:
            for index, (_, picture) in enumerate(islice(pictures, end - first), done):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace=space)
                frame.pts, frame.time_base = index, 1 / grid.rate
                _mux(output, video.encode(frame))
            if sound_in is not None and sound_out is not None:
                origin, length = first / grid.rate + first_s, (end - first) / grid.rate
                _copy_sound(source, sound_in, sound_out, output, origin, length, done / grid.rate)
            done += end - first
        _mux(output, video.encode(None))
    return [(grid.seconds(first), grid.seconds(end)) for first, end in stretches], note


def _tag_colours(context: Any, tag: int) -> None:
    """Say which matrix the colours were made with, so that no player has to guess by the size."""
    context.colorspace = tag
    context.color_primaries = tag
    context.color_trc = tag
    context.color_range = 1  # AVCOL_RANGE_MPEG
