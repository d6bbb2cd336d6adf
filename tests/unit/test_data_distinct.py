"""Sentences of other videos, batches of distinct videos, rows that are a whole video, drops at milestones."""

from collections import Counter

import numpy as np
import pytest
import torch

from data_world import config, rows, write_world
from momentkit.core.errors import ConfigError, DataError
from momentkit.data.collate import collate
from momentkit.data.dataset import GroundingDataset
from momentkit.train.optim import learning_rate
from momentkit.train.options import TrainConfig
from momentkit.train.order import epoch_batches


@pytest.fixture
def root(tmp_path):
    return write_world(tmp_path)


def drawn(data: GroundingDataset, index: int, epoch: int) -> int:
    """The row whose sentence is the negative of a sample."""
    words = data.sample(index, epoch).negative_text_LE
    return next(row for row in range(len(data)) if np.array_equal(data.sample(row).text_LE, words))


def test_a_negative_sentence_is_of_another_video_and_every_such_sentence_comes_up(root):
    data = GroundingDataset(config(root, negative_sentences=True), "train", seed=1)
    assert data.videos_N.tolist() == [0, 0, 1, 2, 2]  # two rows are of one source, two of one file
    for index, video in enumerate(data.videos_N):
        counts = Counter(drawn(data, index, epoch) for epoch in range(300))
        others = [row for row in range(5) if data.videos_N[row] != video]
        assert sorted(counts) == others
        assert min(counts.values()) > 300 / len(others) * 0.7


def test_a_negative_sentence_is_a_function_of_seed_epoch_and_index(root):
    first, second, other = (
        GroundingDataset(config(root, negative_sentences=True), "train", seed=seed) for seed in (0, 0, 1)
    )
    draws = [[drawn(data, 0, epoch) for epoch in range(20)] for data in (first, second, other)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) > 1


def test_a_negative_sentence_changes_nothing_else_of_a_sample(root):
    plain = GroundingDataset(config(root), "train").sample(0, 3)
    given = GroundingDataset(config(root, negative_sentences=True), "train").sample(0, 3)
    assert plain.negative_text_LE is None
    for name in ("video_TD", "text_LE", "windows_clip", "positive_clip_P", "negative_clip_P"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(given, name))


def test_negative_sentences_are_padded_in_a_batch_and_move_with_it(root):
    data = GroundingDataset(config(root, negative_sentences=True), "train")
    samples = [data.sample(index) for index in range(5)]
    targets = collate(samples).to("cpu").targets
    assert targets is not None and targets.negative_text_mask_BL is not None
    for row, sample in enumerate(samples):
        kept = targets.negative_text_BLE[row][targets.negative_text_mask_BL[row]]
        np.testing.assert_array_equal(kept.numpy(), sample.negative_text_LE)
    targets = collate(samples).to("meta").targets
    assert targets.negative_text_BLE.device.type == targets.negative_text_mask_BL.device.type == "meta"
    plain = collate([GroundingDataset(config(root), "train").sample(0)]).targets
    assert plain.negative_text_BLE is None and plain.negative_text_mask_BL is None


def test_negative_sentences_are_for_training_and_need_two_videos(root):
    assert GroundingDataset(config(root, negative_sentences=True), "val").sample(0).negative_text_LE is None
    write_world(root, [row for row in rows() if row["vid"] == "c"])
    with pytest.raises(DataError, match="has one video; negative_sentences"):
        GroundingDataset(config(root, negative_sentences=True), "train")


def test_rows_whose_first_window_is_the_whole_video_are_left_out_and_counted(root):
    annotations = rows()
    annotations[1]["relevant_windows"] = [[0, 14], [2, 4]]  # a video of 14 s
    annotations[2]["relevant_windows"] = [[2, 4], [0, 20]]  # only the first window counts
    annotations[3]["relevant_windows"] = [[0.5, 8]]
    write_world(root, annotations)
    assert len(GroundingDataset(config(root), "train")) == 5
    for split in ("train", "val"):
        data = GroundingDataset(config(root, drop_whole_videos=True), split)
        assert [query.qid for query in data.queries] == [0, 2, 3, 4]
        assert [note for note in data.report.notes if "1 of 5 rows left out" in note]
    write_world(root, annotations[1:2])
    with pytest.raises(DataError, match="drop_whole_videos left none"):
        GroundingDataset(config(root, drop_whole_videos=True), "train")


def test_no_batch_holds_two_queries_of_a_video_and_what_is_passed_over_is_lost():
    options = TrainConfig(batch_size=4, distinct_videos=True, seed=2)
    videos_N = np.random.default_rng(0).integers(0, 12, 60)
    epochs = [epoch_batches(60, epoch, options, None, videos_N) for epoch in range(4)]
    for made in epochs:
        visited = np.concatenate(made)
        assert len(set(visited.tolist())) == len(visited) < 60
        assert all(len(set(videos_N[batch])) == len(batch) for batch in made)
        assert [len(batch) for batch in made[:-1]] == [4] * (len(made) - 1)
    assert not np.array_equal(epochs[0][0], epochs[1][0])
    # By hand: the second row of video 0 is passed over, the third opens a batch of its own.
    order = epoch_batches(5, 0, TrainConfig(batch_size=5, seed=2))[0]
    videos_N = np.empty(5, np.int64)
    videos_N[order] = [0, 0, 1, 0, 1]
    made = epoch_batches(5, 0, TrainConfig(batch_size=2, distinct_videos=True, seed=2), None, videos_N)
    assert [batch.tolist() for batch in made] == [[order[0], order[2]], [order[3], order[4]]]


def test_an_epoch_of_distinct_videos_may_drop_its_short_batch():
    options = TrainConfig(batch_size=4, distinct_videos=True, drop_last=True)
    assert [len(batch) for batch in epoch_batches(10, 0, options, None, np.arange(10))] == [4, 4]
    assert sum(map(len, epoch_batches(10, 0, options))) == 8  # no videos known: all differ


def test_milestones_drop_the_rate_at_their_epochs_and_at_no_other():
    options = TrainConfig(
        epochs=9, learning_rate=1.0, schedule="step", step_milestones=(3, 5), step_factor=0.5
    )
    rates = [learning_rate(step, 2, options) for step in range(18)]
    assert rates == [1.0] * 6 + [0.5] * 4 + [0.25] * 8


@pytest.mark.parametrize(
    "options",
    [
        {"step_milestones": (3,)},
        {"step_milestones": (3,), "step_epochs": 2},
        {"step_milestones": (3,), "step_epochs": 2, "schedule": "step"},
        {"step_milestones": (0,), "schedule": "step"},
        {"distinct_videos": True, "bucket_batches": 2},
    ],
)
def test_options_that_exclude_each_other_are_refused(options: dict):
    with pytest.raises(ConfigError, match=r"train\."):
        TrainConfig(**options)


def test_targets_without_negative_sentences_move_too(root):
    targets = collate([GroundingDataset(config(root), "train").sample(0)]).to("meta").targets
    assert targets.saliency_BT.device == torch.device("meta") and targets.negative_text_BLE is None
