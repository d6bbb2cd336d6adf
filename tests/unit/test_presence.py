"""Presence: how probably a query occurs in its video, calibrated, scored, kept with the weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.core.errors import ConfigError, DataError, WeightsError
from momentkit.core.types import Query
from momentkit.core.weights import Presence, WeightsCard, read_weights, save_weights, write_presence
from momentkit.metrics.presence import BINS, auroc, equal_bins, presence_scores
from momentkit.predict.weights import own_file
from momentkit.train.baselines import other_sentence
from momentkit.train.presence import evidence, fit_presence, judge_presence
from train_data import write_config, write_data


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def made(count: int, seed: int = 0):
    """Evidence of queries that occur with a known probability, and which of them do."""
    rng = np.random.default_rng(seed)
    logits, salient = rng.normal(0, 2, count), rng.normal(3, 5, count)
    occurs = rng.random(count) < sigmoid(1.5 * logits + 0.4 * salient - 2)
    return np.stack([sigmoid(logits), salient], 1), occurs


def test_calibration_recovers_how_queries_were_made() -> None:
    evidence_Q2, occurs = made(20_000)
    presence = fit_presence(evidence_Q2[occurs], evidence_Q2[~occurs], "made")
    assert presence.slope == pytest.approx(1.5, abs=0.1) and presence.saliency == pytest.approx(0.4, abs=0.03)
    said = presence.probability(*evidence_Q2.T)
    scores = presence_scores(said[occurs], said[~occurs])
    assert scores.curve.error < 0.02 and scores.there + scores.absent == 20_000


def test_more_evidence_never_makes_a_query_less_probable() -> None:
    evidence_Q2, occurs = made(500)
    presence = fit_presence(evidence_Q2[~occurs], evidence_Q2[occurs], "the wrong way round")
    assert presence.slope == presence.saliency == 0
    assert presence.probability(0.9, 9.0) == pytest.approx(0.5, abs=0.01)


def test_rejection_and_auroc_by_definition() -> None:
    scores = presence_scores(np.array([0.9, 0.5, 0.4, 0.8]), np.array([0.5, 0.1]))
    # Of the absent one in two is rejected, of those that occur one in four.
    assert (scores.rejection_recall, scores.rejection_precision) == (0.5, pytest.approx(0.5 / 0.75))
    assert scores.rejection_f1 == pytest.approx(2 * (0.5 * 2 / 3) / (0.5 + 2 / 3))
    assert scores.auroc == auroc(np.array([0.9, 0.5, 0.4, 0.8]), np.array([0.5, 0.1])) == (4 + 2.5) / 8
    everything = presence_scores(np.full(3, 0.2), np.full(5, 0.2))
    assert everything.rejection_f1 == pytest.approx(2 / 3) and everything.auroc == 0.5


def test_the_calibration_error_by_definition() -> None:
    """Slow and obvious: distinct probabilities, weights of both kinds equal, bin after bin."""
    rng = np.random.default_rng(1)
    there, absent = rng.random(43) ** 0.5, rng.random(89)
    scores = presence_scores(there, absent)
    items = sorted([(p, 1, 0.5 / 43) for p in there] + [(p, 0, 0.5 / 89) for p in absent])
    bins: dict[int, list] = {}
    before = 0.0
    for p, occurs, weight in items:
        bins.setdefault(int(15 * (before + weight / 2)), []).append((p, occurs, weight))
        before += weight
    error = sum(abs(sum(w * (o - p) for p, o, w in inside)) for inside in bins.values())
    assert len(scores.curve.bins) == len(bins) == BINS
    assert scores.curve.error == pytest.approx(error, abs=1e-12)
    assert [part.answers for part in scores.curve.bins] == [len(inside) for inside in bins.values()]


def test_equal_probabilities_share_a_bin_and_are_no_error() -> None:
    assert len(set(equal_bins(np.array([0.3, 0.3, 0.3, 0.7]), np.ones(4)))) == 2
    assert presence_scores(np.full(50, 0.5), np.full(70, 0.5)).curve.error == pytest.approx(0)


@pytest.mark.parametrize("absent", [400, 1200])
def test_a_calibrated_model_shows_the_error_that_is_said_to_be_chance(absent: int) -> None:
    """Beta densities whose ratio is p / (1 - p): each p is right, half the weight on each kind."""
    rng = np.random.default_rng(2)
    found = [presence_scores(rng.beta(3, 2, 400), rng.beta(2, 3, absent)) for _ in range(20)]
    errors = [scores.curve.error for scores in found]
    assert np.mean(errors) == pytest.approx(np.mean([s.chance_error for s in found]), rel=0.1)
    sure = presence_scores(rng.beta(3, 2, 400) ** 3, rng.beta(2, 3, absent) ** 3)
    assert sure.curve.error > 2 * sure.chance_error


def test_one_kind_alone_is_no_measurement() -> None:
    for wrong in (fit_presence, lambda a, b, name: presence_scores(a[:, 0], b[:, 0])):
        with pytest.raises(DataError, match="one kind is missing"):
            wrong(np.ones((3, 2)), np.ones((0, 2)), "nothing")


def row(vid: str, score: float, saliency: float) -> dict:
    windows = [[4.0, 4.0, 0.99], [1.0, 2.0, score]]  # the first has no length and is never shown
    return {"vid": vid, "pred_relevant_windows": windows, "pred_saliency_scores": [saliency, saliency - 1]}


def test_evidence_is_what_a_user_gets_to_see() -> None:
    nothing = {"pred_relevant_windows": [[4.0, 4.0, 0.9]], "pred_saliency_scores": [-2.0]}
    assert evidence([row("a", 0.4, 3.0), nothing]).tolist() == [[0.4, 3.0], [0.0, -2.0]]


def test_no_query_is_judged_by_a_calibration_that_saw_its_video() -> None:
    rng = np.random.default_rng(3)
    vids = [f"v{n}" for n in range(300)]
    there = [row(vid, 0.5, float(rng.normal())) for vid in vids for _ in range(2)]
    absent = [row(vid, 0.5, float(rng.normal())) for vid in vids for _ in range(2)]
    report = judge_presence(there, absent, "noise", [one["vid"] for one in (*there, *absent)])
    assert report.videos == 300 and abs(report.scores.auroc - 0.5) < 0.05
    clear = [row(vid, 0.5, 5.0 + float(rng.normal())) for vid in vids for _ in range(2)]
    report = judge_presence(clear, absent, "clear", [one["vid"] for one in (*clear, *absent)])
    assert report.scores.auroc > 0.99 and report.presence.saliency > 0
    with pytest.raises(DataError, match="one kind is missing"):
        judge_presence(there[:1], absent[:1], "one video", ["v", "v"])


def test_a_foreign_sentence_is_of_the_domain_and_not_said_of_the_video() -> None:
    texts = ["A dog runs", "rain", "a  dog RUNS", "snow", "hail"]
    vids, domains = ["a", "a", "b", "b", "c"], ["x", "x", "x", "x", "y"]
    queries = [
        Query(qid=n, text=text, vid=vid, duration_s=9.0, domain=domain)
        for n, (text, vid, domain) in enumerate(zip(texts, vids, domains, strict=True))
    ]
    assert other_sentence(queries[:4], vids[:4], seed=0).tolist() == [3, 3, 1, 1]
    with pytest.raises(DataError, match="not also asked about c"):
        other_sentence(queries, vids, seed=0)


def test_a_calibration_is_written_and_nothing_else_changes(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "w.safetensors"
    card = WeightsCard(model="flashvtg", notes="mine")
    save_weights(path, {"a": torch.arange(3).half(), "b": torch.ones(2, dtype=torch.bfloat16)}, card)
    presence = Presence(slope=1.0, saliency=0.5, offset=-2.0, fitted_on="here")
    before = load_file(path)
    write_presence(path, presence)
    assert read_weights(path)[0] == card.model_copy(update={"presence": presence})
    after = load_file(path)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype and torch.equal(after[name], tensor)
    damaged = path.read_bytes()[:-1] + b"\x07"
    path.write_bytes(damaged)
    with pytest.raises(WeightsError, match="damaged"):
        write_presence(path, presence)
    assert path.read_bytes() == damaged and list(tmp_path.iterdir()) == [path]


def test_shared_weights_are_not_written_to() -> None:
    with pytest.raises(WeightsError, match="stays as it is"):
        own_file("flashvtg")


def test_eval_says_how_well_absence_is_told_and_keeps_the_calibration(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    config, run = write_config(tmp_path / "c.toml", tmp_path / "data"), tmp_path / "run"
    assert CliRunner().invoke(app, ["train", str(config), "-o", str(run)]).exit_code == 0
    weights = run / "best.safetensors"
    before, page = weights.read_bytes(), tmp_path / "page.html"
    command = ["eval", str(run), "--report", str(page)]
    shown = CliRunner().invoke(app, command, env={"COLUMNS": "160"}).stdout
    assert "not in this video: AUROC" in shown and "13 queries and 39 sentences" in shown
    assert "Not in this video" in page.read_text() and weights.read_bytes() == before
    told = json.loads(CliRunner().invoke(app, [*command, "--json", "--calibrate"]).stdout)["presence"]
    assert told["videos"] == 7 and told["there"] == 13 and told["absent"] == 39
    assert sum(part["answers"] for part in told["bins"]) == 52 and 0 <= told["ece"] <= 1
    presence = read_weights(weights)[0].presence
    assert presence is not None and presence.model_dump() == told["calibration"]
    assert presence.fitted_on == "data/val.jsonl: 13 queries, 39 sentences of other videos"

    absent = [json.loads(line) | {"relevant_windows": []} for line in (tmp_path / "data/val.jsonl").open()]
    negatives = tmp_path / "negatives.jsonl"
    negatives.write_text("".join(json.dumps(one) + "\n" for one in absent))
    told = json.loads(CliRunner().invoke(app, [*command, "--json", "--negatives", str(negatives)]).stdout)
    assert told["presence"]["absent"] == 13 and told["presence"]["auroc"] <= 0.7  # the very same questions


def test_what_scores_clips_has_no_presence_to_keep(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from momentkit.train import compare

    monkeypatch.setattr(compare, "own_file", lambda name: tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="scores clips"):
        compare.keep_presence("run", compare.Comparison({}, [], ()))
