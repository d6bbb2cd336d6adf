"""What a data set holds, in figures: rows, durations, windows, words, feature shapes."""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from momentkit.core.contract import StreamContract
from momentkit.core.errors import DataError
from momentkit.core.types import Query
from momentkit.features.store import read_headers

Figures = dict[str, str]
_FEATURE_ENDINGS = {".npz", ".npy", ".pt"}


@dataclass(frozen=True)
class Folder:
    """What lies in a folder.

    Attributes:
        annotations: files of rows, in name order.
        features: folders of feature files, in name order.
    """

    annotations: tuple[Path, ...]
    features: tuple[Path, ...]


def look_into(root: Path) -> Folder:
    """Find annotation files (`*.jsonl`, `*.jsonl.gz`) and feature folders below a folder, four levels deep.

    Raises:
        DataError: there is neither.
    """
    annotations, features = [], []
    for depth in range(5):
        for path in sorted(root.glob("*/" * depth + "*")):
            if path.is_file() and path.name.endswith((".jsonl", ".jsonl.gz")):
                annotations.append(path)
            elif path.is_dir() and any(file.suffix in _FEATURE_ENDINGS for file in path.iterdir()):
                features.append(path)
    if not annotations and not features:
        raise DataError(f"{root} holds neither .jsonl annotations nor folders of .npz, .npy or .pt features")
    return Folder(tuple(annotations), tuple(features))


def annotation_figures(queries: Sequence[Query]) -> Figures:
    """Rows, videos, durations, windows and words of annotations."""
    windows = [window for query in queries for window in query.windows_s or ()]
    lengths_s = [end_s - start_s for start_s, end_s in windows]
    durations_s = list({query.vid: query.duration_s for query in queries}.values())
    unlabelled = sum(query.windows_s is None and query.clip_labels is None for query in queries)
    return {
        "rows": f"{len(queries)}",
        "videos": f"{len(durations_s)}",
        "duration of a video (s)": _spread(durations_s),
        "windows": f"{len(windows)}",
        "windows of a row": _spread([len(query.windows_s or ()) for query in queries]),
        "length of a window (s)": _spread(lengths_s),
        "words of a query": _spread([len(query.text.split()) for query in queries]),
        "rows with ratings": f"{sum(query.saliency_scores is not None for query in queries)}",
        "rows with clip labels": f"{sum(query.clip_labels is not None for query in queries)}",
        "rows without labels": f"{unlabelled}",
    }


def feature_figures(folder: Path) -> Figures:
    """Files of a feature folder, and the shapes their headers claim.

    Raises:
        FeatureError: a file is damaged.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix in _FEATURE_ENDINGS)
    shapes: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for file in files:
        for key, (shape, dtype) in read_headers(file).items():
            channels = shape[-1] if shape else 0
            shapes[f"{key or 'array'}: {channels} channels, {dtype}"].append(shape)
    figures = {"files": f"{len(files)}"}
    for kind, seen in shapes.items():
        rows = [shape[0] if len(shape) > 1 else 1 for shape in seen]
        figures[kind] = f"{len(seen)} arrays, rows {_spread(rows)}"
    return figures


def data_section(
    root: Path,
    train: Path,
    val: Path,
    video: StreamContract,
    text: StreamContract,
    clip_length_s: float,
    *,
    layout: str = "own",
    features: str = "",
) -> str:
    """The [data] section of a folder with features in `video/` and `text/`.

    Args:
        root: the folder.
        train, val: annotation files, inside it or elsewhere.
        video, text: what the features are.
        clip_length_s: seconds a clip covers.
        layout: of the annotations.
        features: the folder inside `root` that holds both, with its slash; "" = `root` itself.
    """
    names = (os.path.relpath(file, root) for file in (train, val))
    lines = [
        "[data]",
        f"root = {json.dumps(str(root))}",
        f'layout = "{layout}"',
        *(f"{key} = {json.dumps(name)}" for key, name in zip(("train", "val"), names, strict=True)),
        f"clip_length_s = {clip_length_s}",
    ]
    for table, folder, stream in (("[[data.video]]", "video", video), ("[data.text]", "text", text)):
        lines += ["", table, f'folder = "{features}{folder}"']
        lines += [f"{name} = {json.dumps(value)}" for name, value in stream.model_dump().items()]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none"
    return f"{min(values):g} to {max(values):g}, mean {float(np.mean(values)):.4g}"
