"""The loop: log, best and last weights, early stop, resume, refusals."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from momentkit.core.errors import ConfigError, DataError, TrainingError
from momentkit.core.weights import read_weights
from momentkit.train.options import TrainConfig
from train_toy import ToySource, toy_trainer

OPTIONS = TrainConfig(
    epochs=3,
    batch_size=5,
    learning_rate=1e-2,
    clip_norm=1.0,
    select_by=("figure",),
    threads=1,
    checkpoint_steps=2,
)


def log_rows(folder: Path, kind: str) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def weights_of(folder: Path, name: str = "last") -> bytes:
    return (folder / f"{name}.safetensors").read_bytes()


def test_training_lowers_the_loss_and_logs_every_step_once(tmp_path: Path):
    toy_trainer(tmp_path, replace(OPTIONS, epochs=12)).fit()
    steps = log_rows(tmp_path, "step")
    assert [row["step"] for row in steps] == list(range(1, 12 * 5 + 1))
    assert {"epoch", "loss", "losses", "learning_rate", "gradient_norm", "seconds"} <= steps[0].keys()
    first, last = (sum(row["losses"]["fit"] for row in part) for part in (steps[:5], steps[-5:]))
    assert last < 0.6 * first
    assert [row["epoch"] for row in log_rows(tmp_path, "evaluation")] == list(range(1, 13))


def test_nothing_but_plain_lines_is_printed_into_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture):
    toy_trainer(tmp_path, OPTIONS).fit()
    captured = capsys.readouterr()
    assert captured.err == "" and "\x1b" not in captured.out
    assert len(captured.out.splitlines()) == 3


def test_the_best_weights_are_those_of_the_highest_score_and_carry_their_figures(tmp_path: Path):
    figures = iter([1.0, 3.0, 2.0])
    trainer = toy_trainer(tmp_path, OPTIONS)
    trainer.evaluate = lambda model: {"figure": next(figures), "other": 7.0}
    progress = trainer.fit()
    assert (progress.best_score, progress.best_epoch, progress.stale) == (3.0, 2, 1)
    assert read_weights(tmp_path / "best.safetensors")[0].metrics == {"figure": 3.0, "other": 7.0}
    assert read_weights(tmp_path / "last.safetensors")[0].metrics["figure"] == 2.0


def test_training_stops_early_after_as_many_worse_evaluations_as_asked(tmp_path: Path):
    figures = iter([5.0, 4.0, 3.0, 2.0])
    trainer = toy_trainer(tmp_path, replace(OPTIONS, epochs=20, patience=2))
    trainer.evaluate = lambda model: {"figure": next(figures)}
    progress = trainer.fit()
    assert progress.stopped and progress.epoch == 3


def test_an_evaluation_in_between_changes_no_weight(tmp_path: Path):
    toy_trainer(tmp_path / "often", OPTIONS).fit()
    toy_trainer(tmp_path / "seldom", replace(OPTIONS, evaluate_every=99)).fit()
    assert weights_of(tmp_path / "often") == weights_of(tmp_path / "seldom")
    assert len(log_rows(tmp_path / "seldom", "evaluation")) == 1


def test_the_average_of_weights_is_what_is_evaluated_and_saved(tmp_path: Path):
    plain, averaged = (
        toy_trainer(tmp_path / str(decay), replace(OPTIONS, ema_decay=decay)) for decay in (0, 0.99)
    )
    plain.fit(), averaged.fit()
    assert averaged.average is not None
    for (_, mine), (_, other) in zip(
        plain.model.named_parameters(), averaged.model.named_parameters(), strict=True
    ):
        assert torch.equal(mine, other)
    saved = read_weights(tmp_path / "0.99" / "last.safetensors")[1]
    torch.testing.assert_close(saved["norm.weight"], averaged.average.model.norm.weight)
    assert not torch.equal(saved["norm.weight"], averaged.model.norm.weight)


def test_torchs_random_state_outside_is_left_as_it_was(tmp_path: Path):
    torch.manual_seed(int.from_bytes(b"elsewhere"[:6], "big"))
    before = torch.get_rng_state()
    toy_trainer(tmp_path, OPTIONS).fit()
    assert torch.equal(before, torch.get_rng_state())


def test_a_nan_in_one_label_stops_before_the_step_and_names_step_term_and_samples(tmp_path: Path):
    trainer = toy_trainer(tmp_path, OPTIONS, ToySource(poison_at=(1, 13)))
    with pytest.raises(
        TrainingError, match=r"step [5-9]: the loss is not finite \(fit = nan.*samples .*\b13\b"
    ):
        trainer.fit()
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
    assert len(log_rows(tmp_path, "step")) == trainer.progress.step


def test_an_infinite_gradient_of_a_finite_loss_stops_and_names_the_parameter(tmp_path: Path):
    trainer = toy_trainer(tmp_path, OPTIONS)
    trainer.model.norm.bias.register_hook(lambda gradient: gradient * torch.inf)
    before = trainer.model.norm.weight.detach().clone()
    with pytest.raises(TrainingError, match=r"step 0: the gradient is not finite in norm.bias on samples"):
        trainer.fit()
    assert torch.equal(before, trainer.model.norm.weight)


def test_a_figure_to_select_by_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path):
    trainer = toy_trainer(tmp_path, replace(OPTIONS, epochs=1, select_by=("MR-full-map",)))
    with pytest.raises(ConfigError, match="no figure 'MR-full-map'; it has figure"):
        trainer.fit()


def test_an_empty_training_set_and_an_epoch_without_a_batch_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="training set is empty"):
        toy_trainer(tmp_path, OPTIONS, ToySource(count=0))
    with pytest.raises(ConfigError, match="an epoch has no batch"):
        toy_trainer(tmp_path, replace(OPTIONS, batch_size=99, drop_last=True))
