"""What a file claims and what was measured, and which of the two we believe: always the second."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
from av.packet import Packet
from av.video.frame import VideoFrame

from momentkit.video.clock import FrameClock, StampOrigin, check_extent
from momentkit.video.limits import DEFAULT_LIMITS, Stopwatch, VideoLimits
from momentkit.video.picture import orientation_of, shown_size
from momentkit.video.source import VideoSource, no_frames, open_source, truncated, words_of

_REORDER = 20  # more than any codec shows frames out of the order stored
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # AVCOL_TRC_SMPTE2084, AVCOL_TRC_ARIB_STD_B67


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """A film, measured by reading every packet and decoding the first frame.

    Attributes:
        path: the file.
        container, codec: their FFmpeg names.
        height, width: pixels of the upright frame with square pixels, as a player shows it.
        rotation_degrees: 0, 90, 180 or 270, the counter-clockwise turn that makes it upright.
        mirrored: whether it is also mirrored.
        duration_s: last frame's time plus that frame's own length; for a cut file, up to the cut.
        last_frame_s: time of the last frame that is whole.
        frames: packets of the video stream, one a frame.
        claimed_duration_s: what the header says; None where it says nothing.
        first_stamp_s: the first shown frame's own stamp, which all times here are counted from.
        stamps: "guessed" where the file has no usable presentation stamps.
        complete: False where bytes are missing or damaged.
        has_audio: whether there is an audio stream.
        video_streams: how many films the file holds; the largest default one is read.
        hdr: "PQ" or "HLG" for high dynamic range, whose colours come out flat; "" otherwise.
    """

    path: Path
    container: str
    codec: str
    height: int
    width: int
    rotation_degrees: int
    mirrored: bool
    duration_s: float
    last_frame_s: float
    frames: int
    claimed_duration_s: float | None
    first_stamp_s: float
    stamps: StampOrigin
    complete: bool
    has_audio: bool
    video_streams: int
    hdr: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know, a sentence each."""
        found = []
        claimed = self.claimed_duration_s
        if claimed is not None and not abs(claimed - self.duration_s) <= 0.05 * max(self.duration_s, 1.0):
            found.append(f"the header says {claimed:.2f} s, the film lasts {self.duration_s:.2f} s")
        if not self.complete:
            found.append(f"the file is cut off or damaged; {self.duration_s:.2f} s are whole")
        if self.stamps == "guessed":
            found.append("frames without usable time stamps: their times follow from order and rate")
        if self.video_streams > 1:
            found.append(f"the largest of {self.video_streams} video streams is read")
        if self.hdr:
            found.append(f"high dynamic range ({self.hdr}): colours come out flat")
        return tuple(found)


def probe(path: str | Path, limits: VideoLimits = DEFAULT_LIMITS) -> VideoInfo:
    """Measure a film: one pass over its packets, of which only the first frame is decoded.

    Raises:
        VideoError: whatever is wrong with the file; a cut is no error here but `complete=False`, unless
            nothing of the film is there.
    """
    if limits.sandbox:
        from momentkit.video.sandbox import ask

        return replace(ask(VideoInfo, "probe", path, limits), path=Path(path))
    one_thread = replace(limits, threads=1)  # one frame is decoded, and an error must belong to its packet
    with open_source(path, one_thread, Stopwatch(str(path), limits)) as source:
        survey = _Survey(source)
        for packet in source.packets(stop_at_damage=True):
            survey.add(packet)
        return survey.result()


def measure_duration(path: str | Path, limits: VideoLimits = DEFAULT_LIMITS) -> float:
    """Duration in seconds: the last frame's time plus its own length, whatever the header says."""
    return probe(path, limits).duration_s


class _Survey:
    """Stamps of all packets, reduced as they come: nothing grows with the length of the film."""

    def __init__(self, source: VideoSource) -> None:
        self._source = source
        self._clock = FrameClock(source)
        self._first: VideoFrame | None = None
        self._latest: list[tuple[int, int]] = []  # (stamp, duration) of the latest frames, latest first
        self._unstamped = 0
        self._failure = ""
        self._count = 0

    def add(self, packet: Packet) -> None:
        if self._first is None:
            self._clock.sent(packet)
            self._first = next(self._decode(packet), None)
        if packet.is_discard:
            return
        self._count += 1
        stamp = packet.dts if self._source.reorders_unstamped or packet.pts is None else packet.pts
        if stamp is None:
            self._unstamped += 1
            return
        self._latest = sorted([*self._latest, (stamp, packet.duration or 0)], reverse=True)[:_REORDER]
        self._check(stamp)

    def _check(self, stamp: int) -> None:
        tick_s = float(self._source.stream.time_base or 0)
        first_s = (self._source.stream.start_time or 0) * tick_s
        check_extent(self._source, stamp * tick_s - first_s, self._count)

    def _decode(self, packet: Packet | None) -> Iterator[VideoFrame]:
        try:
            yield from self._source.stream.codec_context.decode(packet)
        except (av.FFmpegError, ValueError, RuntimeError) as error:
            if isinstance(error, MemoryError):
                raise
            self._clock.lost()
            self._failure = words_of(error)

    def result(self) -> VideoInfo:
        source = self._source
        first = self._first or next(self._decode(None), None)
        if first is None:
            raise no_frames(source, self._failure)
        self._clock.time_s(self._clock.stamp_of(first))
        first_s = self._clock.first_stamp_s or 0.0
        last_s, end_s = self._last_frame(first_s)
        check_extent(source, end_s, self._count)
        orientation = orientation_of(first)
        height, width = orientation.size(*shown_size(source, first))
        context = source.stream.codec_context
        return VideoInfo(
            path=source.path,
            container=source.container.format.name,
            codec=context.name,
            height=height,
            width=width,
            rotation_degrees=orientation.rotation_degrees,
            mirrored=orientation.mirrored,
            duration_s=end_s,
            last_frame_s=last_s,
            frames=self._count,
            claimed_duration_s=_claimed_s(source),
            first_stamp_s=first_s,
            stamps="guessed" if self._unstamped else self._clock.origin,
            complete=source.complete,
            has_audio=bool(source.container.streams.audio),
            video_streams=source.video_streams,
            hdr=_HDR_TRANSFERS.get(int(first.color_trc), ""),
        )

    def _last_frame(self, first_s: float) -> tuple[float, float]:
        """Time of the last whole frame and of the film's end, in seconds."""
        tick_s = float(self._source.stream.time_base or 0)
        usual_s = self._source.frame_length_s
        horizon = self._source.horizon
        whole = [pair for pair in self._latest if horizon is None or pair[0] < horizon]
        if not whole:
            if horizon is not None:
                raise truncated(self._source.path, "no frame of it is whole")
            return (self._count - 1) * usual_s, self._count * usual_s
        stamp, duration = whole[0]
        last_s = max(stamp * tick_s - first_s, 0.0, (self._count - 1) * usual_s if self._unstamped else 0.0)
        if horizon is not None:
            return last_s, max(horizon * tick_s - first_s, last_s)
        gap_s = (stamp - whole[1][0]) * tick_s if len(whole) > 1 else 0.0
        return last_s, last_s + (duration * tick_s or gap_s or usual_s)


def _claimed_s(source: VideoSource) -> float | None:
    if source.stream.duration:
        return float(source.stream.duration * (source.stream.time_base or 0))
    return source.container.duration / av.time_base if source.container.duration else None
