"""`benchmarks/diffusion.py`: a trained run at other steps and proposals, and what they cost."""

import importlib.util
import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.core.errors import ConfigError
from momentkit.train.compare import compare
from train_data import write_config, write_data

MODEL = """
[model]
name = "momentdiff"
hidden = 16
heads = 2
feed_forward = 16
queries = 3
steps = 2

"""


def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "diffusion.py"
    spec = importlib.util.spec_from_file_location("benchmark_diffusion", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_data(folder / "data", train=6, val=8)
    for name in ("momentdiff", "flashvtg"):
        config = write_config(folder / f"{name}.toml", folder / "data")
        if name == "momentdiff":
            text = config.read_text()
            config.write_text(MODEL + text[text.index("[data]") :])
        arguments = ["train", str(config), "-o", str(folder / name), "--set", "train.epochs=1"]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
    return folder


def test_a_run_is_evaluated_at_other_steps_and_proposals_without_training(runs, monkeypatch, capsys) -> None:
    run = runs / "momentdiff"
    before = (run / "best.safetensors").read_bytes()
    options = ["--repeats", "2", "--steps", "1", "2", "--proposals", "3", "9"]
    monkeypatch.setattr(sys, "argv", ["diffusion.py", "--run", str(run), *options])
    benchmark().main()
    report = json.loads((run / "denoising.json").read_text())
    assert report["own"] == {"steps": 2, "proposals": 3} and report["queries"] == 8
    assert list(report["steps"]) == ["1", "2"] and list(report["proposals"]) == ["3", "9"]
    # What the run was trained with is what `momentkit eval` says of it.
    same = compare(run, repeats=2)
    for curve in (report["steps"]["2"], report["proposals"]["3"]):
        assert curve["mean"] == pytest.approx(dict(same.figures["model"]), abs=1e-9)
        assert curve["deviation"] == pytest.approx(dict(same.deviation), abs=1e-9)
    assert report["steps"]["1"] != report["steps"]["2"]
    assert "2 seeds; trained with 2 steps, 3 proposals" in " ".join(capsys.readouterr().out.split())
    picture = ElementTree.parse(run / "denoising.svg").getroot()
    circles = list(picture.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 2 * 2 * 5  # panels, counts, figures
    assert (run / "best.safetensors").read_bytes() == before


def test_a_model_without_steps_is_refused(runs, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["diffusion.py", "--run", str(runs / "flashvtg")])
    with pytest.raises(ConfigError, match="flashvtg takes no number of steps"):
        benchmark().main()


def test_the_cost_is_that_of_each_count_and_the_condition_is_paid_once() -> None:
    report = benchmark().cost(["momentdiff"], [1, 8], [5, 10], queries=2, repeats=1)
    curve = report["cpu_s_a_query"]["momentdiff"]
    assert list(curve) == ["steps", "proposals"] and list(curve["proposals"]) == ["5", "10"]
    assert 0 < curve["steps"]["1"] < curve["steps"]["8"] < 8 * curve["steps"]["1"]
