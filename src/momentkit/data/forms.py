"""Rows from whatever form a data set is published in, chosen by the file's ending and the layout.

*.jsonl               the QVHighlights form, any layout            `annotations`
*.txt  (charades)     `VIDEO START END##sentence.` and a table     `charades`
*.json (tacos)        moments in frame numbers                     `tacos`
*.json (activitynet)  one object of videos                         `activitynet`
*.json (didemo)       chunks of several annotators                 `didemo`

Each also with `.gz` behind it.
"""

import json
from pathlib import Path
from typing import Any

from momentkit.core.errors import ConfigError, DataError
from momentkit.core.files import read_lines
from momentkit.data import activitynet, charades, didemo, tacos
from momentkit.data.annotations import AnnotationReport, load_annotations
from momentkit.data.options import DataConfig, Layout
from momentkit.data.row import WindowRules


def rules_of(config: DataConfig) -> WindowRules:
    """What the options say about windows."""
    return WindowRules(
        clip_windows=config.clip_windows,
        keep_outside=config.keep_outside,
        drop_bad_windows=config.drop_bad_windows,
        unrated_clips=config.layout == "subtitles",
    )


def load_rows(config: DataConfig, path: str | Path) -> AnnotationReport:
    """Rows of an annotation file of a data set.

    Raises:
        DataError: the first fault, with file and line; or a file without any row.
        ConfigError: the file's form does not belong to the layout, or needs the table `lengths`.
    """
    lengths = Path(config.root) / config.lengths if config.lengths else None
    return load_form(path, config.layout, rules_of(config), lengths)


def load_form(
    path: str | Path, layout: Layout, rules: WindowRules = WindowRules(), lengths: Path | None = None
) -> AnnotationReport:
    """As `load_rows`, from its parts.

    Args:
        path: the file.
        layout: of the data set.
        rules: for JSON lines; the other forms have the rule of their publisher.
        lengths: table of video lengths.
    """
    ending = Path(str(path).removesuffix(".gz")).suffix
    if ending == ".txt" and layout == "charades":
        if lengths is None:
            raise ConfigError(
                f"{path} holds no durations; name the table of video lengths (Charades_v1_*.csv): lengths"
            )
        first = charades.FIRST_TEST_QID if "test" in Path(path).name else 0
        report = charades.read_text_form(path, charades.read_lengths(lengths), first_qid=first)
    elif ending == ".json" and layout == "tacos":
        report = tacos.read_frames_form(path)
    elif ending == ".json" and layout == "activitynet":
        report = activitynet.read_captions(path, read_json(path))
    elif ending == ".json" and layout == "didemo":
        table = charades.read_lengths(lengths) if lengths is not None else {}
        report = didemo.read_chunks(path, read_json(path), table)
    elif ending in (".json", ".txt"):
        raise ConfigError(f"{path}: no form of the layout {layout!r} ends in {ending}; use a .jsonl file")
    else:
        return load_annotations(path, rules)
    if report.problems:
        raise DataError(report.problems[0].message)
    if not report.queries:
        raise DataError(f"{path} holds no row")
    return report


def read_json(path: str | Path) -> Any:
    """A JSON file, plain or gzip.

    Raises:
        DataError: unreadable, or not JSON.
    """
    text = b"".join(line for _, line in read_lines(path))
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
