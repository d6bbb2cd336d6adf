"""A reel of a film: the stretches with the highest saliency, in order of time, never longer than asked.

With a sentence, saliency is the model's. Without one it is how little a clip looks like the rest of the film:
1 - cosine between its features and their mean, which needs no training and prefers what is rare.

Shapes   T clips   D channels
"""

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import QueryError
from momentkit.core.types import Moment
from momentkit.predict.encoded import EncodedVideo
from momentkit.predict.grounder import Grounder
from momentkit.predict.result import Result

LEAST_S = 2.0  # a shorter stretch is a flicker
UNASKED = "highlights"  # stands where the sentence would
_LENGTH = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_length(text: str) -> float:
    """Seconds of a length as people write it.

    >>> parse_length("30s"), parse_length("1m30s"), parse_length("90")
    (30.0, 90.0, 90.0)

    Raises:
        QueryError: no length above 0.
    """
    match = _LENGTH.fullmatch(text.strip().lower())
    hours, minutes, seconds = match.groups() if match else (None, None, None)
    length_s = 3600 * float(hours or 0) + 60 * float(minutes or 0) + float(seconds or 0)
    if not 0 < length_s < math.inf:
        raise QueryError(f"{text!r} is no length of a reel; write 30s, 1m30s or 90")
    return length_s


def make_reel(
    grounder: Grounder, video: EncodedVideo, sentence: str | None = None, *, length_s: float = 30.0
) -> Result:
    """Choose stretches of a film.

    Args:
        grounder: whose model answers the sentence; without one its weights are not used.
        video: from `grounder.encode`.
        sentence: what the reel is about, or None.
        length_s: at most so many seconds.

    Returns:
        A result whose moments are the stretches, none overlapping; a score is the mean saliency of the
        stretch on a scale from the film's lowest (0) to its highest (1).

    Raises:
        QueryError: a sentence that cannot be asked, or a length that is not positive.
    """
    if not 0 < length_s < math.inf:
        raise QueryError(f"the length of a reel must be positive, got {length_s}")
    if sentence is None:
        answer = _unasked(grounder, video)
    else:
        answer = grounder.find(video, sentence)
    saliency_T = np.asarray(answer.saliency, dtype=np.float64)
    stretches = pick_stretches(saliency_T, answer.clip_length_s, answer.duration_s, length_s)
    scale_T = (saliency_T - saliency_T.min()) / max(float(np.ptp(saliency_T)), 1e-9)
    moments = [
        Moment(
            start_s=round(first * answer.clip_length_s, 3),
            end_s=round(min(end * answer.clip_length_s, answer.duration_s), 3),
            score=round(float(scale_T[first:end].mean()), 5),
        )
        for first, end in stretches
    ]
    moments.sort(key=lambda moment: -moment.score)
    return answer.model_copy(update={"moments": tuple(moments)})


def pick_stretches(
    saliency_T: NDArray[np.float64], clip_length_s: float, duration_s: float, length_s: float
) -> list[tuple[int, int]]:
    """Runs of clips (first, end), in order of time, that together last at most `length_s`.

    Clips are taken by their smoothed saliency (weights 1/4, 1/2, 1/4), each with the better of its neighbours
    until it lasts `LEAST_S`; what no longer fits is passed over.
    """
    clips = len(saliency_T)
    starts_s = np.arange(clips) * clip_length_s
    seconds_T = np.clip(duration_s - starts_s, 0, clip_length_s)
    edges_T = np.pad(saliency_T, 1, mode="edge")
    smooth_T = edges_T[:-2] / 4 + edges_T[1:-1] / 2 + edges_T[2:] / 4
    chosen_T = np.zeros(clips, dtype=bool)
    left_s = length_s + 1e-6
    for clip in np.argsort(-smooth_T, kind="stable"):
        first, end = _grown(smooth_T, int(clip), max(1, math.ceil(min(LEAST_S, length_s) / clip_length_s)))
        cost_s = float(seconds_T[first:end][~chosen_T[first:end]].sum())
        if cost_s <= left_s:
            chosen_T[first:end] = True
            left_s -= cost_s
    return _runs(chosen_T)


def _grown(smooth_T: NDArray[np.float64], clip: int, least: int) -> tuple[int, int]:
    """A run of `least` clips around one, grown towards the higher neighbour; fewer in a shorter film."""
    first, end = clip, clip + 1
    while end - first < min(least, len(smooth_T)):
        before = smooth_T[first - 1] if first > 0 else -math.inf
        after = smooth_T[end] if end < len(smooth_T) else -math.inf
        first, end = (first - 1, end) if before > after else (first, end + 1)
    return first, end


def _runs(chosen_T: NDArray[np.bool_]) -> list[tuple[int, int]]:
    borders = np.flatnonzero(np.diff(np.pad(chosen_T, 1).astype(np.int8)))
    return list(zip(borders[::2].tolist(), borders[1::2].tolist(), strict=True))


def in_time(moments: Sequence[Moment]) -> list[Moment]:
    """Moments in the order in which they are shown."""
    return sorted(moments, key=lambda moment: moment.start_s)


def _unasked(grounder: Grounder, video: EncodedVideo) -> Result:
    features = video.features
    rows_TD = features.features_TD.astype(np.float64)
    rows_TD /= np.maximum(np.linalg.norm(rows_TD, axis=1, keepdims=True), 1e-9)
    mean_D = rows_TD.mean(axis=0)
    rarity_T = 1 - rows_TD @ mean_D / max(float(np.linalg.norm(mean_D)), 1e-9)
    return Result(
        query=UNASKED,
        video=video.name,
        duration_s=round(features.duration_s, 3),
        clip_length_s=features.clip_length_s,
        moments=(),
        saliency=tuple(round(float(score), 5) for score in rarity_T),
        model="rarity",
        encoder=" + ".join(stream.encoder for stream in grounder.contract.video),
        film=video.path,
    )
