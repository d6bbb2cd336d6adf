"""kill -9 during training: the resumed run ends at the bytes of the run that nobody killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from typer.testing import CliRunner

from momentkit.cli.main import app
from train_data import write_config, write_data
from train_fork_and_kill import OPTIONS
from train_toy import toy_trainer

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def rows(folder: Path) -> list[dict]:
    """The log without what a clock or a restart decides."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{**row, "seconds": None} for row in lines if row["kind"] != "start"]


def same_files(one: Path, other: Path) -> bool:
    names = [path.name for path in sorted(one.glob("*.safetensors"))]
    assert names == [path.name for path in sorted(other.glob("*.safetensors"))] and len(names) == 4
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_a_run_killed_at_many_random_instants_ends_at_the_same_bytes(tmp_path: Path):
    toy_trainer(tmp_path / "whole", OPTIONS).fit()
    script = Path(__file__).parents[1] / "train_fork_and_kill.py"
    command = [sys.executable, str(script), str(tmp_path / "killed"), "1"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 1, "nothing was killed"
    assert same_files(tmp_path / "whole", tmp_path / "killed")
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")


def test_the_command_killed_at_a_random_step_resumes_to_the_same_bytes(tmp_path: Path):
    write_data(tmp_path / "data")
    config = write_config(tmp_path / "c.toml", tmp_path / "data")
    step = int.from_bytes(os.urandom(1), "little") % 10 + 1
    train = ["train", str(config), "--set", "train.epochs=5", "-o"]
    whole = CliRunner().invoke(app, [*train, str(tmp_path / "whole")], catch_exceptions=False)
    assert whole.exit_code == 0
    kill_at_step([*train, str(tmp_path / "killed")], tmp_path / "killed" / "log.jsonl", step)
    resumed = CliRunner().invoke(app, [*train, str(tmp_path / "killed"), "--resume"], catch_exceptions=False)
    assert resumed.exit_code == 0
    assert same_files(tmp_path / "whole", tmp_path / "killed"), f"killed at step {step}"
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")


def kill_at_step(arguments: list[str], log: Path, step: int) -> None:
    command = [sys.executable, "-m", "momentkit", *arguments]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count('"kind": "step"') >= step):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run was over before it could be killed"
