"""Seconds to score a submission of the size of QVHighlights val: 1,550 queries, 10 moments, 75 clip scores.

Takes the published prediction file where `../shared` has it, else a synthetic one of the same size.

    python benchmarks/metrics.py [--output benchmarks/metrics.json] [--repeats 7]

The official program takes 24 s on two 2.5 GHz cores, a plain Python rewrite 2.2 s.
"""

import argparse
import gzip
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from momentkit.metrics.rows import read_rows
from momentkit.metrics.submission import score_moment_files, score_moment_rows

SHARED = Path(__file__).parents[1].parent / "shared"
REAL_PREDICTIONS = SHARED / "golden/metrics/qvh/pred/moment_detr_sample_val.jsonl.gz"
REAL_TRUTH = SHARED / "data/qvhighlights/highlight_val_release.jsonl.gz"
OFFICIAL_S, PLAIN_PYTHON_S, BAR_S = 24.0, 2.2, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        predictions, truth, source = _files(Path(folder))
        results = measure(predictions, truth, options.repeats)
    report = {
        "source": source,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}",
        "bar_s": BAR_S,
        "official_s": OFFICIAL_S,
        "plain_python_s": PLAIN_PYTHON_S,
        "measured": results,
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    _show(report)


def measure(predictions: Path, truth: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Best and median wall seconds, and best CPU seconds, of each stage."""
    rows = [[row for _, row in read_rows(path)] for path in (predictions, truth)]
    stages: dict[str, Callable[[], Any]] = {
        "read both files": lambda: (read_rows(predictions), read_rows(truth)),
        "check and score rows": lambda: score_moment_rows(*rows),
        "read, check and score": lambda: score_moment_files(predictions, truth),
    }
    return {name: _time(run, repeats) for name, run in stages.items()}


def _time(run: Callable[[], Any], repeats: int) -> dict[str, float]:
    run()
    wall, cpu = [], []
    for _ in range(repeats):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - wall_start)
        cpu.append(time.process_time() - cpu_start)
    figures = {"best_s": min(wall), "median_s": statistics.median(wall), "best_cpu_s": min(cpu)}
    return {name: round(value, 4) for name, value in figures.items()}


def _files(folder: Path) -> tuple[Path, Path, str]:
    if REAL_PREDICTIONS.is_file() and REAL_TRUTH.is_file():
        return REAL_PREDICTIONS, REAL_TRUTH, "Moment-DETR's published val predictions, QVHighlights val"
    predictions, truth = synthesise(1550)
    paths = folder / "predictions.jsonl.gz", folder / "truth.jsonl.gz"
    for path, rows in zip(paths, (predictions, truth), strict=True):
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return *paths, "synthetic, 1,550 queries"


def synthesise(queries: int, seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Predictions and truth of the shape of QVHighlights val: 75 clips of 2 s, one to four true windows."""
    random = np.random.default_rng(seed)
    predictions, truth = [], []
    for qid in range(queries):
        borders = np.sort(random.choice(75, 2 * random.integers(1, 5), replace=False)).reshape(-1, 2)
        clips = np.concatenate([np.arange(*pair) for pair in borders])
        guess = np.sort(random.integers(0, 76, (10, 2)), axis=1) * 2.0
        score = np.sort(random.random(10).round(4))[::-1]
        predictions.append(
            {
                "qid": qid,
                "pred_relevant_windows": np.column_stack([guess, score]).tolist(),
                "pred_saliency_scores": random.normal(size=75).round(4).tolist(),
            }
        )
        truth.append(
            {
                "qid": qid,
                "duration": 150,
                "relevant_windows": (2 * borders).tolist(),
                "relevant_clip_ids": clips.tolist(),
                "saliency_scores": random.integers(0, 5, (len(clips), 3)).tolist(),
            }
        )
    return predictions, truth


def _show(report: dict[str, Any]) -> None:
    table = Table("stage", "best s", "median s", "best CPU s", title=report["source"], title_justify="left")
    for name, figures in report["measured"].items():
        table.add_row(name, *(f"{value:.3f}" for value in figures.values()))
    console = Console()
    console.print(table)
    whole = report["measured"]["read, check and score"]["median_s"]
    console.print(
        f"bar {BAR_S} s; official program {OFFICIAL_S:.0f} s ({OFFICIAL_S / whole:.0f} times as long), "
        f"plain Python rewrite {PLAIN_PYTHON_S} s",
        highlight=False,
    )


if __name__ == "__main__":
    main()
