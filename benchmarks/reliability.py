"""The figures of docs/reliability.md, section Video: each row measured at full size.

    python benchmarks/reliability.py [--only V15 ...] [--output benchmarks/reliability.json]

Films are made as it runs; no network, no GPU; some minutes on two cores. Rows not asked for are kept.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/faults"))

import test_video_broken
import test_video_frames
import video_figures
from video_clips import write_film
from video_verdicts import reason_of

from momentkit.video import sandbox
from momentkit.video.limits import VideoLimits
from momentkit.video.probe import probe
from momentkit.video.reader import open_video

Figures = dict[str, Any]


def guessed(folder: Path) -> Figures:
    """V4: films without presentation stamps: of how many it is said."""
    bare, avi = folder / "bare.h264", folder / "b_frames.avi"
    write_film(bare, options=video_figures.FAST_X264, mux="h264")
    write_film(avi, options=video_figures.FAST_X264, time_base=video_figures.Fraction(1, 25))
    said = [probe(path) for path in (bare, avi)]
    return {"films": 2, "said": sum(info.stamps == "guessed" and bool(info.warnings) for info in said)}


def no_films(folder: Path) -> Figures:
    """V8: what is no film: right reasons, and the slowest."""
    wanted = test_video_broken.no_films(folder)
    right, slowest_s = 0, 0.0
    video_figures.the_worker()  # its start is the row "cost"
    for name, reason in wanted.items():
        start_s = time.monotonic()
        right += reason_of(folder / name) == reason
        slowest_s = max(slowest_s, time.monotonic() - start_s)
    return {"cases": len(wanted), "right": right, "slowest s": round(slowest_s, 3)}


def odd_streams(folder: Path) -> Figures:
    """V9: sound alone, sound with a cover, one frame, two frames."""
    for name, cover in (("song.mp4", False), ("cover.mp4", True)):
        test_video_broken.write_audio(folder / name, cover)
    for count in (1, 2):
        write_film(folder / f"{count}.mp4", frames=count, options=video_figures.FAST_X264)
    wanted = {"song.mp4": "no_video_stream", "cover.mp4": "no_video_stream", "1.mp4": "", "2.mp4": ""}
    return {"cases": 4, "right": sum(reason_of(folder / name) == reason for name, reason in wanted.items())}


def corners(folder: Path) -> Figures:
    """V13: five turned and mirrored films, four corners each."""
    right = 0
    for degrees, mirrored in [(0, False), (90, False), (180, False), (270, False), (0, True)]:
        right += test_video_frames.upright_corners(folder, degrees, mirrored)
    return {"corners": 20, "right": right}


def colours(folder: Path) -> Figures:
    """V14: a plain colour through eight ways of storing it."""
    errors = [test_video_frames.colour_error(folder, *case) for case in test_video_frames.COLOURS.values()]
    return {"films": len(errors), "worst error in levels": round(max(errors), 2)}


def cost(folder: Path, repeats: int = 5) -> Figures:
    """The sandbox against reading in this process: its start, and time and processor time of a film."""
    path = folder / "film.mp4"
    generator = np.random.default_rng(0)
    base = generator.integers(0, 255, (120, 160, 3), dtype=np.uint8)
    drawn = [np.roll(base, index, axis=1).repeat(4, 0).repeat(4, 1) for index in range(64)]
    write_film(path, pictures=[drawn[i % 64] for i in range(500)], frames=500, options={"preset": "veryfast"})
    start_s = time.perf_counter()
    sandbox.Worker().get_ready(path)
    figures = {"start s": round(time.perf_counter() - start_s, 2)}
    ways = {
        "2 a second, 224 x 224": (np.arange(0, 20, 0.5), (224, 224)),
        "2 a second, as stored": (np.arange(0, 20, 0.5), None),
        "every frame, 224 x 224": (np.arange(0, 20, 0.04), (224, 224)),
        "every frame, as stored": (np.arange(0, 20, 0.04), None),
    }
    for name, (times, size) in ways.items():
        seconds: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for _ in range(repeats):
            for sandboxed in (False, True):
                wall_s, cpu_s = time.perf_counter(), _cpu_s()
                with open_video(path, VideoLimits(sandbox=sandboxed)) as reader:
                    for _ in reader.frames_at(times, size):
                        pass
                seconds[sandboxed].append((time.perf_counter() - wall_s, _cpu_s() - cpu_s))
        for row, unit in enumerate(("time", "CPU")):
            here, there = (statistics.median(pair[row] for pair in seconds[way]) for way in (False, True))
            figures[f"{name}: {unit}"] = f"{there / here - 1:+.0%}"
    return figures


def _cpu_s() -> float:
    """Processor seconds of this process and the idle worker."""
    worker = video_figures.the_worker()
    fields = Path(f"/proc/{worker.process_id}/stat").read_text().rsplit(")", 1)[1].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / 100


ROWS: dict[str, tuple[str, str, Callable[[Path], Figures]]] = {
    "V1": ("the frame shown at a time, 12 kinds", "wrong 0", video_figures.wrong_frames),
    "V2": ("variable frame rate", "error < 1e-6 s", video_figures.vfr_error_s),
    "V3": ("first stamp 0.08, 3600, below 0", "error < 5e-4 s, wrong 0", video_figures.offset_error_s),
    "V4": ("no stamps", "said of each", guessed),
    "V5": ("headers that lie about the duration", "error < 1e-3 s", video_figures.duration_error_s),
    "V6": ("cut at 1 to 99 %, 8 kinds", "wrong 0, each said", video_figures.cut_frames),
    "V7": ("4 kB of zeros in the middle", "wrong 0, each said", video_figures.hole_frames),
    "V8": ("no films", "all right, < 1 s", no_films),
    "V9": ("odd streams", "all right", odd_streams),
    "V10": ("bombs", "refused, < 150 MB", video_figures.bombs),
    "V11": ("hours of 4K, 2 s, 1 GB", "deadline, < 0.3 s over", video_figures.deadline_overrun),
    "V12": ("hostile texts and names", "requests 0, other files read 0", video_figures.hostile_texts),
    "V13": ("turned and mirrored", "20 right", corners),
    "V14": ("colours", "<= 2 levels", colours),
    "V15": ("damaged films", "crashes 0, < 150 MB", video_figures.mutant_figures),
    "V16": ("one and four threads", "disagreements 0", video_figures.thread_disagreements),
    "V17": ("400 opens", "files 0, memory level", video_figures.leaks),
    "V18": ("threads and forks", "mismatches 0", video_figures.side_by_side),
    "V19": ("a child that breaks down", "one error, next film read", video_figures.recovery),
    "V20": ("stored clips", "changed 0", video_figures.changed_clips),
    "cost": ("sandbox against this process", "start < 0.5 s, < +10 %", cost),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    options = parser.parse_args()
    table = Table("id", "what", "expected", "measured", "s")
    report = json.loads(options.output.read_text()) if options.output.exists() else {"rows": {}}
    report["machine"] = f"{platform.machine()}, Python {platform.python_version()}, PyAV {av.__version__}"
    for name in options.only:
        what, expected, measure = ROWS[name]
        start_s = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            figures = measure(Path(folder))
        seconds = round(time.perf_counter() - start_s, 1)
        report["rows"][name] = {"what": what, "expected": expected, "figures": figures, "seconds": seconds}
        options.output.write_text(
            json.dumps(report, indent=1) + "\n"
        )  # as they come: the rest may be cut off
        table.add_row(name, what, expected, _words(figures), f"{seconds}")
    Console().print(table)


def _words(figures: Figures) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures.items())


if __name__ == "__main__":
    main()
