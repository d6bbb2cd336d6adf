"""What a run says of itself: one JSON line a step and an evaluation, and a bar on a terminal."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from momentkit.core.files import atomic_write, read_bytes

MAX_LOG_BYTES = 1024**3


class RunLog:
    """`log.jsonl` of a run, and its progress bar where standard error is a terminal.

    Args:
        path: the file; rows are appended. None = nothing is written or shown (all processes but the first).
        steps: of the whole run.
        done: steps taken already. Rows of later steps, which a killed run left behind, are removed: in the
            end each step is there once, in order.
    """

    def __init__(self, path: Path | None, steps: int, done: int) -> None:
        self._bar: Progress | None = None
        self._file = None
        if path is None:
            return
        _keep_until(path, done)
        self._file = path.open("a")
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("training", total=steps, completed=done)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._file is not None:
            self._file.close()

    def row(self, kind: str, **values: object) -> None:
        """Append one row; it reaches the system at once, so that a kill loses none."""
        if self._file is not None:
            self._file.write(json.dumps({"kind": kind, **values}) + "\n")
            self._file.flush()

    def step(self, step: int, total: float) -> None:
        """Move the bar to `step` steps taken."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=f"loss {total:.3f}")

    def say(self, text: str) -> None:
        """A line for people, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        elif self._file is not None:
            print(text, flush=True)


def evaluation_line(epoch: int, metrics: Mapping[str, float], score: float, best: bool) -> str:
    """An evaluation in one line."""
    return f"epoch {epoch}  score {score:.2f}{' (best)' if best else ''}  {figures_line(metrics)}"


def figures_line(metrics: Mapping[str, float]) -> str:
    """Figures in one line, without those of single lengths of moments."""
    shown = {
        name: value for name, value in metrics.items() if name.startswith("MR-full-") or name[:3] != "MR-"
    }
    return "  ".join(f"{name.removeprefix('MR-full-')} {value:.2f}" for name, value in shown.items())


def _keep_until(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in read_bytes(path, MAX_LOG_BYTES).splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:  # the line that the kill cut
            break
        if row["step"] > step or not line.endswith(b"\n"):
            break
        kept.append(line)
    atomic_write(path, b"".join(kept))
