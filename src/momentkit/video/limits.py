"""What a file may cost us: bytes, pixels, seconds, frames and wall clock, in one place."""

import math
import os
import time
from dataclasses import dataclass

from momentkit.core.errors import ConfigError, VideoError


@dataclass(frozen=True, kw_only=True)
class VideoLimits:
    """Limits on one video; what exceeds them is refused with a `VideoError`, never cut short."""

    max_bytes: int = 64 * 1024**3  # size of the file, checked before it is opened
    max_pixels: int = 40_000_000  # of one frame, checked before one is decoded; 8192 x 4320 fits
    max_duration_s: float = 24 * 3600.0  # of the film as measured; what the header says does not count
    max_frames: int = 20_000_000  # decoded or counted
    deadline_s: float | None = None  # wall clock from opening to the last frame; None = as long as it takes
    threads: int = 0  # decoder threads; 0 = one for each core, at most 8
    sandbox: bool = os.name == "posix"  # read in a child process, which a broken film may kill
    max_memory_bytes: int = 4 * 1024**3  # of address space for decoding; kept in the child only

    def __post_init__(self) -> None:
        positive = {
            "max_bytes": self.max_bytes,
            "max_pixels": self.max_pixels,
            "max_duration_s": self.max_duration_s,
            "max_frames": self.max_frames,
            "deadline_s": math.inf if self.deadline_s is None else self.deadline_s,
            "max_memory_bytes": self.max_memory_bytes,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ConfigError(f"the video limit {name} must be positive, got {value}")
        if not self.threads >= 0:
            raise ConfigError(f"decoder threads must be 0 (choose) or more, got {self.threads}")

    @property
    def decoder_threads(self) -> int:
        """The number of threads that `threads` stands for."""
        return self.threads or min(os.cpu_count() or 1, 8)


DEFAULT_LIMITS = VideoLimits()


class Stopwatch:
    """Wall clock of one piece of work, started when it is made.

    Args:
        name: of the file, for the message.
        limits: `deadline_s` is the one used.
    """

    def __init__(self, name: str, limits: VideoLimits) -> None:
        self._name = name
        self._limit_s = limits.deadline_s
        self._start_s = time.monotonic()

    @property
    def left_s(self) -> float | None:
        """Seconds until the deadline, negative behind it; None where there is none."""
        return None if self._limit_s is None else self._limit_s - (time.monotonic() - self._start_s)

    def check(self) -> None:
        """Raise once the deadline has passed.

        Raises:
            VideoError: reason "deadline".
        """
        left_s = self.left_s
        if left_s is not None and left_s < 0:
            raise self.expired()

    def expired(self) -> VideoError:
        """The error for a deadline that has passed."""
        return VideoError(
            "deadline",
            f"{self._name} took longer than the {self._limit_s:g} s allowed; raise the limit or use "
            "a shorter or smaller film",
        )
