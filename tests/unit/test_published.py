"""Published figures: each has a configuration file, each file its row; runs are held against the right one.

That each file builds its model is shown in test_configs.py.
"""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.core.errors import ConfigError
from momentkit.models.registry import list_models
from momentkit.train import beside_paper as module
from momentkit.train.beside_paper import RunFigures, beside_paper, cells, markdown, to_svg
from momentkit.train.published import (
    Published,
    PublishedRow,
    deviations,
    find_row,
    our_name,
    read_published,
    split_of,
)
from momentkit.train.run_config import read_run_config
from train_data import train_two_seeds, write_config, write_data

CONFIGS = Path(__file__).parents[2] / "configs"
ROWS = read_published()
MODELS = tuple(f"{name}_" for name in list_models())
OURS = ("_charades_clip", "_synthetic_")  # recipes of our own, without a published row


def published_files() -> set[str]:
    names = {path.stem for path in CONFIGS.glob("*.toml") if path.stem.startswith(MODELS)}
    return {name for name in names if not name.endswith(OURS[0]) and OURS[1] not in name}


def test_each_row_has_a_file_and_each_published_file_a_row() -> None:
    names = [row.config for row in ROWS]
    assert len(names) == len(set(names))
    assert set(names) == published_files()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.config)
def test_a_row_says_where_its_figures_are_from(row: PublishedRow) -> None:
    assert row.published or row.note, "a row without figures says why"
    for line in row.published:
        assert line.split in ("val", "test") and line.source and line.figures
        assert all(0 < value < 100 for value in line.figures.values())
    # With a stricter overlap, fewer answers are right.
    for line in row.published:
        for kind in ("R1", "R5", "mAP"):
            found = [
                line.figures[name]
                for t in (0.1, 0.3, 0.5, 0.7, 0.75)
                if (name := f"{kind}@{t}") in line.figures
            ]
            assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.dataset in ("TVSum", "YouTube Highlights")], ids=lambda r: r.config
)
def test_a_printed_mean_over_domains_is_the_mean_of_the_printed_domains(row: PublishedRow) -> None:
    for line in row.published:
        domains = [value for name, value in line.figures.items() if name.startswith("mAP-")]
        assert sum(domains) / len(domains) == pytest.approx(line.figures["mAP"], abs=0.06)


@pytest.mark.parametrize("row", [row for row in ROWS if row.published], ids=lambda row: row.config)
def test_a_published_configuration_finds_its_own_row_without_a_difference(row: PublishedRow) -> None:
    found = find_row(read_run_config(CONFIGS / f"{row.config}.toml", seed=7), ROWS, CONFIGS)
    assert found is not None and found[1] == ()
    assert found[0].published == row.published


def test_a_difference_is_named_and_seed_folder_and_domain_are_none() -> None:
    published = read_run_config(CONFIGS / "qd_detr_tvsum_i3d.toml")
    moved = replace(published, data=replace(published.data, root="elsewhere", domain="VT"))
    assert deviations(published, replace(moved, train=replace(moved.train, seed=99))) == ()
    shorter = replace(moved, train=replace(moved.train, epochs=3, learning_rate=1.0))
    assert deviations(published, shorter) == ("train.learning_rate: 0.001 -> 1.0", "train.epochs: 2000 -> 3")


def test_other_features_are_no_published_row(tmp_path: Path) -> None:
    write_data(tmp_path / "data", train=4, val=4)
    assert (
        find_row(read_run_config(write_config(tmp_path / "c.toml", tmp_path / "data")), ROWS, CONFIGS) is None
    )
    with pytest.raises(ConfigError, match="name it with --configs"):
        find_row(read_run_config(CONFIGS / "qd_detr_tvsum_i3d.toml"), ROWS, tmp_path / "nowhere")


def test_the_evaluation_file_decides_which_split_is_held_against() -> None:
    row = next(row for row in ROWS if row.config == "flashvtg_qvhighlights_slowfast_clip")
    config = read_run_config(CONFIGS / f"{row.config}.toml")
    assert split_of(config) == "val" and (line := row.on("val")) and line.figures["mAP"] == 49.85
    on_test = replace(config, data=replace(config.data, val="highlight_test_release.jsonl"))
    assert (line := row.on(split_of(on_test))) and line.figures["mAP"] == 47.59
    only_test = replace(row, published=row.published[:1])
    assert (line := only_test.on("val")) and line.split == "test"
    assert replace(row, published=()).on("val") is None


def test_figures_are_found_under_our_names() -> None:
    ours = {"MR-full-mAP": 1.0, "HL-min-VeryGood-mAP": 2.0, "HL-min-VeryGood-Hit1": 3.0, "mAP-BK": 4.0}
    assert our_name("mAP", ours) == "MR-full-mAP" and our_name("HD-mAP", ours) == "HL-min-VeryGood-mAP"
    assert our_name("HIT@1", ours) == "HL-min-VeryGood-Hit1" and our_name("mAP-BK", ours) == "mAP-BK"
    assert our_name("R5@0.5", ours) is None


@pytest.fixture
def trained(tmp_path: Path) -> list[Path]:
    """Two seeds of a small run."""
    return train_two_seeds(tmp_path)


def test_runs_of_a_row_stand_together_beside_the_paper(
    trained: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Published(
        split="val", source="table 9", figures={"mAP": 20.0, "R1@0.5": 99.0, "R5@0.5": 50.0, "R9": 1.0}
    )
    row = PublishedRow(config="c", paper="Toy", dataset="Marks", features="random", published=(line,))
    monkeypatch.setattr(module, "read_published", lambda: (row,))
    (entry,) = beside_paper(trained, tmp_path)
    each = [beside_paper([folder], tmp_path)[0].ours["mAP"][0] for folder in trained]
    mean, deviation = entry.ours["mAP"]
    assert mean == pytest.approx(sum(each) / 2) and deviation == pytest.approx(
        abs(each[0] - each[1]) / 2**0.5
    )
    assert entry.to_json()["difference"]["mAP"] == pytest.approx(mean - 20, abs=1e-3)
    assert {name: gap for name, _, _, gap in cells(entry)} == {
        "mAP": f"{mean - 20:+.2f}",
        "R1@0.5": f"{entry.ours['R1@0.5'][0] - 99:+.2f}",
        "R5@0.5": f"{entry.ours['R5@0.5'][0] - 50:+.2f}",
        "R9": "-",
    }
    assert entry.ours["R5@0.5"][0] >= entry.ours["R1@0.5"][0]
    assert "not measured here: R9" in entry.notes and "table 9" in markdown([entry])
    drawn = to_svg([entry])
    ElementTree.fromstring(drawn)
    assert "Toy, Marks, random" in drawn and f"{mean - 20:+.2f}" in drawn

    command = ["compare", *map(str, trained), "--configs", str(tmp_path)]
    shown = CliRunner().invoke(app, [*command, "--svg", str(tmp_path / "p.svg")], catch_exceptions=False)
    assert "Toy, Marks, random: run0, run1" in shown.output and (tmp_path / "p.svg").read_text() == drawn
    assert CliRunner().invoke(app, [*command, "--markdown"]).output.rstrip() == markdown([entry]).rstrip()
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert told == json.loads(json.dumps([entry.to_json()]))
    last = json.loads(CliRunner().invoke(app, [*command, "--json", "--last"]).stdout)[0]
    assert not any("best evaluation" in note for note in last["notes"])


def test_a_run_of_no_published_row_says_so_and_a_row_can_be_named(trained: list[Path]) -> None:
    (entry,) = beside_paper(trained[:1], CONFIGS)
    assert entry.paper == {} and any("no published row" in note for note in entry.notes)
    (named,) = beside_paper(trained[:1], CONFIGS, row="flashvtg_qvhighlights_slowfast_clip")
    assert named.paper["mAP"] == 49.85
    with pytest.raises(ConfigError, match="no published row 'flash'"):
        beside_paper(trained, CONFIGS, row="flash")
    with pytest.raises(ConfigError, match="is no run directory"):
        beside_paper([CONFIGS], CONFIGS)


def test_runs_of_single_domains_make_up_the_mean_once_all_are_there() -> None:
    row = next(row for row in ROWS if row.config == "qd_detr_tvsum_i3d")
    config = read_run_config(CONFIGS / f"{row.config}.toml")
    names = [name for name in row.published[0].figures if name.startswith("mAP-")]
    runs = [
        RunFigures(Path(name), config, {"mAP": 10.0 * number, name: 10.0 * number})
        for number, name in enumerate(names)
    ]
    entry = module._beside(row, runs, [], False)
    assert entry.ours["mAP-VU"] == (10.0, 0.0) and entry.ours["mAP"] == (45.0, 0.0)
    assert "mAP" not in module._beside(row, runs[:-1], [], False).ours
