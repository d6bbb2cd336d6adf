"""Hundreds of damaged files and opens: no crash, no foreign error, nothing left behind."""

import os
import resource
import time
from typing import get_args

import numpy as np
from video_clips import write_kind
from video_verdicts import reason_of, verdict

from momentkit.core.errors import VideoReason
from momentkit.video.limits import VideoLimits
from momentkit.video.reader import open_video


def mutants(kinds, count, seed):
    """Files with flipped bits, cut ends, and parts of other files, by a fixed seed."""
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
    kinds = ("index_first.mp4", "fragmented.mp4", "h264.mkv", "h264.ts", "vp9.webm", "mpeg4.avi", "hevc.mp4")
    return [write_kind(folder, kind)[0].read_bytes() for kind in kinds]


def test_damaged_files_raise_only_our_error_and_give_rising_times(tmp_path):
    limits = VideoLimits(deadline_s=20, threads=1)
    path = tmp_path / "mutant"
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest_s, reasons = 0.0, {}
    for index, content in enumerate(mutants(small_films(tmp_path), 420, seed=7)):
        path.write_bytes(content)
        start_s = time.monotonic()
        reason, times, _ = verdict(path, limits, tolerate=index % 2 == 1)
        slowest_s = max(slowest_s, time.monotonic() - start_s)
        reasons[reason] = reasons.get(reason, 0) + 1
        assert times == sorted(times)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    print(f"mutants: slowest {slowest_s:.2f} s, +{grown_mb:.0f} MB, {reasons}")
    assert set(reasons) <= {"", *get_args(VideoReason)}
    assert len(reasons) >= 3 and "decoder_died" not in reasons
    assert slowest_s < 2 and grown_mb < 150


def test_damaged_files_get_the_same_verdict_from_one_and_four_threads(tmp_path):
    path = tmp_path / "mutant"
    differing = []
    for index, content in enumerate(mutants(small_films(tmp_path), 105, seed=11)):
        path.write_bytes(content)
        one, four = (verdict(path, VideoLimits(threads=n)) for n in (1, 4))
        if one[0] != four[0] or (not one[0] and one[2] != four[2]):
            differing.append((index, one[0], four[0], len(one[1]), len(four[1])))
    print(f"threads: {len(differing)} of 105 differ: {differing}")
    assert len(differing) == 0


def test_opening_four_hundred_times_leaves_no_file_open_and_no_memory(tmp_path):
    path, _ = write_kind(tmp_path, "h264.mp4")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(path.read_bytes()[:2000])

    def use(count):
        for index in range(count):
            if index % 3 == 2:
                assert reason_of(broken) == "truncated"
                continue
            with open_video(path) as reader:
                frames = reader.frames_at([0.0, 0.5])
                next(frames)

    use(40)
    files, memory_kb = len(os.listdir("/proc/self/fd")), _resident_kb()
    use(400)
    assert len(os.listdir("/proc/self/fd")) == files
    assert _resident_kb() - memory_kb < 8 * 1024


def _resident_kb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024
