"""A sweep trains rows times seeds, goes on where it stopped, and shows mean and spread beside the paper."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.core.errors import ConfigError, TrainingError
from momentkit.core.weights import read_weights
from momentkit.train.sweep import read_sweep, run_sweep, runs_of, table_of
from train_data import DIFFUSION, write_config, write_data

SWEEP = """
title = "dummies"
config = "{config}"
seeds = [0, 1]
set = ["train.epochs=1", "train.crop=0.5", "train.stretch=0.5", "train.word_drop=0.2"]
at_step = 4

[[row]]
name = "two dummies"
paper = {{ mAP = "41.42 ± 0.28" }}

[[row]]
name = "three dummies"
set = ["model.dummies=3"]
"""


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    write_data(tmp_path / "data")
    config = write_config(tmp_path / "c.toml", tmp_path / "data")
    (tmp_path / "dummies.toml").write_text(SWEEP.format(config=config))
    return tmp_path / "dummies.toml"


def test_a_sweep_runs_resumes_and_shows_its_table(sweep_file: Path, tmp_path: Path) -> None:
    sweep = read_sweep(sweep_file)
    assert [(run.row.name, run.seed) for run in runs_of(sweep, tmp_path)] == [
        ("two dummies", 0),
        ("three dummies", 0),
        ("two dummies", 1),
        ("three dummies", 1),
    ]
    out = tmp_path / "out"
    first = runs_of(sweep, out)[0]
    next(run_sweep(sweep, out, workers=1))  # cut short after one run; that run is whole
    before = (first.folder / "figures.json").stat().st_mtime_ns
    shown = CliRunner().invoke(app, ["sweep", str(sweep_file), "-o", str(out)], catch_exceptions=False)
    assert shown.exit_code == 0 and "41.42 ± 0.28" in shown.output and "| three dummies | 2 |" in shown.output
    assert (first.folder / "figures.json").stat().st_mtime_ns == before
    entries = table_of(sweep, out)
    figures = [json.loads((run.folder / "figures.json").read_text()) for run in runs_of(sweep, out)]
    ours = [result["figures"]["model"]["MR-full-mAP"] for result in figures]
    mean, deviation = entries[0]["figures"]["model"]["mAP"]
    assert mean == pytest.approx((ours[0] + ours[2]) / 2)
    assert deviation == pytest.approx(abs(ours[0] - ours[2]) / 2**0.5)
    assert entries[0]["at_step"] and "location prior" in entries[0]["figures"]


def test_a_failed_run_is_named_and_the_others_go_on(sweep_file: Path, tmp_path: Path) -> None:
    text = sweep_file.read_text().replace("model.dummies=3", 'data.root=\\"nowhere\\"')
    sweep_file.write_text(text.replace("seeds = [0, 1]", "seeds = [0]"))
    with pytest.raises(TrainingError, match=r"1 of 2 runs failed: three dummies, seed 0: .*nowhere"):
        list(run_sweep(read_sweep(sweep_file), tmp_path / "out", workers=2))
    assert (tmp_path / "out" / "two_dummies-seed0" / "figures.json").is_file()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("three dummies", "two dummies", "two rows are called"),
        ("model.dummies=3", "train.epoch=3", "no option 'epoch'"),
        ("title", "titel", "no option 'titel'"),
    ],
)
def test_a_wrong_sweep_is_refused(sweep_file: Path, old: str, new: str, message: str) -> None:
    sweep_file.write_text(sweep_file.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_sweep(sweep_file)


REUSE = """
title = "steps"
config = "{config}"
seeds = [0]

[[row]]
name = "one step"
weights_of = "two steps"
set = ["model.steps=1"]

[[row]]
name = "two steps"
"""


def test_a_row_with_anothers_weights_is_evaluated_without_a_training(tmp_path: Path) -> None:
    write_data(tmp_path / "data", train=4, val=5)
    config = write_config(tmp_path / "c.toml", tmp_path / "data")
    text = config.read_text()
    config.write_text(DIFFUSION + text[text.index("[data]") :].replace("epochs = 3", "epochs = 1"))
    (tmp_path / "s.toml").write_text(REUSE.format(config=config))
    sweep, out = read_sweep(tmp_path / "s.toml"), tmp_path / "out"
    assert [run.row.name for run in run_sweep(sweep, out, workers=2)] == ["two steps", "one step"]
    reused, trained = runs_of(sweep, out)
    card, tensors = read_weights(reused.folder / "last.safetensors")
    own_card, own_tensors = read_weights(trained.folder / "last.safetensors")
    assert (card.options["steps"], own_card.options["steps"]) == (1, 2)
    assert tensors.keys() == own_tensors.keys()
    assert all(torch.equal(tensors[name], own_tensors[name]) for name in tensors)
    assert not (reused.folder / "log.jsonl").exists()
    entry = table_of(sweep, out)[0]
    assert entry["figures"]["model"]["mAP"] and entry["train_s"] == 0


def test_weights_of_a_row_that_does_not_train_are_refused(sweep_file: Path) -> None:
    sweep_file.write_text(sweep_file.read_text() + 'weights_of = "four dummies"\n')
    with pytest.raises(ConfigError, match="takes the weights of 'four dummies', which is no row that trains"):
        read_sweep(sweep_file)


def test_a_row_whose_weights_failed_says_so(tmp_path: Path, sweep_file: Path) -> None:
    text = sweep_file.read_text().replace(
        'mAP = "41.42 ± 0.28" }', 'mAP = "1" }\nset = ["data.root=\\"nowhere\\""]'
    )
    text = text.replace("seeds = [0, 1]", "seeds = [0]").replace(
        'set = ["model.dummies=3"]', 'weights_of = "two dummies"'
    )
    sweep_file.write_text(text)
    with pytest.raises(TrainingError, match="three dummies, seed 0: row 'two dummies' is not done"):
        list(run_sweep(read_sweep(sweep_file), tmp_path / "out", workers=1))


def test_runs_take_turns_on_the_devices(
    sweep_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def train(run: object, environment: Mapping[str, str]) -> str:
        seen.append(environment["CUDA_VISIBLE_DEVICES"])
        return ""

    monkeypatch.setattr("momentkit.train.sweep._train", train)
    assert len(list(run_sweep(read_sweep(sweep_file), tmp_path / "out", workers=2, devices=["3", "5"]))) == 4
    assert set(seen) == {"3", "5"}
