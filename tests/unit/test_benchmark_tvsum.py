"""`benchmarks/tvsum.py`: means over domains, and one step of a published recipe on the published features."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def load():
    spec = importlib.util.spec_from_file_location("benchmark_tvsum", ROOT / "benchmarks" / "tvsum.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tvsum = load()


def entry(domain: str, seed: int, last: float, *, ties: float = 0.0) -> dict[str, object]:
    figures = {"last": last, "best": last + 5, "random": 40.0, "ties": ties, "train_s": 30.0}
    return {"model": "qd_detr", "domain": domain, "seed": seed} | figures


def test_the_mean_is_over_domains_first_and_only_of_seeds_that_have_them_all():
    entries = [entry("BK", 0, 70, ties=4), entry("BT", 0, 80), entry("BK", 1, 74), entry("BT", 1, 84)]
    row = tvsum.table_of([*entries, entry("BK", 2, 0)], ["qd_detr", "uvcom"], ["BK", "BT"])
    assert [each["model"] for each in row] == ["qd_detr"]
    assert row[0]["seeds"] == [0, 1] and row[0]["last"] == (77, pytest.approx(8**0.5))
    assert row[0]["published"] == 85.0 and row[0]["tied"] == (1, 4) and row[0]["ties"][0] == 1
    assert "| 77.0 ± 2.8 | 82.0 ± 2.8 | 40.0 | 85.0 | 1 of 4, 1.0 |" in tvsum.markdown(row)


@pytest.mark.skipif(
    not (ROOT / "../shared/data/tvsum_i3d").is_dir(), reason="TVSum's published features are not here"
)
def test_one_step_of_a_published_recipe(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    report = tmp_path / "tvsum.json"
    cut = ["--steps", "1", "--seeds", "0", "--models", "qd_detr", "--domains", "BK", "--workers", "1"]
    monkeypatch.setattr(sys, "argv", ["tvsum.py", *cut, "-o", str(tmp_path), "--json", str(report)])
    tvsum.main()
    assert "| `qd_detr` | 1 |" in capsys.readouterr().out
    run = json.loads(report.read_text())["runs"][0]
    assert 0 <= run["last"] == run["best"] <= 100  # one step, one evaluation
    assert 35 < run["random"] < 65 and run["ties"] == 0
