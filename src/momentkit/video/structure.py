"""Does a file end where its container says? Answered from the sizes in its headers, without decoding.

A Matroska file cut at 60 % opens and decodes without any error, and its header still gives the old duration,
so a cut is looked for where it cannot hide: an outer element that reaches past the end of the file.

Sources   ISO/IEC 14496-12 section 4.2 (boxes), RFC 8794 section 6 (EBML), RIFF/OpenDML, ISO/IEC 13818-1 (188)
"""

import os
from pathlib import Path
from typing import BinaryIO

_MAX_ELEMENTS = (
    2_000_000  # a live Matroska file is walked block by block; an attacker's is not walked for ever
)
_EBML = b"\x1a\x45\xdf\xa3"
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"pnot", b"sidx", b"uuid")


def is_cut(path: Path) -> bool:
    """Whether bytes are missing at the end of a file; False where nothing shows it.

    A transport stream cut between two packets, and a fragmented film cut between two fragments, cannot be
    told from a whole one.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(16)
        if head[4:8] in _BOXES:
            return _boxes_cut(file, size)
        if head[:4] == _EBML:
            return _ebml_cut(file, size)
        if head[:4] == b"RIFF":
            return _riff_cut(file, size)
        return _packets_cut(file, size)


def _boxes_cut(file: BinaryIO, size: int) -> bool:
    position = 0
    for _ in range(_MAX_ELEMENTS):
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return bool(head)  # a part of a header: the cut went through it
        if not head[4:8].isalnum():  # bytes that belong to no box
            return False
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: the last box, to the end of the file, whatever that is; 2 to 7: no box at all
            return False
        position += length
        if position > size:
            return True
    return False


def _riff_cut(file: BinaryIO, size: int) -> bool:
    position = 0
    for _ in range(_MAX_ELEMENTS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or head[:4] != b"RIFF":
            return False
        length = int.from_bytes(head[4:8], "little")
        if length in (0, 0xFFFFFFFF):  # written live, size never filled in
            return False
        if position + 8 + length > size:
            return True
        position += 8 + length + length % 2
    return False


def _ebml_cut(file: BinaryIO, size: int) -> bool:
    position = 0
    for _ in range(_MAX_ELEMENTS):
        if position >= size:
            return False
        file.seek(position)
        head = file.read(12)
        _, id_bytes = _vint(head)
        length, size_bytes = _vint(head[id_bytes:])
        if not id_bytes or not size_bytes:
            return size - position < 12  # too few bytes for a header: the cut went through it
        position += id_bytes + size_bytes
        if length == (1 << (7 * size_bytes)) - 1:  # unknown length, as live writers leave it: children follow
            continue
        position += length
        if position > size:
            return True
    return False


def _vint(data: bytes) -> tuple[int, int]:
    """EBML variable-length integer, marker taken off -> value, number of bytes (0: there is none)."""
    if not data or not data[0]:
        return 0, 0
    count = 9 - data[0].bit_length()
    if len(data) < count:
        return 0, 0
    return int.from_bytes(data[:count], "big") & ((1 << (7 * count)) - 1), count


def _packets_cut(file: BinaryIO, size: int) -> bool:
    """MPEG transport stream: whole packets of 188 bytes (192, 204 with extras), each led by 0x47."""
    file.seek(0)
    head = file.read(204 * 3 + 8)
    for packet, lead in ((188, 0), (192, 4), (204, 0)):
        marks = head[lead::packet]
        if len(marks) >= 2 and set(marks) == {0x47}:
            return size % packet != 0
    return False
