"""The errors a user can cause: one family, each with an exit code and an HTTP status.

Each message is one sentence: what was wrong, what was seen, what would do.
"""

from typing import ClassVar, Literal, get_args


class MomentkitError(Exception):
    """Base of every error that a user's input can cause."""

    exit_code: ClassVar[int] = 2
    http_status: ClassVar[int] = 400


class ConfigError(MomentkitError):
    """An option or a configuration file is wrong."""


class DataError(MomentkitError):
    """An annotation file is wrong; the message names file, line and field."""


class NotFiniteError(DataError):
    """A JSON file holds NaN or Infinity, which are no numbers."""


class SubmissionError(DataError):
    """A prediction file cannot be scored against its ground truth."""


class QueryError(MomentkitError):
    """A sentence cannot be asked: it is empty, or too long."""


class FeatureError(MomentkitError):
    """A feature file or array is wrong."""


class FeatureMismatchError(FeatureError):
    """Features do not match the contract the weights were trained with; the message names the field."""


class WeightsError(MomentkitError):
    """A weights file is damaged, incomplete or made for something else."""


class TrainingError(MomentkitError):
    """Training cannot go on: a loss or gradient is not finite, or a run directory does not fit."""

    exit_code = 1


class MissingExtraError(MomentkitError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class NothingFoundError(MomentkitError):
    """No moment clears the threshold."""

    exit_code = 3
    http_status = 404


VideoReason = Literal[
    "missing",
    "empty",
    "not_a_video",
    "no_video_stream",
    "unsupported_codec",
    "too_many_bytes",
    "too_many_pixels",
    "too_long",
    "too_many_frames",
    "deadline",
    "out_of_memory",
    "truncated",
    "no_frames",
    "decoder_died",
]


class VideoError(MomentkitError):
    """A file cannot be read as a video.

    Args:
        reason: one word of the closed list `VideoReason`.
        message: the sentence for a person.
    """

    http_status = 422

    def __init__(self, reason: VideoReason, message: str) -> None:
        if reason not in get_args(VideoReason):
            raise ValueError(f"{reason!r} is no VideoReason")
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["VideoError"], tuple[str, str]]:
        return type(self), (self.reason, str(self))
