"""Whether a file ends where its container says, on headers written by hand."""

import pytest

from momentkit.video.structure import is_cut


def box(kind, length, body=b""):
    return length.to_bytes(4, "big") + kind + body


EBML = b"\x1a\x45\xdf\xa3\x81\x00"
CASES = {
    "whole boxes": (box(b"ftyp", 16, b"x" * 8) + box(b"mdat", 12, b"x" * 4), False),
    "a box past the end": (box(b"ftyp", 16, b"x" * 8) + box(b"mdat", 13, b"x" * 4), True),
    "a box of 64-bit length": (
        box(b"ftyp", 16, b"x" * 8) + box(b"mdat", 1, (24).to_bytes(8, "big") + b"x" * 8),
        False,
    ),
    "a 64-bit box past the end": (
        box(b"ftyp", 16, b"x" * 8) + box(b"mdat", 1, (25).to_bytes(8, "big") + b"x" * 8),
        True,
    ),
    "a last box of any length": (box(b"ftyp", 16, b"x" * 8) + box(b"mdat", 0, b"x"), False),
    "half a box header": (box(b"ftyp", 16, b"x" * 8) + b"\x00\x00\x01", True),
    "bytes after the last box": (box(b"ftyp", 16, b"x" * 8) + b"\xff" * 40, False),
    "a whole segment": (EBML + b"\x18\x53\x80\x67\x84abcd", False),
    "a segment past the end": (EBML + b"\x18\x53\x80\x67\x85abcd", True),
    "a live segment": (EBML + b"\x18\x53\x80\x67\xff\xec\x82ab", False),
    "a live segment with half an element": (EBML + b"\x18\x53\x80\x67\xff\xec\x84ab", True),
    "a live cluster with half a block": (EBML + b"\x18\x53\x80\x67\xff\x1f\x43\xb6\x75\xff\xa3\x84ab", True),
    "a whole RIFF": (b"RIFF\x08\x00\x00\x00AVI abcd", False),
    "a RIFF past the end": (b"RIFF\x09\x00\x00\x00AVI abcd", True),
    "a live RIFF": (b"RIFF\x00\x00\x00\x00AVI abcd", False),
    "whole packets": ((b"\x47" + b"x" * 187) * 5, False),
    "half a packet": ((b"\x47" + b"x" * 187) * 5 + b"\x47xx", True),
    "whole packets of 192": ((b"0000\x47" + b"x" * 187) * 5, False),
    "half a packet of 192": ((b"0000\x47" + b"x" * 187) * 5 + b"0000", True),
    "nothing known": (b"a text about a film" * 20, False),
    "one byte": (b"\x1a", False),
}


@pytest.mark.parametrize("name", CASES)
def test_a_missing_end_is_seen_in_the_headers(name, tmp_path):
    content, cut = CASES[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    assert is_cut(path) is cut
