"""A data set of a few rows, written to a folder: what the tests of data need."""

import json
from pathlib import Path

import numpy as np

from momentkit.data.options import DataConfig, StreamConfig

CLIPS = {"a_0.0_10.0": 10, "a_10.0_20.0": 7, "b_0.0_10.0": 10, "c": 4}


def stream(folder: str, dim: int, **options) -> StreamConfig:
    return StreamConfig(folder=folder, encoder=f"encoder of {folder}", layer="out", dim=dim, **options)


def rows() -> list[dict]:
    return [
        {
            "qid": number,
            "query": f"sentence {number}",
            "vid": vid,
            "duration": CLIPS[vid] * 2,
            "relevant_windows": [[2, 4], [6, 8]],
            "relevant_clip_ids": [1, 3],
            "saliency_scores": [[4, 4, 4], [0, 1, 2]],
        }
        for number, vid in enumerate([*CLIPS, "c"])
    ]


def write_world(root: Path, annotations: list[dict] | None = None, extra_motion: int = 0) -> Path:
    """Features of two streams (5 and 3 channels, the first longer by `extra_motion`) and texts (4)."""
    rng = np.random.default_rng(0)
    annotations = rows() if annotations is None else annotations
    for folder in ("motion", "image", "text"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for vid, clips in CLIPS.items():
        np.savez(root / "motion" / vid, features=rng.standard_normal((clips + extra_motion, 5)).astype("f2"))
        np.savez(root / "image" / vid, features=rng.standard_normal((clips, 3)).astype("f4"))
    for row in annotations:
        words = rng.standard_normal((3 + row["qid"], 4)).astype("f2")
        np.savez(root / "text" / f"qid{row['qid']}", last_hidden_state=words, pooler_output=words[0])
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in annotations))
    return root


def config(root: Path, **options) -> DataConfig:
    chosen = {
        "root": str(root),
        "layout": "qvhighlights",
        "train": "rows.jsonl",
        "val": "rows.jsonl",
        "video": (stream("motion", 5), stream("image", 3)),
        "text": stream("text", 4),
        "clip_length_s": 2.0,
    }
    return DataConfig(**(chosen | options))
