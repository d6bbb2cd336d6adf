"""`benchmarks/claims.py`: sets differ as they say, every run can be built, verdicts follow from figures."""

import importlib.util
import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from momentkit.data.annotations import read_annotations
from momentkit.data.synthetic.questions import windows_of
from momentkit.data.synthetic.writing import film_of
from momentkit.train.run_config import read_run_config
from momentkit.train.sweep import runs_of


def load():
    path = Path(__file__).parents[2] / "benchmarks" / "claims.py"
    spec = importlib.util.spec_from_file_location("benchmark_claims", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


claims = load()
SMOKE = claims.BUDGETS["smoke"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("claims")
    claims.write_sets(root, SMOKE)
    return root


def windows(root: Path, name: str) -> np.ndarray:
    rows = read_annotations(root / "annotations" / f"{name}.jsonl")
    assert rows, name
    return np.array([query.windows_s[0] for query in rows])


def test_shifted_sets_train_on_other_moments_than_they_test_on(root: Path) -> None:
    for rule, late in (("len", lambda se: se[:, 1] - se[:, 0] > 10), ("mom", lambda se: se[:, 0] > 15)):
        assert late(windows(root, f"{rule}_train")).mean() <= 0.35, rule
        assert late(windows(root, f"{rule}_val")).mean() >= 0.6, rule
    sizes = {len(windows(root, f"{name}_train")) for name in ("plain", "len", "mom")}
    assert len(sizes) == 1  # a shift is no matter of more or less data


def test_sentences_of_the_overlap_set_come_back_in_meaning(root: Path) -> None:
    films = [film_of("train", number, claims.WORLD_SEED, claims.FILM) for number in range(30)]
    asked = [q for film in films for q in claims.open_questions(film, np.random.default_rng([film.seed, 8]))]
    meanings = Counter(question.ask for question in asked)
    assert len(meanings) < 0.75 * len(asked)
    assert len({question.text for question in asked}) > 1.2 * len(meanings)
    for film in films[:5]:
        for question in claims.open_questions(film, np.random.default_rng(0)):
            assert (question.ask.colour is None) != (question.ask.shape is None)
            assert question.windows_s == windows_of(question.ask, film.facts())
    rows = read_annotations(root / "annotations" / "overlap_train.jsonl")
    assert all((root / "features" / "text" / f"qid{query.qid}.npz").is_file() for query in rows)


@pytest.mark.parametrize("name", claims.BUDGETS)
def test_every_claim_rests_on_runs_that_can_be_built(root: Path, tmp_path: Path, name: str) -> None:
    import torch

    from momentkit.train.run import create_run_model

    budget = claims.BUDGETS[name]
    sweep = claims.sweep_of(root, tmp_path, budget, (0,))
    runs = runs_of(sweep, tmp_path)
    assert len({run.folder for run in runs}) == len(runs)
    for run in runs:
        config = read_run_config(run.config, run.settings)
        assert (root / config.data.train).is_file() and (root / config.data.val).is_file()
        with torch.device("meta"):
            create_run_model(config)
    rows = [row.name for row in sweep.row]
    used = {row for claim in claims.claims_of(budget) for row in claim.rows}
    assert used <= set(rows)
    assert not {row for row in rows if row not in used}


def test_verdicts_follow_from_the_figures_of_each_seed(root: Path, tmp_path: Path) -> None:
    sweep = claims.sweep_of(root, tmp_path, SMOKE, (0, 1, 2))
    for run in runs_of(sweep, tmp_path):
        refined = run.row.name == "flashvtg"
        value = 50 + 2 * refined + run.seed * (1 if run.row.name == "ld_detr" else 0)
        run.folder.mkdir()
        figures = {"MR-full-R1@0.5": 40, "MR-full-R1@0.7": value, "MR-full-mAP": value, "MR-short-mAP": 0.0}
        if run.row.name == "moment_detr, plain tested on len":
            figures["MR-full-mAP"] = 0  # there was nothing to keep
        (run.folder / "figures.json").write_text(json.dumps({"figures": {"model": figures}}))
    entries = {entry["claim"]: entry for entry in claims.judge(claims.claims_of(SMOKE), sweep, tmp_path)}
    refinement = entries["score refinement raises R1@0.7"]
    assert (refinement["holds"], refinement["size"], refinement["spread"]) == ("yes", 2, 0)
    convolutions = entries["convolutional blocks raise mAP"]
    assert (convolutions["holds"], convolutions["size"]) == ("unclear", 1)
    assert entries["5 steps of refinement in place of 1 raise R1@0.7"]["holds"] == "no"
    kept = [entry["holds"] for says, entry in entries.items() if "keeps more" in says]
    assert kept == ["not measured", "no"]
    text = claims.table(list(entries.values()))
    assert "| yes | +2.0 ± 0.0 | +1.1 (table 8) | 3, 2 |" in text
    (runs_of(sweep, tmp_path)[0].folder / "figures.json").unlink()
    left = claims.judge(claims.claims_of(SMOKE), sweep, tmp_path)
    assert {len(entry["by_seed"]) for entry in left} == {0, 2, 3}  # what is not done yet is left out


def test_sizes_of_the_claims_that_are_no_differences() -> None:
    assert claims.more_kept(30, 40, 10, 20) == pytest.approx(25)
    assert math.isnan(claims.more_kept(30, 0, 10, 20))
    assert claims.least_rise(10, 12, 11.6) == pytest.approx(0.1)
    assert claims.least_rise(10, 12, 11) == pytest.approx(-0.5)
    assert claims.verdict([]) == "not measured" and claims.verdict([1.0, 0.0]) == "unclear"


def test_the_log_keeps_what_is_beside_the_table() -> None:
    log = "# Log\n\n## charades_clip\n\na\n\n## Synthetic world\n\nb\n"
    once = claims.into_log(log, "| first |\n")
    twice = claims.into_log(once, "| second |\n")
    assert once == log.replace("## Synthetic", f"{claims.HEADING}\n\n| first |\n\n## Synthetic")
    assert twice == once.replace("first", "second")
