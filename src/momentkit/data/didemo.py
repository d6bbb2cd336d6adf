"""DiDeMo: moments are pairs of five-second chunks, given by four annotators or more.

A sentence gets one moment: the annotators' pair that overlaps the others' most, the first of equals. Chunks
[a, b] cover 5a to 5(b + 1) seconds, no more than the video or 30 s. Where no table says how long a video is,
it is taken for as long as its chunks.

Source   VLG-Net's rule (IoU in seconds), which later work reports by; the file's form is LocalizingMoments'.
         `metrics.didemo` scores the official way, against all annotators.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from momentkit.core.errors import DataError
from momentkit.data.annotations import AnnotationReport, check_rows
from momentkit.data.row import WindowRules

CHUNK_S, LONGEST_S = 5.0, 30.0
Pair = tuple[int, int]


def read_chunks(path: str | Path, rows: Any, lengths_s: Mapping[str, float]) -> AnnotationReport:
    """Rows of `{train,val,test}_data.json`; `vid` keeps the file's ending, `line` counts rows from 1.

    Args:
        path: the file, for messages.
        rows: what it holds.
        lengths_s: seconds of videos; those not in it are as long as their chunks.

    Raises:
        DataError: no list of rows, or a row without one of its fields.
    """
    if not isinstance(rows, list):
        raise DataError(f"{path}: a list of rows is wanted, got {type(rows).__name__}")
    return check_rows(path, _rows(path, rows, lengths_s), WindowRules(clip_windows=True))


def agreed_pair(pairs: Sequence[Pair]) -> Pair:
    """The pair of the largest mean overlap with the others; the first of equals."""
    means = [sum(_overlap(pair, other) for other in pairs) for pair in pairs]  # itself adds 1 to each
    return pairs[means.index(max(means))]


def _overlap(one: Pair, other: Pair) -> float:
    """IoU in seconds of chunk pairs, both ends inclusive."""
    shared = min(one[1], other[1]) + 1 - max(one[0], other[0])
    return max(shared, 0) / (one[1] - one[0] + other[1] - other[0] + 2 - max(shared, 0))


def _rows(
    path: str | Path, rows: list[Any], lengths_s: Mapping[str, float]
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in enumerate(rows, 1):
        try:
            pairs = [(int(first), int(last)) for first, last in row["times"]]
            vid, chunks_s = row["video"], CHUNK_S * row["num_segments"]
            first, last = agreed_pair(pairs)
            duration_s = min(lengths_s.get(vid, chunks_s), LONGEST_S)
            fields = {"qid": row["annotation_id"], "query": row["description"], "vid": vid}
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(
                f"{path}: row {number}: annotation_id, description, video, num_segments and times are "
                f"wanted: {error!r}"
            ) from error
        window = [CHUNK_S * first, CHUNK_S * (last + 1)]
        chosen = [list(pair) for pair in pairs]
        yield number, fields | {"duration": duration_s, "relevant_windows": [window], "annotators": chosen}
