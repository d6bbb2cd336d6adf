"""Which packets the frames asked for need; the others are read and looked at, but not decoded.

Left out are whole groups of pictures between two times asked for, what follows the last frame asked for in
its group, and H.264 frames that no other frame needs (`nal_ref_idc` 0) and that are not shown when asked.
Nothing is left out before the first frame is decoded, nor from the first thing on that is not in order: a cut
or damaged file, a stamp that is missing, repeated or out of order, parameter sets that change, an edit list
inside the film. A container's index is not used: reading packets costs little, and holes are looked for in
each.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

from momentkit.video.clock import FrameClock
from momentkit.video.source import VideoSource
from momentkit.video.syntax import PacketKind, syntax_of

EPSILON_S = 1e-6  # a time asked for as 5 * 0.2 means the frame stamped 1.0
_HELD_BYTES = 32 << 20  # of packets waiting for the next key frame; a longer group is decoded
_REORDER = 32  # more than any codec shows frames out of the order stored


class _Held(NamedTuple):
    packet: Packet
    pts: int
    dts: int
    disposable: bool


class PacketChoice:
    """The packets of one pass over a film, or those that it needs.

    Args:
        source, clock: of the pass.
        asked_s: (N,) seconds, not falling; None = every frame is wanted.
    """

    def __init__(self, source: VideoSource, clock: FrameClock, asked_s: NDArray[np.float64] | None) -> None:
        self._source, self._clock = source, clock
        self._tick_s = float(source.stream.time_base or 0)
        usable = asked_s is not None and self._tick_s > 0 and not source.cut
        self._syntax = syntax_of(source.container, source.stream) if usable else None
        self._until_s = np.array([]) if asked_s is None else asked_s + EPSILON_S
        self._highest: int | None = None
        self._latest_dts: int | None = None
        self._pending: set[int] = set()  # stamps that a later packet could repeat
        self._given: deque[int] = deque(maxlen=_REORDER)

    def needed(self, packets: Iterator[Packet]) -> Iterator[tuple[Packet, bool]]:
        """Packets to decode, in the order stored, and whether the decoder starts anew with this one.

        A frame is never shown before its packet's decoding stamp: once that has passed a time, all frames
        shown until then are known, and so is whether a later key frame could have served.
        """
        held: list[_Held] = []
        held_bytes, gap = 0, False
        for packet in packets:
            kind = self._kind_of(packet)
            if kind is None or packet.pts is None or packet.dts is None:
                yield from self._give(held, gap)
                held, held_bytes, gap = [], 0, False
                yield packet, False
                continue
            if held:
                until_s = self._asked_from(held[0].dts)
                if until_s is None:  # every frame asked for is on its way
                    return
                restarts = kind.restarts and self._time_s(packet.pts) <= until_s
                if restarts and (gap or len(held) > self._source.limits.decoder_threads):
                    self._leave_out(len(held))
                    held, held_bytes, gap = [], 0, True
                elif self._time_s(packet.dts) > until_s or held_bytes > _HELD_BYTES:
                    yield from self._give(held, gap)
                    held, held_bytes, gap = [], 0, False
            held.append(_Held(packet, packet.pts, packet.dts, kind.disposable))
            held_bytes += packet.size
        yield from self._give(held, gap)

    def _kind_of(self, packet: Packet) -> PacketKind | None:
        """None where the packet goes to the decoder whatever is asked for."""
        if self._syntax is None:
            return None
        started = self._clock.frames > 0
        kind = self._syntax.kind_of(packet)
        if kind is None or not self._is_in_order(packet, started):
            self._syntax = None
            return None
        pts = packet.pts or 0
        if kind.restarts and self._highest is not None and self._highest >= pts:
            kind = PacketKind(restarts=False)  # a frame stored before it is shown after it
        self._highest = pts if self._highest is None else max(pts, self._highest)
        return kind if started else None

    def _is_in_order(self, packet: Packet, started: bool) -> bool:
        """Whether the clock, had it seen every frame, would take each one's own stamp."""
        pts, dts = packet.pts, packet.dts
        if self._source.damage or self._clock.origin != "stamped" or pts is None or pts in self._pending:
            return False
        if started and (dts is None or packet.is_discard):  # Matroska leaves the first few out
            return False
        if started and (packet.has_sidedata("new_extradata") or packet.has_sidedata("param_change")):
            return False
        if dts is not None:
            if dts > pts or (self._latest_dts is not None and dts <= self._latest_dts):
                return False
            self._latest_dts = dts
            self._pending = {one for one in self._pending if one >= dts}
        self._pending.add(pts)
        return True

    def _give(self, held: Sequence[_Held], gap: bool) -> Iterator[tuple[Packet, bool]]:
        known = np.array(sorted({*self._given, *(one.pts for one in held)}))
        for one in held:
            if self._syntax is not None and one.disposable and self._is_hidden(one.pts, known):
                self._leave_out(1)
                continue
            self._given.append(one.pts)
            yield one.packet, gap
            gap = False

    def _is_hidden(self, pts: int, known: NDArray[np.int64]) -> bool:
        """Whether another frame is shown from the next time on that this one could be shown at."""
        later = np.searchsorted(known, pts, "right")
        until_s = self._asked_from(pts)
        return bool(later < len(known)) and (until_s is None or self._time_s(int(known[later])) <= until_s)

    def _leave_out(self, frames: int) -> None:
        self._source.skipped = True
        self._clock.frames += frames

    def _asked_from(self, stamp: int) -> float | None:
        """The first time asked for that is not before a stamp, the tolerance added; None after the last."""
        position = int(np.searchsorted(self._until_s, self._time_s(stamp)))
        return float(self._until_s[position]) if position < len(self._until_s) else None

    def _time_s(self, stamp: int) -> float:
        """As the clock has it, to the last bit."""
        return (stamp - round((self._clock.first_stamp_s or 0.0) / self._tick_s)) * self._tick_s
