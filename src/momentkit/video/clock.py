"""Presentation stamps -> seconds since the first frame shown, rising from frame to frame."""

from collections import deque
from typing import Literal

from av.packet import Packet
from av.video.frame import VideoFrame

from momentkit.core.errors import VideoError
from momentkit.video.source import VideoSource

StampOrigin = Literal["stamped", "guessed"]


class FrameClock:
    """The times of one pass over a file.

    A frame without a stamp, or with one that does not come after the frame before it, is put one usual
    frame length after that frame, and `origin` turns to "guessed". AVI only numbers packets in the order
    stored: where frames are shown in another order, they take these numbers one after another.

    Attributes:
        origin: "stamped" while every time came from the file.
        first_stamp_s: the first frame's own stamp in seconds; None before it, or where it has none.
        frames: frames timed so far.
    """

    def __init__(self, source: VideoSource) -> None:
        self._source = source
        self._tick_s = float(source.stream.time_base or 0)
        self._order: deque[int | None] | None = deque() if source.reorders_unstamped else None
        self._latest_sent: int | None = None
        self._latest_seen: int | None = None
        self._first: int | None = None
        self._last_s = 0.0
        self.origin: StampOrigin = "stamped"
        self.first_stamp_s: float | None = None
        self.frames = 0
        if source.reorders_unstamped:
            self.origin = "guessed"

    def sent(self, packet: Packet) -> None:
        """Tell the clock which packet goes to the decoder."""
        if self._order is not None:
            self._order.append(packet.dts)
        elif packet.pts is not None and not packet.is_discard:
            self._latest_sent = max(packet.pts, self._latest_sent or packet.pts)

    @property
    def tail_missing(self) -> bool:
        """Whether the emptied decoder gave no frame for the last packet; with threads it hides errors."""
        return self.frames == 0 or (self._latest_sent or 0) > (self._latest_seen or 0)

    def lost(self) -> None:
        """Tell the clock that a packet gave no frame: the one whose frame was due."""
        if self._order:
            self._order.popleft()

    def stamp_of(self, frame: VideoFrame) -> int | None:
        """The frame's stamp in the stream's time base; each frame is asked for once, in order."""
        if self._order is not None:
            return self._order.popleft() if self._order else None
        if frame.pts is not None:
            self._latest_seen = max(frame.pts, self._latest_seen or frame.pts)
        return frame.pts

    def time_s(self, stamp: int | None) -> float:
        """The time of the next frame, given its stamp.

        Raises:
            VideoError: too_long, too_many_frames.
        """
        usual_s = self._source.frame_length_s
        if self.frames == 0:
            self._first = stamp
            self.first_stamp_s = None if stamp is None else stamp * self._tick_s
            time_s = 0.0
        elif stamp is None or self._first is None:
            time_s = self._last_s + usual_s
        else:
            time_s = (stamp - self._first) * self._tick_s
            if not time_s > self._last_s:
                stamp, time_s = None, self._last_s + usual_s
        if stamp is None:
            self.origin = "guessed"
        self._last_s = time_s
        self.frames += 1
        check_extent(self._source, time_s, self.frames)
        return time_s


def check_extent(source: VideoSource, time_s: float, frames: int) -> None:
    """Refuse a film that is longer than allowed.

    Raises:
        VideoError: too_long, too_many_frames.
    """
    limits = source.limits
    if not time_s <= limits.max_duration_s:
        raise VideoError(
            "too_long",
            f"{source.path} lasts {time_s:.1f} s or more; at most {limits.max_duration_s:g} s are read; "
            "cut it into parts",
        )
    if frames > limits.max_frames:
        raise VideoError("too_many_frames", f"{source.path} has more than {limits.max_frames} frames")
