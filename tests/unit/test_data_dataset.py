"""The data set: what a sample holds, what is refused, what is counted."""

import json
import time

import numpy as np
import pytest

from data_world import CLIPS, config, rows, stream, write_world
from momentkit.core.config import build
from momentkit.core.errors import ConfigError, DataError, FeatureError, FeatureMismatchError
from momentkit.data.dataset import DataConfig, GroundingDataset, video_key
from momentkit.features.store import l2_normalise, time_channels, write_features


@pytest.fixture
def root(tmp_path):
    return write_world(tmp_path / "world")


def write_rows(root, annotations):
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in annotations))


def test_a_sample_holds_normalised_streams_in_the_declared_order_and_the_time_channels_last(root):
    motion = np.load(root / "motion" / "c.npz")["features"].astype(np.float32)
    image = np.load(root / "image" / "c.npz")["features"]
    words = np.load(root / "text" / "qid3.npz")["last_hidden_state"].astype(np.float32)
    time_T2 = time_channels(4)
    sample = GroundingDataset(config(root), "train").sample(3)
    np.testing.assert_array_equal(
        sample.video_TD, np.concatenate([l2_normalise(motion), l2_normalise(image), time_T2], 1)
    )
    np.testing.assert_array_equal(sample.text_LE, l2_normalise(words))
    other = config(root, video=(stream("image", 3, normalisation="none"), stream("motion", 5)), tef=False)
    sample = GroundingDataset(other, "train").sample(3)
    np.testing.assert_array_equal(sample.video_TD, np.concatenate([image, l2_normalise(motion)], 1))
    assert other.contract.video_dim == sample.video_TD.shape[1]


def test_windows_are_clips_not_rounded_and_all_kept(root):
    write_rows(root, [{**rows()[0], "relevant_windows": [[1, 4], [6, 8.5]] + [[10, 11]] * 6}])
    sample = GroundingDataset(config(root), "train").sample(0)
    np.testing.assert_array_equal(sample.windows_clip[:2], [[0.5, 2], [3, 4.25]])
    assert len(sample.windows_clip) == 8


def test_moments_become_labels_in_steps_of_the_duration_over_the_clips_or_of_the_clip_length(root):
    row = {"qid": 0, "query": "a", "vid": "c", "duration": 10, "relevant_windows": [[5, 10]]}
    write_rows(root, [row])  # 4 clips of 2 s for 10 s of video
    for step, expected in (("duration", [0, 0, 1, 1]), ("clip_length", [0, 0, 1, 1])):
        data = GroundingDataset(config(root, label_step=step), "train")
        assert data.sample(0).saliency_T.tolist() == expected
    write_rows(root, [row | {"relevant_windows": [[2, 4]]}])
    for step, expected in (("duration", [1, 0, 0, 0]), ("clip_length", [0, 1, 0, 0])):
        data = GroundingDataset(config(root, label_step=step), "train")
        assert data.sample(0).saliency_T.tolist() == expected


def test_at_most_max_windows_are_kept_drawn_by_epoch(root):
    windows = [[float(start), start + 1.0] for start in range(0, 18, 2)]
    write_rows(root, [{**rows()[0], "relevant_windows": windows}])
    data = GroundingDataset(config(root, max_windows=5), "train", seed=1)
    drawn = {tuple(data.sample(0, epoch).windows_clip[:, 0].tolist()) for epoch in range(20)}
    assert len(drawn) > 10
    assert all(len(set(starts)) == 5 and set(starts) <= set(range(9)) for starts in drawn)
    assert data.queries[0].windows_s == tuple(map(tuple, windows))  # the truth is left as it is


def test_streams_of_different_length_are_cut_and_counted(tmp_path):
    root = write_world(tmp_path / "uneven", extra_motion=1)
    data = GroundingDataset(config(root), "train")
    assert data.report.uneven_videos == len(CLIPS)
    assert data.report.cut_clips == (len(CLIPS), 0)
    assert "different length" in " ".join(data.report.notes)
    assert data.sample(0).video_TD.shape == (10, 10)


def test_streams_that_differ_by_more_than_a_tenth_are_refused(tmp_path):
    root = write_world(tmp_path / "uneven", extra_motion=10)
    with pytest.raises(FeatureError, match=r"a_0\.0_10\.0\.npz: 20.*a_0\.0_10\.0\.npz: 10"):
        GroundingDataset(config(root), "train")
    assert GroundingDataset(config(root, max_cut=1.0), "train").report.cut_clips == (40, 0)


def test_cuts_to_max_clips_and_max_words_are_counted(root):
    data = GroundingDataset(config(root, max_clips=7, max_words=5), "train")
    assert data.report.long_videos == 2
    assert data.report.long_texts == 2
    assert data.sample(0).video_TD[-1, -1] == pytest.approx(1)  # time channels of what is left
    assert data.sample(4).text_LE.shape == (5, 4)


def test_relevant_clips_beyond_the_features_are_dropped_and_counted(root):
    row = {**rows()[0], "relevant_clip_ids": [1, 9, 10, 30], "saliency_scores": [[1, 1, 1]] * 4}
    write_rows(root, [row])
    data = GroundingDataset(config(root), "train")
    assert data.report.dropped_clip_ids == 2
    assert data.sample(0).saliency_T.shape == (10,)
    assert data.sample(0).saliency_T.sum() == 6


def test_a_file_without_labels_can_be_read(root):
    bare = [{key: row[key] for key in ("qid", "query", "vid", "duration")} for row in rows()]
    write_rows(root, bare)
    data = GroundingDataset(config(root), "val")
    assert data.report.unlabelled == len(bare)
    assert not data.sample(0).labelled
    assert data.sample(0).windows_clip.shape == (0, 2)


def test_another_annotation_file_is_given_by_its_path(root, tmp_path):
    (tmp_path / "other.jsonl").write_text(json.dumps(rows()[3]))
    assert len(GroundingDataset(config(root), str(tmp_path / "other.jsonl"))) == 1


def test_missing_features_are_counted(root):
    (root / "motion" / "c.npz").unlink()
    (root / "image" / "b_0.0_10.0.npz").unlink()
    with pytest.raises(FeatureError, match="2 of 4 are wanting"):
        GroundingDataset(config(root), "train")


def test_features_of_other_width_are_refused(root):
    with pytest.raises(FeatureError, match=r"a_0\.0_10\.0\.npz: 3 channels, dim = 4 is declared"):
        GroundingDataset(config(root, video=(stream("image", 4),)), "train")


def test_features_that_are_not_finite_are_refused_by_name(root):
    np.savez(root / "image" / "c.npz", features=np.full((4, 3), np.nan, np.float32))
    with pytest.raises(FeatureError, match=r"c\.npz"):
        GroundingDataset(config(root), "train")


def test_a_contract_beside_the_features_must_be_the_declared_one(root):
    declared = stream("new", 3, dtype="float16", fps=2.0)
    for vid, clips in CLIPS.items():
        write_features(root / "new" / vid, np.ones((clips, 3), np.float32), declared.contract)
    assert len(GroundingDataset(config(root, video=(declared,)), "train")) == 5
    with pytest.raises(FeatureMismatchError, match=r"fps of the features is 2\.0, expected 1\.0"):
        GroundingDataset(config(root, video=(stream("new", 3, dtype="float16", fps=1.0),)), "train")


def test_a_wrong_clip_length_is_noticed(root):
    with pytest.raises(DataError, match=r"cover 0\.50 of its duration at clip_length_s = 1"):
        GroundingDataset(config(root, clip_length_s=1.0), "train")


@pytest.mark.parametrize("vid", ["../c", "/etc/passwd", "..", "a\\b", "a\0b"])
def test_a_name_that_leads_out_of_the_folder_is_refused(root, vid):
    write_rows(root, [{**rows()[3], "vid": vid}])
    with pytest.raises(DataError, match="file name"):
        GroundingDataset(config(root), "train")


def test_two_queries_of_one_source_share_a_video_key(root):
    chosen = config(root)
    assert video_key("a_0.0_10.0", chosen) == video_key("a_10.0_20.0", chosen) == "a"
    assert video_key("my_film_0_150", chosen) == "my_film"
    assert video_key("film_0001", chosen) == "film_0001"
    assert video_key("a_0.0_10.0", config(root, layout="charades")) == "a_0.0_10.0"
    assert video_key("a_0.0_10.0", config(root, video_key="vid")) == "a_0.0_10.0"
    assert GroundingDataset(chosen, "train").sample(1).video_key == "a"


def test_youtube_needs_one_label_a_feature_row(root):
    row = {"qid": 1, "query": "dog", "vid": "c", "duration": 99, "label": [[0], [1], [1], [0]]}
    write_rows(root, [row])
    youtube = config(root, layout="youtube", text=stream("text", 4, files=("qid{qid}",)))
    assert GroundingDataset(youtube, "train").sample(0).saliency_T.tolist() == [0, 1, 1, 0]
    write_rows(root, [{**row, "label": row["label"] * 2}])
    with pytest.raises(FeatureError, match="label has 8 clips and the features of c 4"):
        GroundingDataset(youtube, "train")


def test_tvsum_takes_its_duration_from_the_labels_and_refuses_summed_ones(root):
    row = {"qid": 1, "query": "dog", "vid": "c", "duration": 4, "label": [[1] * 20] * 4, "domain": "PK"}
    tvsum = {"layout": "tvsum", "text": stream("text", 4, files=("qid{qid}",))}
    write_rows(root, [row, {**row, "domain": "VT", "vid": "b_0.0_10.0"}])
    data = GroundingDataset(config(root, domain="PK", **tvsum), "train")
    assert [query.duration_s for query in data.queries] == [8.0]
    with pytest.raises(DataError, match=r"no row of domain 'XX'; its domains are PK, VT"):
        GroundingDataset(config(root, domain="XX", **tvsum), "train")
    write_rows(root, [{**row, "label": [[55]] * 4}])
    with pytest.raises(DataError, match="_sfc"):
        GroundingDataset(config(root, **tvsum), "train")


def test_several_files_of_a_stream_are_normalised_together(root):
    for vid in CLIPS:
        for number, name in enumerate(("motion", "image")):
            features = np.load(root / name / f"{vid}.npz")["features"].astype(np.float64)
            np.save(root / "image" / f"{vid}_{number}.npy", features)
    joined = config(root, video=(stream("image", 8, files=("{vid}_0", "{vid}_1")),), tef=False)
    video_TD = GroundingDataset(joined, "train").sample(0).video_TD
    np.testing.assert_allclose(np.linalg.norm(video_TD, axis=1), 1, atol=1e-4)
    with pytest.raises(ConfigError, match=r"\{vid\} and \{qid\} only"):
        stream("image", 8, files=("{vid.__class__}",))


def test_a_memory_map_gives_the_same_samples_and_counts_and_is_read_again(tmp_path):
    root = write_world(tmp_path / "world", extra_motion=1)
    plain = GroundingDataset(config(root, max_words=4), "train")
    mapped = config(root, max_words=4, memory_map=str(tmp_path / "maps"))
    for _ in range(2):
        data = GroundingDataset(mapped, "train")
        assert data.report == plain.report
        for index in range(len(plain)):
            np.testing.assert_array_equal(data.sample(index).video_TD, plain.sample(index).video_TD)
            np.testing.assert_array_equal(data.sample(index).text_LE, plain.sample(index).text_LE)
    maps = sorted(tmp_path.glob("maps/*.f32"))
    assert len(maps) == 2
    times = [file.stat().st_mtime_ns for file in maps]
    GroundingDataset(mapped, "train")
    assert [file.stat().st_mtime_ns for file in maps] == times
    np.savez(root / "image" / "c.npz", features=np.ones((4, 3), np.float32))  # changed: a new map
    changed = GroundingDataset(mapped, "train").sample(3).video_TD
    assert np.ptp(changed[:, 5:8]) == 0


def test_a_damaged_memory_map_is_refused(root, tmp_path):
    mapped = config(root, memory_map=str(tmp_path / "maps"))
    GroundingDataset(mapped, "train")
    for file in tmp_path.glob("maps/*.f32"):
        file.write_bytes(b"\0" * 8)
    with pytest.raises(DataError, match="delete both"):
        GroundingDataset(mapped, "train")


def test_samples_of_a_cache_cannot_be_written_to(root):
    sample = GroundingDataset(config(root), "train").sample(0)
    with pytest.raises(ValueError, match="read-only"):
        sample.video_TD[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        sample.text_LE[0, 0] = 1


def test_a_sample_costs_less_than_a_fifth_of_a_millisecond(root):
    data = GroundingDataset(config(root), "train")
    best = min(_seconds_of(lambda: [data.sample(0, epoch) for epoch in range(50)]) for _ in range(20))
    assert best / 50 < 2e-4


def _seconds_of(work) -> float:
    start = time.process_time()  # not the clock: other tests run beside this one
    work()
    return time.process_time() - start


def test_options_come_from_a_table_and_wrong_ones_are_refused():
    streams = [{"folder": "clip", "encoder": "c", "layer": "x", "dim": 512}]
    values = {
        "root": "r", "layout": "charades", "train": "t", "val": "v", "clip_length_s": 1,
        "video": streams, "text": streams[0],
    }  # fmt: skip
    made = build(DataConfig, values, "a.toml [data]")
    assert made.contract.video_dim == 514
    assert made.text_files() == ("qid{qid}",)
    for change, message in [
        ({"layout": "kinetics"}, "layout"),
        ({"clip_length": 2}, "no option 'clip_length'"),
        ({"clip_length_s": 0}, "clip_length_s must be positive"),
        ({"clip_length_s": float("nan")}, "clip_length_s"),
        ({"max_clips": 0}, "max_clips"),
        ({"max_windows": 0}, "max_windows"),
        ({"max_cut": 2}, "max_cut"),
        ({"video": []}, "at least one stream"),
        ({"video": [streams[0] | {"dims": 3}]}, r"video\.0\.dims"),
        ({"text": streams[0] | {"dim": 0}}, "dim must be positive"),
        ({"text": streams[0] | {"normalisation": "l3"}}, "normalisation"),
    ]:
        with pytest.raises(ConfigError, match=message):
            build(DataConfig, values | change, "a.toml [data]")
