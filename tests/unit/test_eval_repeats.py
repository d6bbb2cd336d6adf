"""`momentkit eval --repeats`: mean and deviation over seeds, for models that draw noise."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.core.types import Batch, Prediction
from momentkit.data.options import DataConfig, StreamConfig
from momentkit.models.registry import create_model
from momentkit.predict.decode import PostProcess
from momentkit.train.evaluate import answer, evaluate, evaluate_repeatedly
from train_data import DIFFUSION, write_config, write_data
from train_toy import ToyModel, ToySource

STREAM = StreamConfig(folder="f", encoder="toy", layer="last", dim=4)
DATA = DataConfig(
    root=".", layout="charades", train="t", val="v", video=(STREAM,), text=STREAM, clip_length_s=1.0, tef=True
)  # fmt: skip
SMALL: dict[str, dict[str, object]] = {
    "diffusion_vmr": {"hidden": 16, "heads": 2, "feed_forward": 16, "bins": 4, "proposals": 3, "steps": 2},
    "map_diffusion": {"hidden": 16, "text_hidden": 8, "columns": 8, "scales": 1, "kernel": 3, "width": 16}
    | {"map_width": 4, "groups": 4, "steps": 2},
    "momentdiff": {"hidden": 16, "heads": 2, "feed_forward": 16, "queries": 3, "steps": 2},
}


class NoisyToy(ToyModel):
    """Shifts all its windows by a random number of clips."""

    def forward(self, batch: Batch, *, generator: torch.Generator | None = None) -> Prediction:
        plain = super().forward(batch, generator=generator)
        shift = torch.randn((), generator=generator)
        return Prediction(
            spans_BQ2=plain.spans_BQ2 + shift,
            score_BQ=plain.score_BQ,
            valid_BQ=plain.valid_BQ,
            saliency_BT=plain.saliency_BT,
            span_unit="clip",
        )


def test_the_figures_of_a_noisy_model_are_mean_and_deviation_over_seeds() -> None:
    model, source = NoisyToy().eval(), ToySource()
    repeated = evaluate_repeatedly(model, source, DATA, PostProcess(), repeats=5)
    runs = [evaluate(model, source, DATA, PostProcess(), seed=seed).metrics for seed in range(5)]
    assert repeated.count == 5 and repeated.first.metrics == runs[0]
    for name in runs[0]:
        values = np.array([run[name] for run in runs])
        assert repeated.mean[name] == pytest.approx(values.mean())
        assert repeated.deviation[name] == pytest.approx(((values - values.mean()) ** 2).mean() ** 0.5)
    assert repeated.deviation["MR-full-mIoU"] > 0


def test_one_run_has_no_deviation() -> None:
    repeated = evaluate_repeatedly(NoisyToy().eval(), ToySource(), DATA, PostProcess(), repeats=1)
    assert repeated.count == 1 and repeated.deviation == {} and repeated.mean == repeated.first.metrics


def test_a_model_without_noise_is_not_evaluated_again_and_again() -> None:
    repeated = evaluate_repeatedly(ToyModel().eval(), ToySource(), DATA, PostProcess(), repeats=50)
    assert repeated.count == 1 and repeated.deviation == {}


def test_a_seed_gives_the_same_answers_whatever_the_batches() -> None:
    model, source = NoisyToy().eval(), ToySource()
    one, other = (
        answer(model, source, PostProcess(clamp=False), batch_size=size, seed=3) for size in (5, 24)
    )
    for row, its in zip(one, other, strict=True):
        windows, expected = np.array(row["pred_relevant_windows"]), np.array(its["pred_relevant_windows"])
        assert np.allclose(windows, expected, atol=2e-4)
    assert one != answer(model, source, PostProcess(clamp=False), batch_size=5, seed=4)


@pytest.mark.parametrize("name", ["diffusion_vmr", "map_diffusion", "momentdiff"])
def test_each_query_of_a_set_meets_its_own_noise_whatever_the_batches(name: str) -> None:
    source = ToySource()
    sample = source.sample(0, 0)
    widths = {"video_dim": sample.video_TD.shape[1], "text_dim": sample.text_LE.shape[1]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(name, **widths, **SMALL[name]).eval()
    seen: list[torch.Tensor] = []
    model.register_forward_hook(lambda module, given, answer: seen.extend(answer.start_BQ2))
    one = answer(model, source, PostProcess(clamp=False), batch_size=5, seed=3)
    other = answer(model, source, PostProcess(clamp=False), batch_size=24, seed=3)
    for row, its in zip(one, other, strict=True):
        windows, expected = np.array(row["pred_relevant_windows"]), np.array(its["pred_relevant_windows"])
        assert np.allclose(windows, expected, atol=2e-3)
    noises = {tuple(noise.flatten().tolist()) for noise in seen}
    assert len(noises) >= len(source) * (
        0.5 if name == "map_diffusion" else 1
    )  # cells are few, spans are not


@pytest.mark.parametrize("noisy", [True, False])
def test_the_command_prints_both_and_says_where_repeats_are_of_no_use(tmp_path: Path, noisy: bool) -> None:
    write_data(tmp_path / "data", train=4, val=5)
    config = write_config(tmp_path / "c.toml", tmp_path / "data")
    if noisy:
        text = config.read_text()
        config.write_text(DIFFUSION + text[text.index("[data]") :])
    run = CliRunner().invoke(
        app, ["train", str(config), "-o", str(tmp_path / "run"), "--set", "train.epochs=1"]
    )
    assert run.exit_code == 0, run.output
    command = ["eval", str(tmp_path / "run"), "--repeats", "3"]
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    table = CliRunner().invoke(app, command, env={"COLUMNS": "200"}).stdout
    if noisy:
        assert told["repeats"] == 3 and told["deviation"].keys() == told["figures"]["model"].keys()
        mean, deviation = (part["MR-full-mIoU"] for part in (told["figures"]["model"], told["deviation"]))
        assert f"{mean:.2f} ± {deviation:.2f}" in table and "mean and deviation over 3 seeds" in table
    else:
        assert "deviation" not in told and "±" not in table
        assert any("repeats are of no use here" in note for note in told["notes"])
        assert "repeats are of no use here" in table
