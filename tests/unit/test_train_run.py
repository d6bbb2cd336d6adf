"""Configurations, run directories, and the commands `train` and `eval`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.core.config import read_toml
from momentkit.core.errors import ConfigError, FeatureMismatchError, TrainingError
from momentkit.core.weights import read_weights
from momentkit.train.run import create_run_model, run_training
from momentkit.train.run_config import differences, parse_run, read_run_config, to_toml
from train_data import write_config, write_data


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder / "c.toml", root)
    result = CliRunner().invoke(
        app, ["train", str(config), "-o", str(folder / "run")], catch_exceptions=False
    )
    assert result.exit_code == 0 and "best epoch" in result.output
    return folder / "run"


def test_a_configuration_written_out_in_full_is_the_same_configuration(tmp_path: Path, root: Path):
    config = read_run_config(write_config(tmp_path / "c.toml", root), ["model.dropout=0.3"], seed=7)
    (tmp_path / "full.toml").write_text(to_toml(config))
    again = parse_run(read_toml(tmp_path / "full.toml"), "full.toml")
    assert differences(config, again) == [] and again.train == config.train and again.train.seed == 7


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.learnig_rate=1", r"\[train\]: no option 'learnig_rate'"),
        ("data.tef_=1", r"\[data\]: no option 'tef_'"),
        ("predict.topp=1", r"\[predict\]: no option 'topp'"),
        ("trian.epochs=1", r"no section \[trian\]"),
        ("model.hiden=1", r"no option 'hiden'"),
        ("model.video_dim=99", r"video_dim is 99, but the features of \[data\] have 10"),
        ("model.name=flashvgt", r"no model 'flashvgt'"),
        ("train.epochs=nan", r"epochs"),
    ],
)
def test_a_misspelt_or_wrong_option_is_refused_by_name(
    tmp_path: Path, root: Path, setting: str, message: str
):
    with pytest.raises(ConfigError, match=message):
        create_run_model(read_run_config(write_config(tmp_path / "c.toml", root), [setting]))


def test_a_run_leaves_weights_that_say_what_they_are(trained: Path, root: Path):
    card, _ = read_weights(trained / "best.safetensors")
    assert card.model == "flashvtg" and card.options["hidden"] == 16 and card.options["video_dim"] == 10
    assert card.features is not None and card.features.video[0].encoder == "toy/frames"
    assert card.predict["step_s"] == 1.0 and card.presence is None
    assert card.trained_on == f"{root.name}/train.jsonl" and card.measured_on == f"{root.name}/val.jsonl"
    assert {"MR-full-R1@0.5", "MR-full-mAP", "MR-full-mIoU"} <= card.metrics.keys()
    assert (trained / "config.toml").is_file() and (trained / "log.jsonl").is_file()


def test_a_folder_that_holds_a_run_is_not_overwritten(trained: Path, root: Path, tmp_path: Path):
    config = read_run_config(write_config(tmp_path / "c.toml", root))
    with pytest.raises(TrainingError, match="holds a run; go on with --resume"):
        run_training(config, trained)


def test_resuming_with_other_options_is_refused_and_names_them(trained: Path, root: Path, tmp_path: Path):
    config = read_run_config(write_config(tmp_path / "c.toml", root), ["train.learning_rate=0.5"])
    with pytest.raises(TrainingError, match=r"train\.learning_rate: 0\.001 -> 0\.5"):
        run_training(config, trained, resume=True)
    more = replace(config, train=replace(config.train, learning_rate=1e-3, epochs=99))
    assert differences(read_run_config(trained / "config.toml"), more) == []


def test_eval_prints_the_model_beside_the_location_prior_and_both_probes(trained: Path, tmp_path: Path):
    rows = tmp_path / "p.jsonl"
    result = CliRunner().invoke(app, ["eval", str(trained), "--json", "--predictions", str(rows)])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    names = ["model", "location prior", "another query's text", "another video's frames"]
    assert list(told["figures"]) == names and told["queries"] == 13
    assert told["figures"]["model"] == read_weights(trained / "best.safetensors")[0].metrics
    assert len(rows.read_text().splitlines()) == 13
    table = CliRunner().invoke(app, ["eval", str(trained / "last.safetensors")]).stdout
    assert all(name in table for name in (*names, "R1@0.7", "mIoU"))


def test_eval_takes_an_annotation_file_a_folder_or_a_configuration(trained: Path, root: Path, tmp_path: Path):
    config = write_config(tmp_path / "c.toml", root)
    told = {}
    for data in (root / "val.jsonl", root, config):
        result = CliRunner().invoke(app, ["eval", str(trained), str(data), "--json"])
        told[data] = json.loads(result.stdout)
    assert told[root / "val.jsonl"] == told[root] == told[config]
    train = CliRunner().invoke(app, ["eval", str(trained), str(root / "train.jsonl"), "--json"])
    assert json.loads(train.stdout)["queries"] == 28


def test_weights_refuse_data_of_another_encoder_by_name(trained: Path, root: Path, tmp_path: Path):
    config = write_config(tmp_path / "c.toml", root)
    config.write_text(config.read_text().replace("toy/words", "toy/other"))
    result = CliRunner().invoke(app, ["eval", str(trained), str(config)])
    assert isinstance(result.exception, FeatureMismatchError) and "text encoder" in str(result.exception)


def test_weights_without_a_run_directory_ask_for_a_configuration(trained: Path, root: Path, tmp_path: Path):
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((trained / "best.safetensors").read_bytes())
    result = CliRunner().invoke(app, ["eval", str(alone), str(root)])
    assert isinstance(result.exception, ConfigError) and "give a configuration file" in str(result.exception)
