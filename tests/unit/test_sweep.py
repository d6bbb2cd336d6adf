"""A sweep trains rows times seeds, goes on where it stopped, and shows mean and spread beside the paper."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.core.errors import ConfigError, TrainingError
from momentkit.train.sweep import read_sweep, run_sweep, runs_of, table_of
from train_data import write_config, write_data

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
