"""The published annotation files give the counts that are known of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from momentkit.data.annotations import load_annotations, read_annotations, validate_annotations
from momentkit.data.catalog import find_published
from momentkit.data.charades import FIRST_TEST_QID, read_lengths, read_text_form
from momentkit.data.compare_published import hold_against
from momentkit.data.dataset import DataConfig, GroundingDataset
from momentkit.data.forms import load_form, read_json
from momentkit.data.options import StreamConfig
from momentkit.data.row import WindowRules
from momentkit.data.tacos import read_frames_form
from momentkit.features.store import read_video_stream
from momentkit.metrics.didemo import single_target
from momentkit.train.evaluate import figures

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def published(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"published data not present: {path}")
    return path


def by_position(queries):
    return [replace(query, line=0) for query in queries]


def lengths_of(queries):
    return np.array([end - start for query in queries for start, end in query.windows_s])


@pytest.mark.parametrize(
    ("split", "rows", "videos", "sources", "windows", "by_length", "mean"),
    [
        ("train_release", 7218, 7100, 2214, 12803, (4774, 4997, 3032), 25.08),
        ("val_release", 1550, 1519, 474, 2803, (1130, 1062, 611), 23.22),
        ("test_with_gt", 1542, 1529, 476, 2761, (1079, 1069, 613), 23.82),
    ],
)
def test_qvhighlights(split, rows, videos, sources, windows, by_length, mean):
    queries = read_annotations(published(f"qvhighlights/highlight_{split}.jsonl.gz"))
    lengths_s = lengths_of(queries)
    assert len(queries) == len({query.qid for query in queries}) == rows
    assert len({query.vid for query in queries}) == videos
    assert len({query.vid[:11] for query in queries}) == sources
    assert len(lengths_s) == windows
    short, long = (lengths_s <= 10).sum(), (lengths_s > 30).sum()
    assert (short, windows - short - long, long) == by_length
    assert round(lengths_s.mean(), 2) == mean
    for query in queries:  # clip ids are the 2 s clips inside the windows
        inside = {clip for start, end in query.windows_s for clip in range(int(start) // 2, int(end) // 2)}
        assert query.relevant_clips == tuple(sorted(inside))
        assert {len(scores) for scores in query.saliency_scores} == {3}


def test_qvhighlights_test_file_without_labels_holds_the_rows_of_the_one_with():
    bare = read_annotations(published("qvhighlights/highlight_test_release.jsonl.gz"))
    full = read_annotations(published("qvhighlights/highlight_test_with_gt.jsonl.gz"))
    assert bare == [
        replace(query, windows_s=None, relevant_clips=None, saliency_scores=None) for query in full
    ]


@pytest.mark.parametrize(
    ("split", "first", "lines", "rows", "cut", "videos", "mean", "short", "long"),
    [
        ("train", 0, 12408, 12404, 1805, 5336, 8.17, 57, 10),
        ("test", FIRST_TEST_QID, 3720, 3720, 562, 1334, 7.83, 16, 0),
    ],
)
def test_charades_sta(split, first, lines, rows, cut, videos, mean, short, long):
    lengths_s = read_lengths(published("charades_sta/video_lengths.csv"))
    assert len(lengths_s) == 6672
    report = read_text_form(
        published(f"charades_sta/charades_sta_{split}.txt.gz"), lengths_s, first_qid=first
    )
    assert (report.rows, len(report.queries), report.clipped_windows) == (lines, rows, cut)
    assert len(report.dropped_lines) == lines - rows
    rows_s = lengths_of(report.queries)
    assert round(rows_s.mean(), 2) == mean
    assert ((rows_s < 2).sum(), (rows_s > 30).sum()) == (short, long)
    assert len({query.vid for query in report.queries}) == videos
    rewritten = read_annotations(published(f"charades_sta/charades_sta_{split}_tvr_format.jsonl.gz"))
    assert by_position(report.queries) == by_position(rewritten)


@pytest.mark.parametrize(
    ("name", "rows", "repeated"),
    [("len/train_len", 11633, 2326), ("len/test_len", 985, 197), ("mom/train_mom", 6662, 1332),
     ("mom/test_mom", 1297, 259)],
)  # fmt: skip
def test_charades_shifted_splits_repeat_their_qids(name, rows, repeated):
    report = load_annotations(published(f"charades_sta_{name}_80.jsonl.gz"))
    assert (len(report.queries), report.repeated_qids) == (rows, repeated)


@pytest.mark.parametrize(
    ("name", "rows", "outside", "without_length"),
    [("train", 11071, 1652, 0), ("test_iid", 823, 151, 0), ("test_ood", 3375, 348, 3)],
)
def test_charades_cd_needs_its_windows_cut(name, rows, outside, without_length):
    report = validate_annotations(
        published(f"charades_cd/charades_{name}_momentdiff.jsonl.gz"), WindowRules(clip_windows=True)
    )
    assert report.clipped_windows == outside
    assert report.counts == (
        {"window does not end after its start": without_length} if without_length else {}
    )
    assert len(report.queries) == rows - without_length


@pytest.mark.parametrize(
    ("split", "rows", "videos", "cut", "mean", "by_length", "short"),
    [
        ("train", 9790, 75, 43, 23.3, (4626, 3112, 1870, 182), 253),
        ("val", 4436, 27, 0, 34.3, (1537, 1569, 1171, 159), 82),
        ("test", 4001, 25, 5, 31.9, (1437, 1392, 1029, 143), 61),
    ],
)
def test_tacos(split, rows, videos, cut, mean, by_length, short):
    report = read_frames_form(published(f"tacos/2dtan_{split}.json.gz"))
    assert (len(report.queries), report.clipped_windows) == (rows, cut)
    assert len({query.vid for query in report.queries}) == videos
    lengths_s = lengths_of(report.queries)
    assert round(lengths_s.mean(), 1) == mean
    assert tuple(np.histogram(-lengths_s, [-np.inf, -150, -30, -10, 0])[0][::-1]) == by_length
    assert (lengths_s < 2).sum() == short
    rewritten = read_annotations(published(f"tacos/{split}.jsonl.gz"))
    assert by_position(report.queries) == by_position(rewritten)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("qvhighlights", "qvhighlights"), ("charades", "charades_sta"), ("charades-len", "charades_sta_len"),
     ("charades-mom", "charades_sta_mom"), ("charades-cd", "charades_cd"), ("tacos", "tacos"),
     ("didemo", "didemo"), ("activitynet", "activitynet_captions"), ("tvsum", "tvsum"),
     ("youtube", "youtube_highlights")],
)  # fmt: skip
def test_every_published_file_holds_the_counts_of_the_catalogue(name, folder):
    findings = hold_against(find_published(name), published(folder))
    assert [found.differs for found in findings] == [[]] * len(findings)
    missing = [found.part.name for found in findings if found.path is None]
    assert missing == (["train"] if name == "didemo" else [])  # too large for the mirror


@pytest.mark.parametrize(("split", "cut"), [("train", 261), ("val", 134), ("test", 111)])
def test_activitynet_ends_behind_the_video_are_cut(split, cut):
    report = load_form(published(f"activitynet_captions/{split}.json.gz"), "activitynet")
    assert report.clipped_windows == cut
    assert len(report.dropped_lines) == (4 if split == "train" else 0)


@pytest.mark.parametrize("split", ["val", "test"])
def test_didemo_moments_are_those_of_the_metric(split):
    path = published(f"didemo/{split}_data.json.gz")
    for row, query in zip(read_json(path), load_form(path, "didemo").queries, strict=True):
        start, end = single_target(np.array(row["times"]))
        assert query.windows_s == ((start, min(end, query.duration_s)),)


def test_didemo_is_scored_the_official_way_too():
    """The first chunk for every sentence: the data set's own figures for the frequency prior."""
    data = DataConfig(
        root=".", layout="didemo", train="t", val="v", clip_length_s=5.0,
        video=(stream("video", 4),), text=stream("text", 4),
    )  # fmt: skip
    queries = load_form(published("didemo/val_data.json.gz"), "didemo").queries
    rows = [{"qid": query.qid, "pred_relevant_windows": [[0.0, 5.0, 1.0]]} for query in queries]
    found = figures(rows, queries, data)[0]
    assert (found["DiDeMo-Rank@1"], found["DiDeMo-mIoU"]) == (18.68, 25.22)


@pytest.mark.parametrize("apart", [False, True])
def test_tvsum_audio_that_is_one_longer_is_cut(apart):
    config = DataConfig(
        root=str(published("tvsum_i3d")),
        layout="tvsum",
        train="../tvsum/tvsum_train.jsonl.gz",
        val="../tvsum/tvsum_val.jsonl.gz",
        video=(stream("video", 2048),),
        audio=stream("audio", 2048),
        audio_apart=apart,
        text=stream("text", 512, normalisation="none"),
        clip_length_s=2.0,
    )
    reports = [GroundingDataset(config, split).report for split in ("train", "val")]
    assert [sum(lost) for lost in zip(*(report.cut_clips for report in reports), strict=True)] == [0, 1]
    sample = GroundingDataset(config, "val").sample(0)
    assert sample.video_TD.shape[1] == config.contract.video_dim == (2050 if apart else 4100)
    assert (None if sample.audio_TA is None else sample.audio_TA.shape[1]) == (2050 if apart else None)


def test_tvsum_and_youtube_rows_are_counted():
    counts = {
        name: len(read_annotations(published(f"{name}.jsonl.gz")))
        for name in ("tvsum/tvsum_train", "tvsum/tvsum_val", "youtube_highlights/youtube_train",
                     "youtube_highlights/youtube_valid")
    }  # fmt: skip
    assert list(counts.values()) == [40, 10, 233, 152]


def stream(folder: str, dim: int, **options) -> StreamConfig:
    return StreamConfig(folder=folder, encoder=folder, layer="x", dim=dim, **options)


def test_a_released_qvhighlights_video_is_cut_from_76_to_75_clips():
    root = published("qvhighlights_sample")
    config = DataConfig(
        root=str(root),
        layout="qvhighlights",
        train="sample.jsonl",
        val="sample.jsonl",
        video=(stream("slowfast_features", 2304), stream("clip_features", 512)),
        text=stream("clip_text_features", 512),
        clip_length_s=2.0,
        max_clips=75,
        max_words=40,
    )
    data = GroundingDataset(config, "train")
    sample = data.sample(0)
    assert sample.video_TD.shape == (75, config.contract.video_dim) == (75, 2818)
    assert sample.text_LE.shape == (16, 512)
    assert sample.video_key == "NUsG9BgSes0"
    assert sample.windows_clip.tolist() == [[41, 75]]
    assert sample.saliency_T[40:48].tolist() == [0, 4, 5, 5, 5, 5, 4, 5]
    assert data.report.long_videos == 1  # the 76th SlowFast row falls to max_clips, before the streams meet
    unlimited = GroundingDataset(replace(config, max_clips=-1), "train")
    assert unlimited.report.cut_clips == (1, 0)
    np.testing.assert_array_equal(unlimited.sample(0).video_TD, sample.video_TD)


def test_tvsum_features_and_labels_have_equal_length():
    config = DataConfig(
        root=str(published("tvsum_i3d")),
        layout="tvsum",
        train=str(published("tvsum/tvsum_train.jsonl.gz")),
        val=str(published("tvsum/tvsum_val.jsonl.gz")),
        video=(stream("video", 2048),),
        text=stream("text", 512, normalisation="none"),
        clip_length_s=2.0,
        max_clips=1000,
    )
    data = GroundingDataset(config, "val")
    assert data.report.notes == ()
    assert len(data) == 10
    assert max(sample.saliency_T.max() for sample in map(data.sample, range(10))) <= 12


def test_charades_clip_features_are_within_two_clips_of_their_duration():
    rows = read_annotations(published("charades_clip/val.jsonl"))
    assert len(rows) == 539
    videos = {query.vid: query.duration_s for query in rows}
    assert len(videos) == 200
    for vid, duration_s in list(videos.items())[:20]:
        rows_TD = read_video_stream(SHARED / "charades_clip" / "clip" / vid)
        assert abs(len(rows_TD) - duration_s) <= 2
        np.testing.assert_allclose(np.linalg.norm(rows_TD, axis=1), 1, atol=2e-3)
