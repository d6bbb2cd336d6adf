"""What holds for every sample and every batch."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_world import config, write_world
from momentkit.data.collate import collate
from momentkit.data.dataset import GroundingDataset
from momentkit.data.labels import rated_labels, window_labels
from momentkit.features.store import join_streams, l2_normalise, time_channels


def same(one, other) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in (
            "video_TD",
            "text_LE",
            "windows_clip",
            "saliency_T",
            "positive_clip_P",
            "negative_clip_P",
        )
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def test_a_sample_depends_on_index_seed_and_epoch_alone(root):
    data = GroundingDataset(config(root, max_windows=1), "train", seed=7)
    first = [data.sample(index, 3) for index in range(len(data))]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    again = GroundingDataset(config(root, max_windows=1), "train", seed=7)
    for index in reversed(range(len(data))):  # in another order, among other epochs
        again.sample(index, 9)
        assert same(again.sample(index, 3), first[index])


def test_making_samples_leaves_the_global_random_state_alone(root):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    data = GroundingDataset(config(root), "train", seed=7)
    collate([data.sample(index, 2) for index in range(len(data))])
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_picks_change_with_the_epoch_unless_they_are_fixed(root):
    for fixed, different in ((False, True), (True, False)):
        data = GroundingDataset(config(root, fixed_picks=fixed), "train")
        picks = {tuple(data.sample(0, epoch).negative_clip_P.tolist()) for epoch in range(20)}
        assert (len(picks) > 1) == different


def test_picks_change_with_the_seed(root):
    picks = {
        tuple(GroundingDataset(config(root), "train", seed).sample(0, 0).negative_clip_P.tolist())
        for seed in range(20)
    }
    assert len(picks) > 1


def test_a_sample_is_the_same_alone_and_in_a_batch(root):
    data = GroundingDataset(config(root), "train")
    samples = [data.sample(index) for index in range(len(data))]
    together = collate(samples)
    for row, sample in enumerate(samples):
        alone = collate([sample])
        clips, words = alone.video_BTD.shape[1], alone.text_BLE.shape[1]
        assert torch.equal(together.video_BTD[row, :clips], alone.video_BTD[0])
        assert torch.equal(together.text_BLE[row, :words], alone.text_BLE[0])
        assert torch.equal(together.targets.saliency_BT[row, :clips], alone.targets.saliency_BT[0])


clip_counts = st.integers(1, 80)
windows = st.lists(st.tuples(st.floats(0, 200), st.floats(0, 200)), max_size=5)


@settings(deadline=None)
@given(clips=clip_counts, spans=windows, step_s=st.floats(0.1, 5), seed=st.integers(0, 2**32))
def test_window_labels_always_fit_the_clip_grid(clips, spans, step_s, seed):
    spans = [(min(span), max(span)) for span in spans]
    labels = window_labels(spans, clips, step_s, np.random.default_rng(seed))
    check_grid(labels, clips)
    assert (labels.saliency_T.sum() > 0) == bool(spans)
    if spans:
        assert (labels.saliency_T[labels.positive_clip_P] == 1).all()
        outside = labels.saliency_T[labels.negative_clip_P] == 0
        assert outside.all() == (clips - labels.saliency_T.sum() > 1)


@settings(deadline=None)
@given(clips=clip_counts, ids=st.sets(st.integers(0, 100), max_size=30), seed=st.integers(0, 2**32))
def test_rated_labels_always_fit_the_clip_grid(clips, ids, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, (len(ids), 3)).tolist()
    labels = rated_labels(sorted(ids), scores, clips, rng)
    check_grid(labels, clips)
    kept = [sum(score) for clip, score in zip(sorted(ids), scores, strict=True) if clip < clips]
    assert labels.saliency_T.sum() == sum(kept)
    if kept:
        assert labels.saliency_T[labels.positive_clip_P[0]] == max(kept)
        assert labels.saliency_T[labels.negative_clip_P[0]] == min(kept)


def check_grid(labels, clips):
    assert labels.saliency_T.shape == (clips,)
    assert labels.saliency_T.dtype == np.float32
    for picks in (labels.positive_clip_P, labels.negative_clip_P):
        assert picks.dtype == np.int64
        assert picks.shape == (2,)
        assert ((picks >= 0) & (picks < clips)).all()


@settings(deadline=None)
@given(lengths=st.lists(clip_counts, min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_joined_streams_are_as_long_as_the_shortest_and_lose_what_is_counted(lengths, seed):
    rng = np.random.default_rng(seed)
    streams = [rng.standard_normal((length, 2)).astype(np.float32) for length in lengths]
    joined, cut = join_streams(streams)
    assert joined.shape == (min(lengths), 2 * len(lengths))
    assert [len(joined) + lost for lost in cut] == lengths


@settings(deadline=None)
@given(rows=clip_counts, size=st.sampled_from([0.0, 1e-20, 1e-3, 1.0, 1e15]), seed=st.integers(0, 2**32))
def test_normalised_rows_are_finite_and_at_most_of_length_one(rows, size, seed):
    features = (np.random.default_rng(seed).standard_normal((rows, 6)) * size).astype(np.float32)
    normal = l2_normalise(features)
    assert np.isfinite(normal).all()
    assert (np.linalg.norm(normal, axis=1) <= 1 + 1e-5).all()


@given(clips=st.integers(1, 20_000))
def test_time_channels_run_from_0_to_1_without_gaps(clips):
    start, end = time_channels(clips).T
    assert start[0] == 0
    assert abs(end[-1] - 1) < 1e-6
    np.testing.assert_allclose(start[1:], end[:-1], rtol=0, atol=2e-7)
