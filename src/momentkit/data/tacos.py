"""TACoS in 2D-TAN's form: one JSON object of videos, moments given in frame numbers.

Source   the rows are those of the JSON-lines files of CG-DETR and FlashVTG: `vid` without ".avi", qid
         "<vid>_<n>" counted by video, ends cut to the duration (num_frames / fps).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from momentkit.core.errors import DataError
from momentkit.core.files import read_lines
from momentkit.data.annotations import AnnotationReport, check_rows
from momentkit.data.row import WindowRules


def read_frames_form(path: str | Path) -> AnnotationReport:
    """Rows of 2D-TAN's `{train,val,test}.json`; `line` of a row is its number in the file, from 1.

    Args:
        path: the file, plain or gzip.

    Raises:
        DataError: not JSON, or a video without one of its fields.
    """
    text = b"".join(line for _, line in read_lines(path))
    try:
        videos = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(videos, dict):
        raise DataError(f"{path}: an object of videos is wanted, got {type(videos).__name__}")
    return check_rows(path, _rows(path, videos), WindowRules(clip_windows=True))


def _rows(path: str | Path, videos: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    for name, video in videos.items():
        try:
            fps, frames = float(video["fps"]), float(video["num_frames"])
            pairs = list(zip(video["timestamps"], video["sentences"], strict=True))
            windows_s = [[first / fps, last / fps] for (first, last), _ in pairs]
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise DataError(
                f"{path}: {name}: timestamps, sentences, fps and num_frames are wanted: {error!r}"
            ) from error
        vid = name.removesuffix(".avi")
        for position, ((_, sentence), window_s) in enumerate(zip(pairs, windows_s, strict=True)):
            number += 1
            row = {"qid": f"{vid}_{position}", "query": sentence, "vid": vid, "duration": frames / fps}
            yield number, row | {"relevant_windows": [window_s]}
