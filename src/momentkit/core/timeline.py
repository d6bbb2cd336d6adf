"""Seconds, clips and fractions: the only place where the three units meet.

A video of `duration_s` seconds is cut into clips of `clip_length_s`; clip i covers
[i * clip_length_s, (i + 1) * clip_length_s). Published feature files rarely satisfy
clips * clip_length_s == duration_s, so nothing here assumes it.

Works on Python floats, numpy arrays and torch tensors alike: each function is one line of arithmetic.
"""

from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SpanUnit = Literal["clip", "fraction"]
"""Unit of a model's spans: clip indices (FlashVTG), or fraction of the duration (the DETR family)."""

Number = TypeVar("Number", float, "NDArray[Any]", "Tensor")


def to_seconds(spans: Number, unit: SpanUnit, clip_length_s: float, duration_s: float) -> Number:
    """Model spans -> seconds, as the published decoders do it (detr_family.md F7: the two differ)."""
    return spans * (clip_length_s if unit == "clip" else duration_s)


def seconds_to_clips(time_s: Number, clip_length_s: float) -> Number:
    """Seconds -> clip indices, not rounded."""
    return time_s / clip_length_s


def clips_to_fraction(index_clip: Number, clips: int) -> Number:
    """Clip indices -> fraction of the clip grid, whose end is `clips`."""
    return index_clip / clips


def timestamp(time_s: float) -> str:
    """Seconds as H:MM:SS.mmm, for people.

    >>> timestamp(3725.5)
    '1:02:05.500'
    """
    milliseconds = round(time_s * 1000)
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}.{milliseconds:03d}"
