"""Our data preparation equals MomentDiff's published one on its stored inputs and outputs.

Two differences are ours on purpose. The published loader cuts the last clip off where `max_v_l` is -1: the
test hands us files without it. Its labels know the first window of a row alone: the test asks for that one.
The sets averaged to 100 rows (TACoS, ActivityNet with C3D) are normalised with the torch rule.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from momentkit.data.dataset import DataConfig, GroundingDataset
from momentkit.data.options import StreamConfig

FOLDER = Path(__file__).parent / "momentdiff"
ARRAYS = np.load(FOLDER / "features.npz")
AVERAGED = ("activity", "tacos")
CASES = {case["dset_name"]: case for case in json.loads((FOLDER / "features.json").read_text())}


def stream(folder: str, dim: int, key: str, normalisation: str = "l2") -> StreamConfig:
    return StreamConfig(
        folder=folder, encoder=folder, layer="x", dim=dim, key=key, normalisation=normalisation
    )


def prepared(name: str, root: Path, first_window: bool) -> GroundingDataset:
    case = CASES[name]
    rows = [dict(row) for row in case["rows"]]
    dims = []
    for number, row in enumerate(rows):
        if first_window:
            row["relevant_windows"] = row["relevant_windows"][:1]
        for source in range(case["n_feature_dirs"]):
            raw = ARRAYS[f"{name}_{number}_raw_video{source}"]
            dims.append(raw.shape[1])
            (root / str(source)).mkdir(exist_ok=True)
            kept = raw[:-1] if case["options"]["max_v_l"] == -1 and name not in AVERAGED else raw
            np.savez(root / str(source) / row["vid"], **{"arr" if name in AVERAGED else "features": kept})
        (root / "text").mkdir(exist_ok=True)
        text = ARRAYS[f"{name}_{number}_raw_text"]
        np.savez(root / "text" / f"qid{row['qid']}", last_hidden_state=text)
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"clips": 100, "clips_rule": "published", "layout": "activitynet"} if name in AVERAGED else {}
    key, rule = ("arr", "unit") if name in AVERAGED else ("features", "l2")
    config = DataConfig(
        root=str(root),
        layout=options.pop("layout", "charades"),
        train="rows.jsonl",
        val="rows.jsonl",
        video=tuple(stream(str(i), dims[i], key, rule) for i in range(case["n_feature_dirs"])),
        text=stream("text", text.shape[1], "last_hidden_state"),
        clip_length_s=case["options"]["clip_len"],
        max_clips=-1 if name in AVERAGED else case["options"]["max_v_l"],
        max_words=32,
        label_step="clip_length",
        keep_outside=True,
        **options,
    )
    return GroundingDataset(config, "train", seed=0)


@pytest.mark.parametrize("name", ["charades_vgg", "charades", "hl", *AVERAGED])
def test_rows_equal_the_published_ones(name: str, tmp_path: Path) -> None:
    data = prepared(name, tmp_path, first_window=False)
    for index in range(3):
        sample, stored = data.sample(index, 0), f"{name}_{index}"
        assert_allclose(sample.video_TD, ARRAYS[f"{stored}_video_feat"], rtol=0, atol=1e-7)
        assert_allclose(sample.text_LE, ARRAYS[f"{stored}_query_feat"], rtol=0, atol=1e-7)
        start, end = (sample.windows_clip / len(sample.video_TD)).T
        ours = np.stack([(start + end) / 2, end - start], 1)
        assert_allclose(ours, ARRAYS[f"{stored}_span_labels"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["charades_vgg", "charades", "hl", *AVERAGED])
def test_labels_equal_the_published_ones(name: str, tmp_path: Path) -> None:
    data = prepared(name, tmp_path, first_window=True)
    for index in range(3):
        labels = data.sample(index, 0).saliency_T
        assert_array_equal(labels, ARRAYS[f"{name}_{index}_saliency_all_labels"])
