"""The program of the reading process: runs the plain reader inside limits and hands over what it gives.

It takes one request at a time, a line of JSON, and answers in lines of JSON. Arrays go through pages shared
with the parent, in pieces; while a request runs the parent sends "+" for each piece it has taken out and "-"
to end it early. Standard library, numpy and av only: it starts in a fraction of a second.
"""

import dataclasses
import json
import mmap
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import VideoError
from momentkit.video.grid import frame_grid
from momentkit.video.limits import Stopwatch, VideoLimits
from momentkit.video.probe import VideoInfo, probe
from momentkit.video.reader import VideoReader
from momentkit.video.sound import read_sound

PIECE_BYTES = 8 * 1024**2  # a frame of 1920 x 1080 is one piece
PIECES = 8  # decoded ahead, at most
NO_MEMORY = 99  # exit status where there was not even memory to say so
STALL_S = 60  # processor seconds, for each decoder thread, of one call that never returns to Python
_SOUND_SAMPLES = 1 << 16  # of a block handed over
_OPEN_FILES = 64

Piece = tuple[NDArray[Any], dict[str, Any]]
"""An array and what is said about it."""


class Stopped(Exception):
    """The parent wants no more of this request."""


def main(channel: int, pages: int) -> None:
    """Serve requests until the parent goes away.

    Args:
        channel: file descriptor of the socket to the parent.
        pages: file descriptor of PIECES * PIECE_BYTES shared bytes.
    """
    confine()
    link = Link(socket.socket(fileno=channel), mmap.mmap(pages, PIECES * PIECE_BYTES))
    link.say({"ready": True})
    while (request := link.next_request()) is not None:
        try:
            _answer(link, request)
        except MemoryError:
            os._exit(NO_MEMORY)


def confine() -> None:
    """Give up what no request needs: files that grow, core dumps, many descriptors, words on the screen."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)


def limit(limits: VideoLimits) -> None:
    """Set the limits of one request: memory from here on, and processor time without a step in Python."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _address_space() + limits.max_memory_bytes
    resource.setrlimit(
        resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
    )

    def renew(*_: object) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime) + STALL_S * limits.decoder_threads + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))

    # The handler runs between two steps of Python: a decoder that loops for ever never lets it.
    signal.signal(signal.SIGPROF, renew)
    signal.siginterrupt(signal.SIGPROF, False)
    signal.setitimer(signal.ITIMER_PROF, 0.5, 0.5)
    renew()


def _address_space() -> int:
    """Bytes of address space in use; a guess where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 1024**3


class Link:
    """The parent, as seen from here.

    Args:
        channel: stream socket.
        pages: the shared bytes.
    """

    def __init__(self, channel: socket.socket, pages: mmap.mmap) -> None:
        self._channel, self._pages = channel, memoryview(pages)
        self._free, self._next = PIECES, 0
        self._last: NDArray[Any] | None = None

    def next_request(self) -> dict[str, Any] | None:
        """The next request; None once the parent is gone. Signs too late for the last are dropped."""
        line = b""
        while not line.endswith(b"\n"):
            got = self._channel.recv(1 << 20)
            if not got:
                return None
            line = (line + got).lstrip(b"+-")
        self._free, self._next, self._last = PIECES, 0, None
        request: dict[str, Any] = json.loads(line)
        return request

    def say(self, message: dict[str, Any]) -> None:
        """Send one line."""
        self._channel.sendall(json.dumps(message).encode() + b"\n")

    def hand_over(self, array: NDArray[Any], about: dict[str, Any]) -> None:
        """Send an array; one that was sent last is only named.

        Raises:
            Stopped: the parent wants no more.
        """
        if array is self._last:
            self._look(wait=False)
            self.say({"again": True, "about": about})
            return
        content = array.data.cast("B")
        head: dict[str, Any] = {"shape": array.shape, "dtype": array.dtype.str, "about": about}
        for first in range(0, len(content), PIECE_BYTES):
            self._look(wait=self._free == 0)
            piece = content[first : first + PIECE_BYTES]
            place = self._next * PIECE_BYTES
            self._pages[place : place + len(piece)] = piece
            self._free, self._next = self._free - 1, (self._next + 1) % PIECES
            self.say(head if first == 0 else {"piece": first // PIECE_BYTES})
        self._last = array

    def _look(self, wait: bool) -> None:
        try:
            signs = self._channel.recv(4096, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not signs:
            os._exit(0)  # the parent is gone
        if b"-" in signs:
            raise Stopped
        self._free += signs.count(b"+")


def _answer(link: Link, request: dict[str, Any]) -> None:
    limits = VideoLimits(**request["limits"])
    limit(limits)
    try:
        os.chdir(request["folder"])  # so that messages can name the path as it was given
        done = TASKS[request["task"]](link, request["path"], limits, request)
    except Stopped:
        done = {}
    except VideoError as error:
        link.say({"error": error.reason, "message": str(error)})
        return
    except OSError as error:
        link.say({"error": "missing", "message": f"cannot find {request['path']}: {error.strerror}"})
        return
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    link.say({"done": done})


def _open(link: Link, path: str, limits: VideoLimits, request: dict[str, Any]) -> dict[str, Any]:
    with VideoReader(Path(path), limits, request["tolerate_cut"]) as reader:
        return _state(reader)


class _CheckedReader(VideoReader):
    """A reader of a file that another request opened before: opening one twice costs more than a frame."""

    def _open(self) -> None:
        self._watch = Stopwatch(str(self._path), self._limits)


def _frames(link: Link, path: str, limits: VideoLimits, request: dict[str, Any]) -> dict[str, Any]:
    size = request["size"] and tuple(request["size"])
    with _CheckedReader(Path(path), limits, request["tolerate_cut"]) as reader:
        for time_s, picture in reader.frames_at(request["times_s"], size):
            link.hand_over(picture, {"time_s": time_s, **_state(reader)})
    return _state(reader)


def _state(reader: VideoReader) -> dict[str, Any]:
    return {"complete": reader.complete, "origin": reader.origin, "first_stamp_s": reader.first_stamp_s}


def _sound(link: Link, path: str, limits: VideoLimits, request: dict[str, Any]) -> dict[str, Any]:
    held: list[NDArray[np.float32]] = []
    for block in read_sound(path, request["sample_rate"], request["first_stamp_s"], limits):
        held.append(block)
        if sum(map(len, held)) >= _SOUND_SAMPLES:
            link.hand_over(np.concatenate(held), {})
            held = []
    if held:
        link.hand_over(np.concatenate(held), {})
    return {}


def _probe(link: Link, path: str, limits: VideoLimits, request: dict[str, Any]) -> dict[str, Any]:
    return {**dataclasses.asdict(probe(path, limits)), "path": path}


def _grid(link: Link, path: str, limits: VideoLimits, request: dict[str, Any]) -> dict[str, Any]:
    info = request["info"] and VideoInfo(**{**request["info"], "path": Path(path)})
    grid = frame_grid(path, limits, info)
    return {**dataclasses.asdict(grid), "rate": str(grid.rate)}


Task = Callable[[Link, str, VideoLimits, dict[str, Any]], dict[str, Any]]
TASKS: Mapping[str, Task] = {
    "open": _open,
    "frames": _frames,
    "sound": _sound,
    "probe": _probe,
    "grid": _grid,
}
