"""Damaged files, made from whole ones by a fixed seed."""

import numpy as np
from video_clips import write_kind

SMALL_KINDS = (
    "index_first.mp4",
    "fragmented.mp4",
    "h264.mkv",
    "h264.ts",
    "vp9.webm",
    "mpeg4.avi",
    "hevc.mp4",
)


def mutants(kinds, count, seed):
    """Files with flipped bits, cut ends, and parts of other files."""
    generator = np.random.default_rng(seed)
    for index in range(count):
        content = bytearray(kinds[index % len(kinds)])
        kind = index // len(kinds) % 3
        if kind == 0:
            for _ in range(int(generator.integers(1, 30))):
                content[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
        elif kind == 1:
            content = content[: int(generator.integers(1, len(content)))]
        else:
            other = kinds[int(generator.integers(len(kinds)))]
            start, length = int(generator.integers(len(other))), int(generator.integers(1, 2000))
            at = int(generator.integers(len(content)))
            content[at : at + length] = other[start : start + length]
        yield bytes(content)


def small_films(folder):
    """One small film of each of seven kinds, as bytes."""
    return [write_kind(folder, kind)[0].read_bytes() for kind in SMALL_KINDS]
