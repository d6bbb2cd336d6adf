"""Hundreds of damaged files and opens: no crash, no foreign error, nothing left behind.

At full size (1,500 files): benchmarks/reliability.py, figures in docs/reliability.md.
"""

from typing import get_args

import pytest
from video_figures import leaks, mutant_figures, thread_disagreements
from video_mutants import mutants, small_films
from video_verdicts import verdict

from momentkit.core.errors import VideoReason
from momentkit.video.limits import VideoLimits


def test_damaged_files_raise_only_our_error_and_give_rising_times(tmp_path):
    figures = mutant_figures(tmp_path, 150)
    print(figures)
    assert set(figures["reasons"]) <= {"read", *get_args(VideoReason)} and len(figures["reasons"]) >= 3
    assert figures["crashes"] == 0 and figures["same worker"]
    assert figures["times that fall"] == 0
    assert figures["slowest s"] < 20 and figures["peak MB"] < 150


@pytest.mark.parametrize("tolerate", [False, True])
def test_damaged_files_get_the_same_verdict_in_the_sandbox_and_in_this_process(tolerate, tmp_path):
    path = tmp_path / "mutant"
    for content in mutants(small_films(tmp_path), 42, seed=13):
        path.write_bytes(content)
        here, there = (verdict(path, VideoLimits(threads=1, sandbox=on), tolerate) for on in (False, True))
        assert here == there


def test_damaged_files_get_the_same_verdict_from_one_and_four_threads(tmp_path):
    assert thread_disagreements(tmp_path, 70)["disagreements"] == 0


def test_opening_many_times_leaves_no_file_open_and_no_memory(tmp_path):
    figures = leaks(tmp_path, 200)
    assert figures["same worker"] and figures["files gained"] == 0
    assert figures["kB gained"] < 8 * 1024
