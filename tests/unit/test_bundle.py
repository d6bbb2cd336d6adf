"""`python -m momentkit.train.bundle` makes a head of any system; `demo` and `find` take it by its name."""

import re
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from momentkit.cli import demo as demo_command
from momentkit.cli.main import app
from momentkit.core.weights import WeightsCard, read_weights, save_weights
from momentkit.data.synthetic.film import write_film
from momentkit.data.synthetic.writing import film_of
from momentkit.models.registry import create_model
from momentkit.predict import weights as weights_module
from momentkit.predict.grounder import load
from momentkit.train import bundle
from momentkit.train.compare import compare
from momentkit.train.run import create_run_model
from momentkit.train.run_config import read_run_config
from train_data import train_two_seeds

CONFIGS = Path(__file__).parents[2] / "configs"
SYSTEMS = ("flashvtg", "ld_detr", "momentdiff", "diffusion_vmr", "map_diffusion")
TINY = {"hidden": 8, "heads": 2, "feed_forward": 8, "encoder_layers": 1, "decoder_layers": 1, "queries": 3}


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a head that knows nothing."""
    contract = load("flashvtg").contract
    options = TINY | {"steps": 1, "video_dim": contract.video_dim, "text_dim": contract.text.dim}
    card = WeightsCard(model="momentdiff", options=options, features=contract, trained_on="nothing")
    path = tmp_path / "small.safetensors"
    save_weights(path, create_model("momentdiff", **options).state_dict(), card)
    monkeypatch.setattr(weights_module, "bundled_weights", lambda: {"small": path})
    return "small"


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_head_of_each_system_is_small_and_reads_the_bundled_encoders(name: str) -> None:
    config = read_run_config(CONFIGS / f"{name}_synthetic_tiny.toml")
    assert config.model["name"] == name
    load("flashvtg").contract.require(config.data.contract)
    with torch.device("meta"):
        tensors = create_run_model(config).state_dict()
    count = sum(tensor.numel() for key, tensor in tensors.items() if not key.startswith("distill."))
    assert 2 * count < 1.7e6


def test_demo_and_find_take_any_bundled_name(
    bundled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for option, value in {"HEIGHT": 72, "WIDTH": 128, "FPS": 4}.items():
        monkeypatch.setattr(demo_command, option, value)
    out = tmp_path / "out"
    shown = CliRunner().invoke(app, ["demo", "-o", str(out), "--model", bundled], catch_exceptions=False)
    assert shown.exit_code == 0 and f"--model {bundled} -o moments.html" in shown.output
    assert '"model": "small"' in (out / "result.json").read_text()
    asked = ["find", str(out / "film.mp4"), "the red circle jumps", "--model", bundled]
    found = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert found.exit_code == 0 and "weights small, trained on nothing" in found.output


def test_a_name_that_is_not_bundled_is_refused_with_those_that_are(bundled: str, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["demo", "-o", str(tmp_path / "out"), "--model", "large"])
    assert shown.exit_code != 0 and "bundled are small" in str(shown.exception)


def test_a_head_for_footage_is_not_asked_of_a_drawn_film(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["demo", "-o", str(tmp_path / "out"), "--model", "flashvtg_charades"])
    assert shown.exit_code != 0 and "find VIDEO 'sentence' --model flashvtg_charades" in str(shown.exception)


def test_a_head_is_trained_measured_and_written_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = (CONFIGS / "momentdiff_synthetic_tiny.toml").read_text()
    options = "\n".join(f"{name} = {value}" for name, value in (TINY | {"steps": 1}).items())
    text = f'[model]\nname = "momentdiff"\n{options}\n\n{config[config.index("[data]") :]}'
    (tmp_path / "c.toml").write_text(re.sub(r"epochs = \d+", "epochs = 1", text))
    work, output = tmp_path / "work", tmp_path / "momentdiff.safetensors"
    given = ["--config", str(tmp_path / "c.toml"), "--work", str(work), "-o", str(output)]
    monkeypatch.setattr(
        sys, "argv", ["bundle", "--model", "momentdiff", *given, "--films", "8", "--test-films", "1"]
    )
    monkeypatch.setattr(bundle, "LEAST_AUROC", 101.0)
    bundle.main()
    assert read_weights(output)[0].presence is None  # told no better than that
    monkeypatch.setattr(bundle, "LEAST_AUROC", 0.0)
    bundle.main()  # the finished run is calibrated and measured again
    card, _ = read_weights(output)
    assert card.model == "momentdiff" and card.presence is not None
    assert card.measured_on == "1 unseen films, mp4 to moments" and "MR-full-R1@0.5" in card.metrics
    best = work / "momentdiff" / "best.safetensors"
    assert output.stat().st_size < 0.75 * best.stat().st_size  # half precision, and a card
    assert (work / "films").is_dir()
    film = write_film(film_of("val", 0, seed=9), tmp_path / "film.mp4", height=72, width=128, fps=4)
    grounder = load(output)
    assert grounder.find(grounder.encode(film), "a circle jumps").not_found_probability is not None


def test_a_finished_run_becomes_a_head_that_is_measured_as_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_two_seeds(tmp_path)[0]
    output = tmp_path / "toy.safetensors"
    said = ["--licence", "MIT", "--notes", "a toy"]
    monkeypatch.setattr(sys, "argv", ["bundle", "--run", str(run), "-o", str(output), *said])
    bundle.main()
    card, tensors = read_weights(output)
    assert card.presence is not None and (card.licence, card.notes) == ("MIT", "a toy")
    assert card.measured_on == "13 queries of data, val.jsonl"
    _, whole = read_weights(run / "last.safetensors")
    assert all(torch.equal(tensors[name], whole[name].half().float()) for name in whole)
    again = compare(output, run / "config.toml").figures["model"]
    assert card.metrics == {name: again[name] for name in card.metrics} and len(card.metrics) == 4
