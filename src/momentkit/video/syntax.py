"""What a packet's own bytes say about leaving packets undecoded; no flag of a container is believed alone.

Sources  ITU-T H.264 7.3.1, 7.3.2.1.1, 7.4.1 (IDR, nal_ref_idc); H.265 7.4.2.2 (IRAP); ISO/IEC 14496-15 (avcC,
         hvcC); VP9 bitstream 6.2 (a key frame replaces every reference and every stored probability)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

_H264_PICTURE = frozenset((1, 2, 3, 4, 5, 14, 19, 20, 21))  # slices, their parts, and those of other layers
_H264_IDR, _H264_SLICE = 5, 1
_H264_SETS = frozenset((7, 8, 13, 15))
_HEVC_SETS = frozenset((32, 33, 34))
_HEVC_RANDOM_ACCESS = range(16, 22)
_FREXT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)  # profiles that say their chroma


@dataclass(frozen=True, slots=True)
class PacketKind:
    """What follows from a packet's bytes.

    Attributes:
        restarts: frames shown from this one on need nothing that is stored before it.
        disposable: no other frame needs this one.
    """

    restarts: bool
    disposable: bool = False


class Syntax(Protocol):
    """Reads the packets of one kind of stream."""

    def kind_of(self, packet: Packet) -> PacketKind | None:
        """None where the bytes are not as they must be."""


def syntax_of(container: InputContainer, stream: VideoStream) -> Syntax | None:
    """How to read a stream's packets; None where order and stamps of the container prove nothing.

    mp4 and Matroska store a stamp with each frame. MPEG-TS may lose packets, AVI has no stamps, bare streams
    neither; of other codecs the bytes are not read here.
    """
    if not container.format.name.startswith(("mov,", "matroska")):
        return None
    name, extra = stream.codec_context.name, bytes(stream.codec_context.extradata or b"")
    try:
        if name == "h264":
            return _H264(extra)
        if name == "hevc":
            return _Hevc(extra)
    except (ValueError, IndexError):
        return None
    return _Vp9() if name == "vp9" else None


class _Vp9:
    def kind_of(self, packet: Packet) -> PacketKind | None:
        first = bytes(memoryview(packet)[:1])
        if not first or first[0] >> 6 != 2 or first[0] & 0x30 == 0x30:  # mark of a frame; profile 3 is rare
            return None
        return PacketKind(
            restarts=packet.is_keyframe and not first[0] & 0b1100
        )  # neither shown again nor inter


class _Units:
    """A stream of units, each led by its length; parameter sets may only be those of the header."""

    def __init__(self, length_bytes: int, sets: frozenset[bytes]) -> None:
        self._length_bytes, self._sets = length_bytes, sets

    def _units(self, packet: Packet) -> Iterator[memoryview]:
        content, at = memoryview(packet), 0
        while at < len(content):
            start = at + self._length_bytes
            at = start + int.from_bytes(content[start - self._length_bytes : start], "big")
            if at > len(content) or at <= start:
                raise ValueError("a unit that is empty or longer than its packet")
            yield content[start:at]


class _H264(_Units):
    def __init__(self, extra: bytes) -> None:
        if extra[0] != 1 or extra[5] & 31 != 1:
            raise ValueError("no avcC box with one sequence parameter set")
        sequence, at = _counted(extra, 6, 1)
        pictures, _ = _counted(extra, at + 1, extra[at])
        super().__init__((extra[4] & 3) + 1, frozenset((*sequence, *pictures)))
        self._whole_frames = _has_whole_frames_only(sequence[0])

    def kind_of(self, packet: Packet) -> PacketKind | None:
        kinds, references = set(), 0
        try:
            for unit in self._units(packet):
                kind = unit[0] & 31
                if kind in _H264_SETS and bytes(unit) not in self._sets:
                    return None
                kinds.add(kind)
                references |= unit[0] & 0x60 if kind in _H264_PICTURE else 0
        except ValueError:
            return None
        pictures = kinds & _H264_PICTURE
        return PacketKind(
            restarts=packet.is_keyframe and pictures == {_H264_IDR},
            disposable=self._whole_frames and pictures == {_H264_SLICE} and not references,
        )


class _Hevc(_Units):
    def __init__(self, extra: bytes) -> None:
        if extra[0] != 1:
            raise ValueError("no hvcC box")
        sets, at = [], 23
        for _ in range(extra[22]):
            found, at = _counted(extra, at + 3, int.from_bytes(extra[at + 1 : at + 3], "big"))
            sets += found
        super().__init__((extra[21] & 3) + 1, frozenset(sets))

    def kind_of(self, packet: Packet) -> PacketKind | None:
        restarts = packet.is_keyframe
        try:
            for unit in self._units(packet):
                kind = unit[0] >> 1 & 63
                if kind in _HEVC_SETS and bytes(unit) not in self._sets:
                    return None
                if kind < 32:
                    layer = (unit[0] & 1) << 5 | unit[1] >> 3
                    restarts &= kind in _HEVC_RANDOM_ACCESS and layer == 0
        except (ValueError, IndexError):
            return None
        return PacketKind(restarts=restarts)  # which frames are disposable depends on the layers of time


def _counted(extra: bytes, at: int, count: int) -> tuple[list[bytes], int]:
    """So many parameter sets, each led by two bytes of length, and where they end."""
    found = []
    for _ in range(count):
        length = int.from_bytes(extra[at : at + 2], "big")
        found.append(extra[at + 2 : at + 2 + length])
        at += 2 + length
        if at > len(extra):
            raise ValueError("a parameter set that is longer than its box")
    return found, at


def _has_whole_frames_only(sequence: bytes) -> bool:
    """`frame_mbs_only_flag` of H.264: no frame comes as two fields, of which one may be disposable alone.

    False also where the order of showing follows from other rules than stored numbers.
    """
    content = sequence.replace(b"\0\0\3", b"\0\0")
    bits = iter("".join(f"{byte:08b}" for byte in content[4:]))
    try:
        _golomb(bits)
        if content[1] in _FREXT:
            if _golomb(bits) == 3:
                next(bits)
            _golomb(bits), _golomb(bits), next(bits)
            if next(bits) == "1":  # matrices, of no fixed length
                return False
        _golomb(bits)
        if _golomb(bits) != 0:
            return False
        _golomb(bits), _golomb(bits), next(bits), _golomb(bits), _golomb(bits)
        return next(bits) == "1"
    except StopIteration:
        return False


def _golomb(bits: Iterator[str]) -> int:
    zeros = 0
    while next(bits) == "0":
        zeros += 1
    return int("1" + "".join(islice(bits, zeros)), 2) - 1
