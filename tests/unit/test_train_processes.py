"""Training under torchrun, two processes on one machine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.core.weights import read_weights
from train_data import write_config, write_data
from train_toy import SEPARABLE, toy_trainer

SCRIPT = Path(__file__).parents[1] / "train_two_processes.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `toy` and `real`, each trained by two processes."""
    folder = tmp_path_factory.mktemp("two")
    write_data(folder / "data")
    config = write_config(folder / "c.toml", folder / "data", more="evaluate_batch_size = 4")
    config.write_text(config.read_text().replace("epochs = 3", "epochs = 1"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = [SCRIPT, folder / "toy", config, folder / "real"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [*torchrun, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=150)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, output
    return folder


def log_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_two_processes_share_each_batch_and_write_one_log(runs: Path):
    rows = log_rows(runs / "real")
    assert rows[0]["processes"] == 2
    assert [row["samples"] for row in rows if row["kind"] == "step"] == [8, 8, 8, 4]
    assert sum(row["kind"] == "evaluation" for row in rows) == 1


def test_two_processes_train_a_loss_that_is_a_mean_over_samples_as_one_process_does(
    runs: Path, tmp_path: Path
):
    assert log_rows(runs / "toy")[0]["processes"] == 2
    trainer = toy_trainer(tmp_path, SEPARABLE, chance=False)
    trainer.fit()
    two = read_weights(runs / "toy" / "last.safetensors")[1]
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(two[name], parameter.detach(), rtol=0, atol=1e-5)


def test_two_processes_measure_the_figures_that_one_process_measures_on_the_same_weights(runs: Path):
    result = CliRunner().invoke(app, ["eval", str(runs / "real"), "--json", "--batch-size", "4"])
    alone = json.loads(result.stdout)["figures"]["model"]
    assert alone == read_weights(runs / "real" / "last.safetensors")[0].metrics
