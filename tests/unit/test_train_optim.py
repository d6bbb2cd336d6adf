"""Schedules, parameter groups and the average of weights."""

from itertools import pairwise

import pytest
import torch

from momentkit.core.errors import ConfigError
from momentkit.train.optim import WeightAverage, create_optimiser, learning_rate
from momentkit.train.options import TrainConfig
from train_toy import ToyModel


def rates(options: TrainConfig, steps_per_epoch: int = 10) -> list[float]:
    return [learning_rate(step, steps_per_epoch, options) for step in range(options.epochs * steps_per_epoch)]


def test_a_constant_schedule_is_constant_after_its_warm_up():
    seen = rates(TrainConfig(epochs=1, learning_rate=0.5, warmup_steps=4))
    assert seen[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert set(seen[4:]) == {0.5}


def test_a_cosine_schedule_falls_from_the_whole_rate_towards_its_final_share_and_never_reaches_zero():
    seen = rates(TrainConfig(epochs=4, learning_rate=1.0, schedule="cosine", final_factor=0.1))
    assert seen[0] == 1.0
    assert seen[20] == pytest.approx(0.55)
    assert all(a > b for a, b in pairwise(seen))
    assert seen[-1] > 0.1


def test_a_step_schedule_drops_at_epoch_borders():
    seen = rates(TrainConfig(epochs=5, learning_rate=1.0, schedule="step", step_epochs=2, step_factor=0.5))
    assert [seen[0], seen[19], seen[20], seen[39], seen[40]] == [1, 1, 0.5, 0.5, 0.25]


def test_everything_decays_as_published_unless_only_matrices_are_asked_for():
    model = ToyModel()
    everything = create_optimiser(model, TrainConfig(weight_decay=0.3)).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in everything] == [(6, 0.3)]
    matrices = create_optimiser(model, TrainConfig(weight_decay=0.3, decay="matrices")).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in matrices] == [(2, 0.3), (4, 0.0)]


def test_the_average_is_the_weighted_sum_of_the_weights_so_far_and_carries_the_buffers():
    model = ToyModel()
    average = WeightAverage(model, decay=0.9)
    before = model.norm.weight.detach().clone()
    with torch.no_grad():
        model.norm.weight += 1
        model.seen += 5
    average.update(model, step=2)  # (1 + 2) / (10 + 2) of the old one
    torch.testing.assert_close(average.model.norm.weight, before * 0.25 + (before + 1) * 0.75)
    average.update(model, step=1000)
    torch.testing.assert_close(average.model.norm.weight, before + 0.75 * 0.9 + 1 * 0.1)
    assert average.model.seen == 5
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0}, {"batch_size": -1}, {"learning_rate": float("nan")}, {"weight_decay": float("nan")},
        {"ema_decay": 1.0}, {"schedule": "step"}, {"step_epochs": 3}, {"select_by": ()}, {"step_factor": 0.0},
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_refused_by_name(options: dict):
    with pytest.raises(ConfigError, match=f"train.({next(iter(options))}|step_epochs)"):
        TrainConfig(**options)
