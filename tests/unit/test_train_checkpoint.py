"""Checkpoints: whole or passed over, never unpickled, never two runs in one folder."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_train_loop import OPTIONS, log_rows, weights_of

from momentkit.core.errors import TrainingError
from momentkit.train import loop
from momentkit.train.checkpoint import Progress, load_state, locked, remove_leftovers, save_state
from train_toy import toy_trainer

STATE = {"a": torch.arange(6.0).reshape(2, 3), "step": torch.tensor(4.0), "flag": torch.tensor([True])}


class Stopped(Exception):
    pass


def stop_after(trainer, steps: int) -> None:
    """Let a run end as by a kill: in the middle of a step."""
    source = trainer.source

    class Killer:
        def __len__(self) -> int:
            return len(source)

        def sample(self, index: int, epoch: int):
            if trainer.progress.step >= steps:
                raise Stopped
            return source.sample(index, epoch)

    trainer.source = Killer()
    with pytest.raises(Stopped):
        trainer.fit(resume=trainer.resume_next)


@pytest.mark.parametrize(("ema_decay", "every"), [(0.0, 2), (0.9, 2), (0.0, 0), (0.0, 4), (0.0, 7)])
def test_a_run_stopped_anywhere_resumes_to_the_same_bytes_and_the_same_log(
    tmp_path: Path, ema_decay: float, every: int
):
    options = replace(OPTIONS, ema_decay=ema_decay, schedule="cosine", checkpoint_steps=every)
    toy_trainer(tmp_path / "whole", options).fit()
    for number, steps in enumerate((1, 4, 5, 7, 11, 14)):  # within and at the end of epochs of 5 steps
        trainer = toy_trainer(tmp_path / "cut", options)
        trainer.resume_next = number > 0
        stop_after(trainer, steps)
    toy_trainer(tmp_path / "cut", options).fit(resume=True)
    for name in ("last", "best", "state-000000015"):
        assert weights_of(tmp_path / "cut", name) == weights_of(tmp_path / "whole", name)
    for kind in ("step", "evaluation"):
        whole, cut = (
            [{**row, "seconds": 0} for row in log_rows(tmp_path / run, kind)] for run in ("whole", "cut")
        )
        assert cut == whole
    assert [row["step"] for row in log_rows(tmp_path / "cut", "evaluation")] == [5, 10, 15]


@pytest.mark.parametrize(("every", "saved_at"), [(4, [0, 4, 8, 12, 15]), (0, [0, 5, 10, 15]), (200, [0, 15])])
def test_checkpoints_go_by_steps_however_short_the_epochs(tmp_path: Path, monkeypatch, every, saved_at):
    steps = []
    monkeypatch.setattr(loop, "save_state", lambda folder, tensors, progress: steps.append(progress.step))
    toy_trainer(tmp_path, replace(OPTIONS, checkpoint_steps=every)).fit()  # epochs of 5 steps
    assert steps == saved_at


def test_a_state_comes_back_as_it_was_saved_and_the_newest_two_are_kept(tmp_path: Path):
    for step in (3, 10, 200):
        save_state(tmp_path, STATE, Progress(step=step, best_metrics={"x": 1.5}))
    tensors, progress, passed_over = load_state(tmp_path)
    assert progress == Progress(step=200, best_metrics={"x": 1.5}) and passed_over == []
    assert all(torch.equal(tensors[name], STATE[name]) for name in STATE)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(tmp_path: Path, damage: str):
    save_state(tmp_path, STATE, Progress(step=1))
    newest = save_state(tmp_path, STATE, Progress(step=2))
    data = bytearray(newest.read_bytes())
    data[-9] ^= 16
    newest.write_bytes({"flipped": bytes(data), "cut": bytes(data[:-7]), "empty": b""}[damage])
    _, progress, passed_over = load_state(tmp_path)
    assert progress.step == 1
    assert len(passed_over) == 1 and "state-000000002.safetensors is damaged" in passed_over[0]
    (tmp_path / "state-000000001.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"cannot be resumed.*damaged"):
        load_state(tmp_path)


def test_a_folder_without_a_checkpoint_cannot_be_resumed(tmp_path: Path):
    with pytest.raises(TrainingError, match="it has no state"):
        load_state(tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path):
    save_state(tmp_path, {"model.other": torch.ones(3)}, Progress(step=5))
    with pytest.raises(TrainingError, match="belongs to another model"):
        toy_trainer(tmp_path, OPTIONS).fit(resume=True)


def test_a_second_run_in_one_folder_is_refused_and_names_the_first(tmp_path: Path):
    with locked(tmp_path), pytest.raises(TrainingError, match=r"process \d+ trains in"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_files_that_a_kill_left_half_written_are_removed(tmp_path: Path):
    (tmp_path / ".state-000000002.abc.tmp.safetensors").write_bytes(b"half")
    kept = save_state(tmp_path, STATE, Progress())
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]
