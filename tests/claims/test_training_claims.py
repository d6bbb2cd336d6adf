"""What holds for training every registered model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from claims.models import TEXT_DIM, TINY, VIDEO_DIM
from momentkit.core.weights import WeightsCard
from momentkit.data.collate import Sample, collate
from momentkit.models.registry import create_model, is_trainable, list_models
from momentkit.predict.decode import PostProcess
from momentkit.train.evaluate import answer
from momentkit.train.loop import Trainer, create_accelerator
from momentkit.train.options import TrainConfig
from momentkit.train.order import epoch_batches
from momentkit.train.source import SampleSource
from train_toy import ToySource, toy_figures

every_model = pytest.mark.parametrize("name", list(filter(is_trainable, list_models())))
OPTIONS = TrainConfig(
    epochs=2, batch_size=8, learning_rate=2e-3, clip_norm=1.0, select_by=("figure",), threads=1
)  # fmt: skip
SOURCE = ToySource(count=8, video_dim=VIDEO_DIM)


def small_model(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return create_model(name, video_dim=VIDEO_DIM, text_dim=TEXT_DIM, **TINY[name])


def trained(name: str, folder: Path, options: TrainConfig, source: SampleSource = SOURCE) -> nn.Module:
    folder.mkdir()
    card, accelerator = WeightsCard(model=name), create_accelerator(options)
    trainer = Trainer(small_model(name), source, toy_figures, options, folder, card, accelerator)
    trainer.fit()
    return trainer.model


def loss_of(model: nn.Module) -> float:
    batch = collate([SOURCE.sample(index, 0) for index in range(len(SOURCE))])
    with torch.no_grad():
        return float(model.eval().losses(batch, generator=torch.Generator().manual_seed(0)).total)


class Repeated:
    """The eight samples over and over in one epoch."""

    def __len__(self) -> int:
        return 150 * len(SOURCE)

    def sample(self, index: int, epoch: int) -> Sample:
        return SOURCE.sample(index % len(SOURCE), 0)


@every_model
def test_eight_samples_are_learnt(name: str, tmp_path: Path):
    before = loss_of(small_model(name))
    after = loss_of(
        trained(name, tmp_path / "run", replace(OPTIONS, epochs=1, learning_rate=5e-3), Repeated())
    )
    assert after < 0.7 * before


@every_model
def test_one_seed_gives_the_same_bytes_twice_and_another_seed_others(name: str, tmp_path: Path):
    runs = {}
    for run, seed in (("first", 0), ("second", 0), ("other", 1)):
        trained(name, tmp_path / run, replace(OPTIONS, seed=seed))
        runs[run] = (tmp_path / run / "last.safetensors").read_bytes()
    assert runs["first"] == runs["second"] != runs["other"]


@every_model
def test_answers_do_not_depend_on_the_batch_they_were_given_in(name: str):
    model = small_model(name).eval()
    single, together = (answer(model, SOURCE, PostProcess(), batch_size=size) for size in (1, 8))
    for one, other in zip(single, together, strict=True):
        np.testing.assert_allclose(one["pred_saliency_scores"], other["pred_saliency_scores"], atol=2e-4)
        ours, theirs = (np.array(row["pred_relevant_windows"]) for row in (one, other))
        np.testing.assert_allclose(ours[:, 2], theirs[:, 2], atol=2e-4)


@pytest.mark.parametrize("bucket_batches", [1, 3])
def test_an_epoch_visits_every_sample_once_in_an_order_of_its_own(bucket_batches: int):
    options = replace(OPTIONS, batch_size=4, bucket_batches=bucket_batches)
    lengths_N = np.random.default_rng(0).integers(5, 50, 30)
    epochs = [epoch_batches(30, epoch, options, lengths_N) for epoch in range(3)]
    for batches in epochs:
        assert sorted(np.concatenate(batches).tolist()) == list(range(30))
        assert sorted(map(len, batches)) == [2] + [4] * 7
    orders = [np.concatenate(batches).tolist() for batches in epochs]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    again = epoch_batches(30, 1, options, lengths_N)
    assert all(np.array_equal(one, other) for one, other in zip(again, epochs[1], strict=True))
    dropped = epoch_batches(30, 0, replace(options, drop_last=True), lengths_N)
    assert [len(batch) for batch in dropped] == [4] * 7


def test_dealing_batches_out_by_length_leaves_less_padding():
    lengths_N = np.random.default_rng(0).integers(5, 50, 320)

    def padded(bucket_batches: int) -> int:
        options = replace(OPTIONS, bucket_batches=bucket_batches)
        return sum(len(batch) * lengths_N[batch].max() for batch in epoch_batches(320, 0, options, lengths_N))

    assert padded(8) < 0.75 * padded(1)
