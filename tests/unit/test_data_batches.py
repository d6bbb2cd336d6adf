"""Order, batches, parts of a batch, padding."""

import numpy as np
import pytest
import torch

from data_world import config, rows, write_world
from momentkit.core.errors import DataError
from momentkit.data.collate import collate
from momentkit.data.dataset import GroundingDataset
from momentkit.data.sampler import batches, epoch_order, shard


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    data = GroundingDataset(config(write_world(tmp_path_factory.mktemp("world"))), "train")
    return [data.sample(index) for index in range(len(data))]


def test_an_order_visits_every_row_once_and_differs_by_epoch_and_seed():
    order = epoch_order(1000, seed=3, epoch=5)
    assert sorted(order.tolist()) == list(range(1000))
    np.testing.assert_array_equal(order, epoch_order(1000, seed=3, epoch=5))
    assert (order != epoch_order(1000, seed=3, epoch=6)).any()
    assert (order != epoch_order(1000, seed=4, epoch=5)).any()
    np.testing.assert_array_equal(epoch_order(4, 0, 0, shuffle=False), [0, 1, 2, 3])


def test_an_order_is_the_same_on_every_machine():
    assert epoch_order(8, seed=0, epoch=1).tolist() == [1, 3, 7, 6, 0, 4, 2, 5]


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_batches_cut_the_order_as_it_is(drop_last, sizes):
    order = epoch_order(10, 0, 0)
    made = batches(order, 4, drop_last=drop_last)
    assert [len(batch) for batch in made] == sizes
    np.testing.assert_array_equal(np.concatenate(made), order[: sum(sizes)])


def test_batches_by_length_hold_every_row_once_and_neighbours_in_length():
    lengths = np.random.default_rng(0).integers(1, 100, 50)
    made = batches(epoch_order(50, 0, 0), 8, lengths_N=lengths)
    visited = np.concatenate(made)
    assert sorted(visited.tolist()) == list(range(50))
    assert (np.diff(lengths[visited]) >= 0).all()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_all_processes_together_see_each_batch_once(world):
    whole = batches(epoch_order(11, 0, 0), 5)
    parts = [shard(whole, rank, world) for rank in range(world)]
    for number, batch in enumerate(whole):
        seen = np.concatenate([part[number] for part in parts])
        assert sorted(seen.tolist()) == sorted(batch.tolist())
    with pytest.raises(ValueError, match="rank"):
        shard(whole, world, world)


def test_empty_batches_are_our_own_mistake():
    with pytest.raises(ValueError, match="at least one"):
        batches(epoch_order(3, 0, 0), 0)
    with pytest.raises(ValueError, match="at least one"):
        collate([])


def test_a_batch_holds_the_samples_and_zeros(samples):
    batch = collate(samples)
    assert batch.video_BTD.shape == (5, 10, 10)
    assert batch.video_mask_BT.sum(1).tolist() == [10, 7, 10, 4, 4]
    assert batch.text_mask_BL.sum(1).tolist() == [3, 4, 5, 6, 7]
    assert batch.video_mask_BT.dtype == batch.text_mask_BL.dtype == torch.bool
    assert (batch.video_BTD[~batch.video_mask_BT] == 0).all()
    assert (batch.text_BLE[~batch.text_mask_BL] == 0).all()
    assert (batch.targets.saliency_BT[~batch.video_mask_BT] == 0).all()
    for row, sample in enumerate(samples):
        np.testing.assert_array_equal(batch.video_BTD[row, : len(sample.video_TD)], sample.video_TD)
        np.testing.assert_array_equal(batch.text_BLE[row, : len(sample.text_LE)], sample.text_LE)
        np.testing.assert_array_equal(batch.targets.windows_clip[row], [[1, 2], [3, 4]])
        assert batch.targets.positive_clip_BP[row].tolist() == sample.positive_clip_P.tolist()
    assert batch.video_keys == ("a", "a", "b", "c", "c")


def test_a_row_in_which_nothing_matches_has_no_windows(tmp_path):
    row = {**rows()[0], "relevant_windows": [], "relevant_clip_ids": [], "saliency_scores": []}
    data = GroundingDataset(config(write_world(tmp_path, [row, rows()[1]])), "train")
    targets = collate([data.sample(0), data.sample(1)]).targets
    assert [tuple(windows.shape) for windows in targets.windows_clip] == [(0, 2), (2, 2)]
    assert targets.positive_clip_BP.shape == (2, 2)


def test_targets_of_a_row_without_labels_are_refused(tmp_path):
    bare = [{key: row[key] for key in ("qid", "query", "vid", "duration")} for row in rows()]
    data = GroundingDataset(config(write_world(tmp_path, bare)), "val")
    assert collate([data.sample(0)], with_targets=False).targets is None
    with pytest.raises(DataError, match=r"row 1 \(qid 0\) has no labels"):
        collate([data.sample(0)])
