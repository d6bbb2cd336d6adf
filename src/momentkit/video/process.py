"""A reading process as its parent sees it: started, asked, listened to, ended.

What it says is checked like any other input, and nothing of it is unpickled: a film may have taken it over.
"""

import json
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt, TypeAdapter, ValidationError

from momentkit.core.errors import VideoError, VideoReason
from momentkit.video.limits import Stopwatch, VideoLimits
from momentkit.video.worker import NO_MEMORY, PIECE_BYTES, PIECES

PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from momentkit.video.worker import main
main(int(sys.argv[2]), int(sys.argv[3]))
"""
START_S = 60.0  # for a fresh interpreter on a busy machine
GRACE_S = 0.1  # past the deadline, for the worker to say so itself
SETTLE_S = 1.0  # for a worker to end a pass that nobody wants any more
_MAX_LINE = 1 << 20

Answer = TypeVar("Answer")
Message = dict[str, Any]
Kind = Literal["|u1", "<f4"]
"""Pixels or samples."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What is wrong with a film."""

    error: VideoReason
    message: str


class Worker:
    """A child process that answers one request at a time.

    Attributes:
        done: the last answer.
    """

    def __init__(self) -> None:
        self.done: Message = {}
        self._owner = os.getpid()
        self._ready = self._busy = False
        self._held = b""
        self._next = 0
        self._name = ""
        pages = _shared_pages()
        self._pages = memoryview(mmap.mmap(pages, PIECES * PIECE_BYTES))
        self._channel, theirs = socket.socketpair()
        paths = json.dumps([os.path.abspath(entry) for entry in sys.path])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, paths, str(theirs.fileno()), str(pages)],
                pass_fds=(theirs.fileno(), pages),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise VideoError("decoder_died", f"no process can be started to read films: {error}") from error
        finally:
            theirs.close()
            os.close(pages)

    @property
    def process_id(self) -> int:
        """Of the child."""
        return self._process.pid

    @property
    def idle(self) -> bool:
        """Whether it can take a request."""
        return self._owner == os.getpid() and not self._busy and self._process.poll() is None

    def end(self) -> int:
        """Kill the process; gives its exit status."""
        if self._owner != os.getpid():  # a fork of the process that started it
            return 0
        self._busy = True
        self._channel.close()
        self._process.kill()
        return self._process.wait()

    def get_ready(self, path: str | Path) -> None:
        """Wait until it has started.

        Raises:
            VideoError: decoder_died.
        """
        self._name = str(path)
        if self._ready:
            return
        with suppress(TimeoutError):
            self._ready = self._receive(time.monotonic() + START_S).get("ready") is True
        if not self._ready:
            raise self.broken(f"no sign of having started within {START_S:g} s")

    def run(
        self,
        request: Message,
        path: str | Path,
        limits: VideoLimits,
        watch: Stopwatch,
        kind: Kind = "|u1",
        most: int = 0,
    ) -> Generator[tuple[Message, NDArray[Any]]]:
        """Send a request and give the arrays that come, with what is said about them; then `done` is set.

        Args:
            request: the task and its arguments.
            path, limits, watch: of the film.
            kind: of the arrays.
            most: numbers in one of them.

        Raises:
            VideoError: any reason; after decoder_died the process is gone.
        """
        watch.check()
        self._busy, self._next, array = True, 0, None
        inside = replace(limits, sandbox=False, deadline_s=watch.left_s and max(watch.left_s, 1e-6))
        self._send(request, path, inside)
        try:
            while "done" not in (message := self._listen(watch)):
                if "error" in message:
                    raise self._refusal(message, watch)
                if not message.get("again"):
                    array = self._take(message, kind, most, watch)
                elif array is None:
                    raise self.broken("an array that was never sent")
                about = message.get("about")
                yield about if isinstance(about, dict) else {}, array
            self._busy = False
            self.done = message["done"]
        finally:
            if self._busy:
                self._settle()

    def finish(self, running: Iterator[object]) -> None:
        """Run a request that gives no array to its end."""
        for _ in running:
            raise self.broken("an array that nobody asked for")

    def checked(self, kind: type[Answer], said: object) -> Answer:
        """What it said, as a dataclass.

        Raises:
            VideoError: decoder_died, where it does not fit.
        """
        try:
            answer: Answer = _adapter(cast(Any, kind)).validate_python(said)
            return answer
        except (ValidationError, ArithmeticError) as error:
            raise self.broken("something else than was asked for") from error

    def broken(self, what: str) -> VideoError:
        """End a worker that said something impossible.

        Args:
            what: it gave.
        """
        self.end()
        return self._died(f"it gave {what}")

    def _died(self, how: str) -> VideoError:
        return VideoError(
            "decoder_died",
            f"the process that reads {self._name} broke down ({how}); the film is damaged or made to do harm",
        )

    def _lost(self) -> VideoError:
        """The error for a process that went away on its own, by how it went."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        status = self.end()
        if status == NO_MEMORY:
            return VideoError(
                "out_of_memory", f"{self._name} needs more memory than the limit allows; scale it down"
            )
        if status == -signal.SIGXCPU:
            return VideoError(
                "deadline", f"decoding {self._name} got stuck on one picture; convert it to H.264"
            )
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return self._died(how)

    def _send(self, request: Message, path: str | Path, limits: VideoLimits) -> None:
        try:
            folder = os.getcwd()
        except OSError:
            folder = ""  # which is no folder: so the worker says that the film is missing
        whole = {**request, "path": str(path), "folder": folder, "limits": asdict(limits)}
        self._channel.settimeout(START_S)
        with suppress(OSError):  # of a dead process; its end is seen when the answer is read
            self._channel.sendall(json.dumps(whole).encode() + b"\n")

    def _listen(self, watch: Stopwatch) -> Message:
        """The next message, as long as the deadline allows."""
        left_s = watch.left_s
        try:
            return self._receive(None if left_s is None else time.monotonic() + max(left_s, 0.0) + GRACE_S)
        except TimeoutError:
            self.end()
            raise watch.expired() from None

    def _receive(self, until_s: float | None) -> Message:
        """The next message; TimeoutError once `until_s` of the monotonic clock has passed."""
        while b"\n" not in self._held:
            self._channel.settimeout(None if until_s is None else max(until_s - time.monotonic(), 1e-3))
            try:
                got = self._channel.recv(1 << 16)
            except ConnectionError:
                got = b""
            if not got:
                raise self._lost()
            self._held += got
            if len(self._held) > _MAX_LINE or (until_s is not None and time.monotonic() > until_s + START_S):
                raise self.broken("a line without an end")
        line, _, self._held = self._held.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise self.broken("something that is no answer")
        return message

    def _take(self, head: Message, kind: Kind, most: int, watch: Stopwatch) -> NDArray[Any]:
        """Copy an array out of the shared pages, piece by piece."""
        shape = self.checked(list[PositiveInt], head.get("shape"))
        if len(shape) > 3 or math.prod(shape) > most or head.get("dtype") != kind:
            raise self.broken("an array that does not fit")
        array = np.empty(shape, kind)
        content = array.data.cast("B")
        for first in range(0, len(content), PIECE_BYTES):
            if first and self._listen(watch) != {"piece": first // PIECE_BYTES}:
                raise self.broken("an array with a part missing")
            piece = content[first : first + PIECE_BYTES]
            place = self._next * PIECE_BYTES
            piece[:] = self._pages[place : place + len(piece)]
            self._next = (self._next + 1) % PIECES
            with suppress(OSError):
                self._channel.sendall(b"+")
        array.flags.writeable = False
        return array

    def _refusal(self, message: Message, watch: Stopwatch) -> VideoError:
        refusal = self.checked(Refusal, message)
        self._busy = False
        return watch.expired() if refusal.error == "deadline" else VideoError(refusal.error, refusal.message)

    def _settle(self) -> None:
        """After an array that was the last one wanted: end the request, or the process."""
        if self._owner != os.getpid() or self._process.poll() is not None:
            return
        try:
            self._channel.sendall(b"-")
            until_s = time.monotonic() + SETTLE_S
            while not {"done", "error"} & self._receive(until_s).keys():
                pass
            self._busy = False
        except (OSError, VideoError):
            self.end()


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _shared_pages() -> int:
    """File descriptor of memory that two processes can map; pages cost nothing until they are used."""
    if hasattr(os, "memfd_create"):
        pages = os.memfd_create("momentkit")
    else:
        with tempfile.TemporaryFile() as file:
            pages = os.dup(file.fileno())
    os.ftruncate(pages, PIECES * PIECE_BYTES)
    return pages
