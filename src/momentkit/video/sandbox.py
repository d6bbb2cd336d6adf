"""The reader in a child process: a film that crashes, hangs or fills its decoder costs that process only.

    caller -- request, a line of JSON --> worker (`momentkit.video.worker`: the plain reader inside limits)
    caller <-- lines of JSON, arrays in shared pages -- worker

The worker is a fresh interpreter that never loads torch, not a fork: it shares no lock and no thread with the
caller. It stays warm for the next film. What it says is checked, see `momentkit.video.process`.
Measured costs and faults: docs/reliability.md.
"""

import atexit
import os
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from momentkit.video.clock import StampOrigin
from momentkit.video.limits import Stopwatch, VideoLimits
from momentkit.video.process import Answer, Worker
from momentkit.video.reader import Frame, VideoReader

KEPT = 2  # idle workers that stay warm
_MAX_SAMPLES = 1 << 20  # of a block of sound


@dataclass(frozen=True, kw_only=True)
class State:
    """What a reader found out so far, see `VideoReader`."""

    complete: bool
    origin: StampOrigin
    first_stamp_s: float | None
    time_s: float = 0.0


class SandboxedReader(VideoReader):
    """As `VideoReader`; every pass runs in a worker."""

    def _open(self) -> None:
        with _borrowed(self._path) as worker:
            # Made here: the start of the worker is not the film's time.
            self._watch = Stopwatch(str(self._path), self._limits)
            request = {"task": "open", "tolerate_cut": self._tolerate}
            worker.finish(worker.run(request, self._path, self._limits, self._watch))
            self._note(worker.checked(State, worker.done))

    def _pass(self, asked_s: NDArray[np.float64], size: tuple[int, int] | None) -> Generator[Frame]:
        if not len(asked_s):
            return
        numbers = 3 * (size[0] * size[1] if size else self._limits.max_pixels)
        request = {
            "task": "frames",
            "tolerate_cut": self._tolerate,
            "times_s": asked_s.tolist(),
            "size": size,
        }
        with _borrowed(self._path) as worker:
            running = worker.run(request, self._path, self._limits, self._watch, "|u1", numbers)
            try:
                for about, picture in running:
                    state = worker.checked(State, about)
                    if picture.shape != (*(size or picture.shape[:2]), 3):
                        raise worker.broken(f"a picture of shape {picture.shape}")
                    self._note(state)
                    yield state.time_s, picture
            finally:
                running.close()
            self._note(worker.checked(State, worker.done))

    def _note(self, state: State) -> None:
        self.complete &= state.complete
        self.origin, self.first_stamp_s = state.origin, state.first_stamp_s


def sound_of(
    path: Path, sample_rate: int, first_stamp_s: float, limits: VideoLimits
) -> Iterator[NDArray[np.float32]]:
    """As `read_sound`, in larger blocks."""
    request = {"task": "sound", "sample_rate": sample_rate, "first_stamp_s": first_stamp_s}
    with _borrowed(path) as worker:
        watch = Stopwatch(str(path), limits)
        running = worker.run(request, path, limits, watch, "<f4", _MAX_SAMPLES)
        try:
            for _, block in running:
                yield block
        finally:
            running.close()


def ask(kind: type[Answer], task: str, path: str | Path, limits: VideoLimits, **arguments: object) -> Answer:
    """The answer of a task that gives no array, as a dataclass.

    Raises:
        VideoError: any reason.
    """
    with _borrowed(path) as worker:
        watch = Stopwatch(str(path), limits)
        worker.finish(worker.run({"task": task, **arguments}, path, limits, watch))
        return worker.checked(kind, worker.done)


_lock = threading.Lock()
_idle: list[Worker] = []


@contextmanager
def _borrowed(path: str | Path) -> Iterator[Worker]:
    """A worker that nobody else uses, a warm one where there is one."""
    with _lock:
        idle = next((worker for worker in reversed(_idle) if worker.idle), None)
        if idle is not None:
            _idle.remove(idle)
    worker = idle or Worker()
    try:
        worker.get_ready(path)
        yield worker
    finally:
        with _lock:
            keep = worker.idle and len(_idle) < KEPT
            if keep:
                _idle.append(worker)
        if not keep:
            worker.end()


def _end_all() -> None:
    with _lock:
        while _idle:
            _idle.pop().end()


def _forget() -> None:
    """In a fork: the workers are the parent's, and its lock may be held by a thread that is not here."""
    global _lock
    _lock = threading.Lock()
    _idle.clear()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
