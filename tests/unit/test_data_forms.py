"""Feature layouts and annotation forms beside the common ones: HDF5, word vectors, averages."""

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from data_world import CLIPS, config, rows, stream, write_world
from momentkit.core.errors import ConfigError, DataError, FeatureError, MissingExtraError
from momentkit.core.types import Prediction
from momentkit.data.collate import collate
from momentkit.data.dataset import GroundingDataset
from momentkit.data.didemo import agreed_pair
from momentkit.data.forms import load_form
from momentkit.features import hdf5
from momentkit.features.store import average_rows, l2_normalise, read_headers, read_video_stream
from momentkit.features.words import read_word_vectors, tokenise
from momentkit.metrics.didemo import single_target
from momentkit.predict.decode import PostProcess
from momentkit.train.evaluate import evaluate
from momentkit.train.options import TrainConfig
from momentkit.train.run import create_run_model, run_training
from momentkit.train.run_config import RunConfig


@pytest.fixture
def root(tmp_path):
    return write_world(tmp_path / "world")


def as_hdf5(root: Path, folder: str, group: str = "") -> Path:
    """The same features in one file, each video an array or a group of one."""
    path = root / f"{folder}.hdf5"
    with h5py.File(path, "w") as file:
        for found in (root / folder).glob("*.npz"):
            file[f"{found.stem}/{group}" if group else found.stem] = np.load(found)["features"]
    return path


@pytest.mark.parametrize("group", ["", "c3d_features"])
def test_one_hdf5_file_of_all_videos_gives_the_samples_of_a_folder(root, group):
    as_hdf5(root, "motion", group)
    whole = config(root, video=(stream("motion.hdf5", 5, key=group), stream("image", 3)))
    data, other = GroundingDataset(whole, "train"), GroundingDataset(config(root), "train")
    for index in range(len(data)):
        np.testing.assert_array_equal(data.sample(index).video_TD, other.sample(index).video_TD)
    path = root / "motion.hdf5" / "c"
    assert read_headers(path) == {group: ((4, 5), "float16")}


def test_videos_that_an_hdf5_file_lacks_are_counted(root):
    with h5py.File(as_hdf5(root, "motion"), "a") as file:
        del file["c"]
    with pytest.raises(FeatureError, match=r"no entry 'c' in .*motion.hdf5; 1 of 4 are wanting"):
        GroundingDataset(config(root, video=(stream("motion.hdf5", 5),)), "train")


def test_an_hdf5_file_that_points_elsewhere_or_holds_no_numbers_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["v"] = np.ones((2, 3))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["away"] = h5py.ExternalLink("other.h5", "v")
        file["soft"] = h5py.SoftLink("/words")
        file["words"] = "some text"
        file.create_group("group")["a"] = np.ones((2, 3))
    for name, said in (("away", "link"), ("soft", "link"), ("words", "no array of"), ("group", "it holds a")):
        with pytest.raises(FeatureError, match=said):
            read_video_stream(tmp_path / "f.h5" / name)
    with pytest.raises(FeatureError, match="bytes; at most 10"):
        read_video_stream(tmp_path / "other.h5" / "v", limit_bytes=10)
    (tmp_path / "bad.h5").write_bytes(b"no such thing")
    with pytest.raises(FeatureError, match="damaged"):
        read_video_stream(tmp_path / "bad.h5" / "v")


def test_without_h5py_the_extra_is_named(root, monkeypatch):
    as_hdf5(root, "motion")
    hdf5._names.cache_clear()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"momentkit\[hdf5\]"):
        GroundingDataset(config(root, video=(stream("motion.hdf5", 5),)), "train")


def write_vectors(path: Path, words: list[str], header: str = "") -> dict[str, list[float]]:
    vectors = {word: [float(place), 0.5, -1.0, 2.0] for place, word in enumerate(words)}
    text = header + "".join(f"{word} {' '.join(map(str, numbers))}\n" for word, numbers in vectors.items())
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return vectors


@pytest.mark.parametrize("name", ["words.txt", "words.txt.gz", "words.vec"])
def test_sentences_are_looked_up_word_by_word_and_what_is_unknown_is_counted(root, name):
    annotations = [row | {"query": "A light, a LIGHT."} for row in rows()]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in annotations))
    header = "4 4\n" if name.endswith("vec") else ""
    vectors = write_vectors(root / name, ["a", "light", "light,", "door"], header)
    for rule, words in (
        ("split", ["a", "light,", "a", None]),
        ("no_stop", ["a", "light,", "a", "light"]),
        ("treebank", ["a", "light", None, "a", "light", None]),
    ):
        text = stream(name, 4, tokens=rule, normalisation="none")
        data = GroundingDataset(config(root, text=text), "train")
        expected = [vectors.get(word, [0.0] * 4) for word in words]
        np.testing.assert_array_equal(data.sample(0).text_LE, expected)
        unknown = sum(word is None for word in words) * len(annotations)
        assert sum(data.report.unknown_words.values()) == unknown
        notes = " ".join(data.report.notes)
        assert ("words have no vector" in notes) == bool(unknown)
        if unknown:
            assert f"{unknown} of {len(words) * len(annotations)} words" in notes
    long = config(root, text=stream(name, 4), max_words=2)
    data = GroundingDataset(long, "train")
    np.testing.assert_array_equal(
        data.sample(0).text_LE, l2_normalise(np.float32([vectors["a"], vectors["light,"]]))
    )
    assert data.report.long_texts == 1


def test_words_are_cut_as_each_recipe_does():
    assert tokenise("The man's CAN'T-do: he cannot wait.", "split")[-1] == "wait."
    assert tokenise("He waits. ", "no_stop") == ["he", "waits"]
    assert tokenise('The man\'s dog doesn\'t "sit" (here), gonna run...', "treebank") == [
        "the", "man", "'s", "dog", "does", "n't", "``", "sit", "''", "(", "here", ")", ",", "gon", "na",
        "run", "...",
    ]  # fmt: skip


def test_word_vectors_that_are_not_there_or_damaged_are_refused(root):
    with pytest.raises(FeatureError, match=r"words\.txt"):
        read_word_vectors(root / "words.txt", ["a"], 4)
    (root / "words.txt").write_text("a 1 2 3\n")
    with pytest.raises(FeatureError, match=r"words\.txt:1: .* 4 finite numbers"):
        read_word_vectors(root / "words.txt", ["a"], 4)
    (root / "words.txt").write_text("zebra 1 2 3 4\n")
    with pytest.raises(FeatureError, match="none of the"):
        GroundingDataset(config(root, text=stream("words.txt", 4)), "train")
    with pytest.raises(ConfigError, match="word vectors"):
        config(root, video=(stream("words.txt", 4),))


@pytest.mark.parametrize("rows_there", [3, 10, 25])
def test_averaged_rows_are_the_means_of_equal_parts(rows_there):
    rows_TD = np.random.default_rng(0).standard_normal((rows_there, 2)).astype(np.float32)
    for published in (False, True):
        averaged = average_rows(rows_TD, 10, published=published)
        assert averaged.shape == (10, 2)
        last = rows_there - 1 if published else rows_there
        for part in range(10):
            share = part / 10 * rows_there, (part + 1) / 10 * rows_there
            first, end = map(round, share) if rows_there >= 10 else map(int, np.floor(share))
            expected = rows_TD[first : max(min(end, last), first + 1)].mean(0)
            np.testing.assert_allclose(averaged[part], expected, atol=1e-6)
    np.testing.assert_array_equal(average_rows(rows_TD, rows_there), rows_TD)


def test_videos_of_any_length_become_so_many_clips_and_moments_follow_the_duration(root):
    annotations = [
        {"qid": 0, "query": "a", "vid": "c", "duration": 10, "relevant_windows": [[5, 10]]},
        {"qid": 1, "query": "b", "vid": "a_0.0_10.0", "duration": 40, "relevant_windows": [[0, 10]]},
    ]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in annotations))
    data = GroundingDataset(
        config(root, layout="tacos", clips=6, text=stream("text", 4, files=("qid{qid}",)))
    )
    short, long = data.sample(0), data.sample(1)
    assert len(short.video_TD) == len(long.video_TD) == 6
    np.testing.assert_allclose(short.windows_clip, [[3, 6]])
    np.testing.assert_allclose(long.windows_clip, [[0, 1.5]])
    assert short.saliency_T.tolist() == [0, 0, 0, 1, 1, 1]
    assert (short.clip_length_s, long.clip_length_s) == (10 / 6, 40 / 6)
    assert data.contract.clips == 6
    with pytest.raises(ConfigError, match="cannot be averaged"):
        config(root, clips=6)


def with_audio(root: Path, apart: bool, extra: int = 1):
    rng = np.random.default_rng(1)
    (root / "sound").mkdir()
    for vid, clips in CLIPS.items():
        np.save(root / "sound" / vid, rng.standard_normal((clips + extra, 2)).astype("f4"))
    return config(root, audio=stream("sound", 2), audio_apart=apart)


def test_audio_lies_behind_the_video_with_time_channels_of_its_own(root):
    chosen = with_audio(root, apart=False)
    data, silent = GroundingDataset(chosen, "train"), GroundingDataset(config(root), "train")
    sample, mute = data.sample(3), silent.sample(3)
    heard = l2_normalise(np.load(root / "sound" / "c.npy")[:4])
    np.testing.assert_array_equal(
        sample.video_TD, np.concatenate([mute.video_TD, heard, mute.video_TD[:, -2:]], 1)
    )
    assert chosen.contract.video_dim == 10 + 4 == sample.video_TD.shape[1]
    assert (sample.audio_TA, chosen.contract.audio_dim) == (None, 0)
    assert data.report.cut_clips == (0, 0, len(CLIPS))  # audio was one longer


def test_audio_apart_comes_padded_in_a_tensor_of_its_own(root):
    chosen = with_audio(root, apart=True)
    data, silent = GroundingDataset(chosen, "train"), GroundingDataset(config(root), "train")
    batch = collate([data.sample(index) for index in range(5)])
    np.testing.assert_array_equal(batch.video_BTD, collate([silent.sample(i) for i in range(5)]).video_BTD)
    assert batch.audio_BTA is not None
    assert batch.audio_BTA.shape == (5, 10, chosen.contract.audio_dim) == (5, 10, 4)
    torch.testing.assert_close(batch.audio_BTA[..., -2:], batch.video_BTD[..., -2:], rtol=0, atol=0)
    assert not batch.audio_BTA[~batch.video_mask_BT].any()
    with pytest.raises(ConfigError, match="audio_apart needs"):
        config(root, audio_apart=True)


TINY = {"hidden": 16, "heads": 4, "feed_forward": 16, "queries": 3}


@pytest.mark.parametrize("name", ["qd_detr", "ld_detr", "uvcom"])
def test_audio_reaches_both_kinds_of_models_from_the_files(root, name):
    apart = name == "uvcom"
    chosen = with_audio(root, apart=apart)
    run = RunConfig({"name": name, **TINY}, chosen, TrainConfig(), PostProcess())
    model = create_run_model(run).eval()
    data = GroundingDataset(chosen, "train")
    batch = collate([data.sample(index) for index in range(5)])
    assert torch.isfinite(model.losses(batch).total)
    heard = model(batch).saliency_BT
    changed = (
        replace(batch, audio_BTA=batch.audio_BTA.flip(0))
        if apart
        else replace(
            batch, video_BTD=torch.cat([batch.video_BTD[..., :10], batch.video_BTD[..., 10:].flip(0)], 2)
        )
    )
    assert (model(changed).saliency_BT - heard)[batch.video_mask_BT].abs().max() > 1e-6
    with pytest.raises(ConfigError, match=r"audio_dim|video_dim"):
        create_run_model(replace(run, model=run.model | {"audio_dim" if apart else "video_dim": 9}))


def test_crops_are_refused_with_audio(root, tmp_path):
    run = RunConfig(
        {"name": "qd_detr", **TINY}, with_audio(root, False), TrainConfig(crop=0.5), PostProcess()
    )
    with pytest.raises(ConfigError, match="know no audio"):
        run_training(run, tmp_path / "run")


def test_a_set_of_averaged_videos_is_evaluated_in_seconds_of_each_video(root):
    annotations = [
        {"qid": 0, "query": "a", "vid": "c", "duration": 10, "relevant_windows": [[5, 10]]},
        {"qid": 1, "query": "b", "vid": "a_0.0_10.0", "duration": 40, "relevant_windows": [[20, 40]]},
    ]
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in annotations))
    chosen = config(root, layout="tacos", clips=6, text=stream("text", 4, files=("qid{qid}",)))

    class SecondHalf(torch.nn.Linear):
        def forward(self, batch, *, generator=None):
            rows = len(batch.video_BTD)
            spans = torch.tensor([[[3.0, 6.0]]]).repeat(rows, 1, 1)
            ones = torch.ones(rows, 1)
            return Prediction(
                spans_BQ2=spans, score_BQ=ones, valid_BQ=ones.bool(), saliency_BT=torch.zeros(rows, 6),
                span_unit="clip",
            )  # fmt: skip

    found = evaluate(SecondHalf(1, 1), GroundingDataset(chosen, "val"), chosen, PostProcess())
    assert [row["pred_relevant_windows"][0][:2] for row in found.rows] == [[5, 10], [20, 40]]


def write_json(path: Path, value: object) -> Path:
    path.write_bytes(gzip.compress(json.dumps(value).encode()))
    return path


def test_activitynet_rows_are_cut_to_their_video_and_those_without_length_dropped(tmp_path):
    video = {
        "duration": 9.5,
        "timestamps": [[0, 12.0], [4, 4], [1, 3]],
        "sentences": [" One.", "Two.", "Three."],
    }
    path = write_json(tmp_path / "train.json.gz", {"v_x": video})
    report = load_form(path, "activitynet")
    assert [(query.qid, query.text, query.windows_s) for query in report.queries] == [
        (0, "One.", ((0, 9.5),)),
        (2, "Three.", ((1, 3),)),
    ]
    assert (report.clipped_windows, report.dropped_lines) == (1, (2,))
    with pytest.raises(DataError, match="v_x: duration, timestamps"):
        load_form(write_json(tmp_path / "bad.json.gz", {"v_x": {"duration": 1}}), "activitynet")


def test_didemo_rows_get_the_moment_the_annotators_agree_on(tmp_path):
    row = {"annotation_id": 7, "description": "a cat leaves", "video": "1@N0_2_3.mov", "num_segments": 6}
    path = write_json(tmp_path / "val_data.json.gz", [row | {"times": [[0, 0], [2, 3], [2, 2], [2, 2]]}])
    query = load_form(path, "didemo").queries[0]
    assert (query.qid, query.vid, query.duration_s, query.windows_s) == (7, "1@N0_2_3.mov", 30, ((10, 15),))
    late = write_json(tmp_path / "late.json.gz", [row | {"times": [[5, 5]] * 4}])
    (tmp_path / "lengths.csv").write_text("video_id,length_seconds\n1@N0_2_3.mov,27.5\n")
    query = load_form(late, "didemo", lengths=tmp_path / "lengths.csv").queries[0]
    assert (query.duration_s, query.windows_s) == (27.5, ((25, 27.5),))
    rng = np.random.default_rng(0)
    for _ in range(200):  # the same rule as the metric's
        pairs = [tuple(sorted(map(int, rng.integers(0, 6, 2)))) for _ in range(4)]
        first, last = agreed_pair(pairs)
        assert single_target(np.array(pairs)) == (5 * first, 5 * (last + 1))


def test_the_text_form_of_charades_needs_the_table_of_lengths(tmp_path):
    (tmp_path / "charades_sta_test.txt").write_text("AB 1.0 99.0##a person runs.\nAB 9.0 3.0##gone.\n")
    (tmp_path / "lengths.csv").write_text("id,length\nAB,20.5\n")
    report = load_form(tmp_path / "charades_sta_test.txt", "charades", lengths=tmp_path / "lengths.csv")
    assert [(query.qid, query.windows_s) for query in report.queries] == [(12404, ((1, 20.5),))]
    with pytest.raises(ConfigError, match="name the table"):
        load_form(tmp_path / "charades_sta_test.txt", "charades")
    with pytest.raises(ConfigError, match="no form of the layout 'tvsum'"):
        load_form(tmp_path / "charades_sta_test.txt", "tvsum")
