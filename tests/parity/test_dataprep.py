"""Our data preparation equals the published FlashVTG dataset class on its stored inputs and outputs."""

import json
from pathlib import Path

import numpy as np
import pytest

from momentkit.data.dataset import DataConfig, GroundingDataset
from momentkit.data.options import StreamConfig

FOLDER = Path(__file__).parent / "flashvtg" / "standalone"
CASE = json.loads((FOLDER / "dataprep.json").read_text())
ARRAYS = np.load(FOLDER / "dataprep.npz")
# `raw.<folder>.<id>` -> key of the published file layout
KEYS = {"txt": "last_hidden_state", "tvt": "last_hidden_state"}


def stream(folder: str, dim: int, normalisation: str = "l2") -> StreamConfig:
    return StreamConfig(
        folder=folder,
        encoder=folder,
        layer="x",
        dim=dim,
        key=KEYS.get(folder, ""),
        normalisation=normalisation,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    for name in ARRAYS:
        kind, _, rest = name.partition(".")
        if kind == "raw":
            folder, _, file = rest.partition(".")
            (root / folder).mkdir(exist_ok=True)
            np.savez(root / folder / f"{file}.npz", **{KEYS.get(folder, "features"): ARRAYS[name]})
    return root


def dataset(root: Path, item: dict, **options) -> GroundingDataset:
    (root / "rows.jsonl").write_text(json.dumps(item) + "\n")
    options = {"video": (stream("sf", 6), stream("cl", 4)), "text": stream("txt", 5), **options}
    config = DataConfig(root=str(root), train="rows.jsonl", val="rows.jsonl", **options)
    return GroundingDataset(config, "train", seed=0)


def test_qvhighlights_rows_equal_the_published_ones(root):
    case = CASE["hl"]
    data = dataset(root, case["item"], layout="qvhighlights", clip_length_s=2.0, max_clips=75, max_words=6)
    assert data.report.cut_clips == (1, 0)
    assert data.report.long_texts == 1
    relevant = set(case["item"]["relevant_clip_ids"])
    for epoch in range(5):
        sample = data.sample(0, epoch)
        np.testing.assert_array_equal(sample.video_TD, ARRAYS["hl.video_feat"])
        np.testing.assert_array_equal(sample.text_LE, ARRAYS["hl.query_feat"])
        np.testing.assert_array_equal(sample.saliency_T, ARRAYS["hl.saliency_all_labels"])
        assert sample.positive_clip_P[0] == case["hard_positive"]
        assert sample.negative_clip_P[0] == case["hard_negative"]
        assert sample.positive_clip_P[1] in relevant
        assert sample.negative_clip_P[1] not in relevant


def test_qvhighlights_rows_cut_to_twenty_clips_equal_the_published_ones(root):
    item, limits = CASE["hl"]["item"], CASE["hl_trunc20"]
    data = dataset(
        root,
        item,
        layout="qvhighlights",
        clip_length_s=2.0,
        max_clips=limits["max_v_l"],
        max_words=limits["max_q_l"],
    )
    sample = data.sample(0, 0)
    np.testing.assert_array_equal(sample.video_TD, ARRAYS["hl_trunc20.video_feat"])
    np.testing.assert_array_equal(sample.text_LE, ARRAYS["hl_trunc20.query_feat"])
    assert data.report.long_videos == 1


@pytest.mark.parametrize("number", range(4))
def test_one_window_labels_equal_the_published_ones(root, number):
    case = CASE["charades"][number]
    data = dataset(root, case["item"], layout="charades", clip_length_s=1.0, video=(stream("sf", 6),))
    first, last = case["all_positive_range"]
    for epoch in range(5):
        sample = data.sample(0, epoch)
        np.testing.assert_array_equal(sample.saliency_T, ARRAYS[f"charades{number}.saliency_all_labels"])
        assert all(first <= clip <= last for clip in sample.positive_clip_P)
        if (first, last) == (0, len(sample.saliency_T) - 1):
            np.testing.assert_array_equal(sample.negative_clip_P, sample.positive_clip_P)
        else:
            assert not any(first <= clip <= last for clip in sample.negative_clip_P)
            assert len(set(sample.negative_clip_P.tolist())) == 2
        assert len(set(sample.positive_clip_P.tolist())) == (1 if first == last else 2)


def test_tvsum_rows_equal_the_published_ones(root):
    label = ARRAYS["tvsum.label"]
    item = {"qid": "vv", "query": "q", "vid": "vv", "duration": len(label), "label": label.tolist()}
    data = dataset(
        root,
        item,
        layout="tvsum",
        clip_length_s=2.0,
        video=(stream("tv", 6),),
        text=stream("tvt", 5, normalisation="none"),
    )
    sample = data.sample(0, 0)
    np.testing.assert_array_equal(sample.video_TD, ARRAYS["tvsum.video_feat"])
    np.testing.assert_array_equal(sample.text_LE, ARRAYS["tvsum.query_feat"])
    np.testing.assert_array_equal(sample.saliency_T, ARRAYS["tvsum.saliency_all_labels"].astype(np.float32))
    assert sample.positive_clip_P.tolist() == CASE["tvsum"]["pos"]
    assert sample.negative_clip_P.tolist() == CASE["tvsum"]["neg"]
    assert sample.duration_s == 2.0 * len(label)
    assert data.report.label_cuts == 1
