"""ActivityNet Captions: one object of videos, each with several moments and sentences.

Source   2D-TAN and MS-2D-TAN: windows cut to [0, duration], those without length dropped. val_1 selects,
         val_2 (published as "test") is reported; both describe largely the same videos. Most sentences begin
         with a blank, which is taken off. The files have no qid: rows are numbered from 0 in file order,
         before anything is dropped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from momentkit.core.errors import DataError
from momentkit.data.annotations import AnnotationReport, check_rows
from momentkit.data.row import WindowRules


def read_captions(path: str | Path, videos: Any) -> AnnotationReport:
    """Rows of `{train,val,test}.json`; `line` of a row is its number in the file, from 1.

    Args:
        path: the file, for messages.
        videos: what it holds.

    Raises:
        DataError: no object of videos, or a video without one of its fields.
    """
    if not isinstance(videos, dict):
        raise DataError(f"{path}: an object of videos is wanted, got {type(videos).__name__}")
    return check_rows(path, _rows(path, videos), WindowRules(clip_windows=True, drop_bad_windows=True))


def _rows(path: str | Path, videos: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for vid, video in videos.items():
        try:
            pairs = list(zip(video["timestamps"], video["sentences"], strict=True))
            row = {"vid": vid, "duration": video["duration"]}
            sentences = [sentence.strip() for _, sentence in pairs]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path}: {vid}: duration, timestamps and sentences are wanted: {error!r}"
            ) from error
        for (window, _), sentence in zip(pairs, sentences, strict=True):
            number += 1
            yield number, row | {"qid": number - 1, "query": sentence, "relevant_windows": [window]}
