"""Random crops keep every moment and say where it now is."""

import numpy as np

from momentkit.core.types import Query
from momentkit.data.collate import Sample
from momentkit.features.store import time_channels
from momentkit.train.augment import RandomCrop, Stretch, WordDrop


class One:
    """One sample whose clips carry their number."""

    def __len__(self) -> int:
        return 1

    def sample(self, index: int, epoch: int) -> Sample:
        clips = 30
        saliency_T = np.zeros(clips, np.float32)
        saliency_T[8:13] = 2
        numbers = np.arange(clips, dtype=np.float32)[:, None]
        return Sample(
            query=Query(qid=1, text="q", vid="v", duration_s=30.0, windows_s=((8.2, 12.6),)),
            video_TD=np.concatenate([numbers, time_channels(clips)], 1),
            text_LE=np.ones((2, 3), np.float32),
            windows_clip=np.array([[8.2, 12.6]], np.float32),
            saliency_T=saliency_T,
            positive_clip_P=np.array([8, 12]),
            negative_clip_P=np.array([0, 29]),
            video_key="v",
            clip_length_s=1.0,
            duration_s=30.0,
        )


def test_a_crop_moves_labels_with_the_clips() -> None:
    source = RandomCrop(One(), share=1.0, seed=0, tef=True)
    lengths = set()
    for epoch in range(200):
        sample = source.sample(0, epoch)
        numbers, clips = sample.video_TD[:, 0], len(sample.video_TD)
        lengths.add(clips)
        first = int(numbers[0])
        assert np.array_equal(numbers, np.arange(first, first + clips))
        assert np.allclose(sample.video_TD[:, 1:], time_channels(clips))
        assert np.allclose(sample.windows_clip + first, [[8.2, 12.6]])
        assert sample.windows_clip.min() >= 0 and sample.windows_clip.max() <= clips
        assert set(numbers[sample.saliency_T > 0]) == {8, 9, 10, 11, 12}
        assert set(numbers[sample.positive_clip_P]) <= {8, 12}
        if clips > 5:
            assert (sample.saliency_T[sample.negative_clip_P] == 0).all()
    assert min(lengths) <= 7 and max(lengths) >= 28


def test_a_crop_follows_from_seed_epoch_and_index_and_leaves_the_source_alone() -> None:
    one, other = (RandomCrop(One(), share=0.5, seed=3, tef=True) for _ in range(2))
    lengths = [len(one.sample(0, epoch).video_TD) for epoch in range(40)]
    assert lengths == [len(other.sample(0, epoch).video_TD) for epoch in range(40)]
    assert 8 <= lengths.count(30) <= 32
    assert len(one) == 1


def test_a_stretched_sample_keeps_its_moment_over_the_same_clips() -> None:
    source, lengths = Stretch(One(), share=1.0, seed=0, tef=True), set()
    for epoch in range(100):
        sample = source.sample(0, epoch)
        clips = len(sample.video_TD)
        lengths.add(clips)
        start, end = sample.windows_clip[0] / clips * 30
        assert abs(start - 8.2) < 1e-4 and abs(end - 12.6) < 1e-4
        numbers_T = sample.video_TD[:, 0]
        assert ((numbers_T >= 8) & (numbers_T < 13) == (sample.saliency_T > 0)).all()
        assert (sample.saliency_T[sample.positive_clip_P] > 0).all()
        assert (sample.saliency_T[sample.negative_clip_P] == 0).all()
    assert min(lengths) < 24 and max(lengths) > 38


def test_words_go_and_one_always_stays() -> None:
    counts = {len(WordDrop(One(), 0.5, seed=0).sample(0, epoch).text_LE) for epoch in range(50)}
    assert counts == {1, 2}
    assert len(WordDrop(One(), 0.0, seed=0).sample(0, 0).text_LE) == 2
