"""`momentkit data`: what is printed, and the exit code."""

import json

import pytest
from typer.testing import CliRunner

from data_world import rows, write_world
from momentkit.cli.main import app

CONFIG = """
[data]
root = "{root}"
layout = "qvhighlights"
train = "rows.jsonl"
val = "rows.jsonl"
clip_length_s = 2.0
[[data.video]]
folder = "motion"
encoder = "m"
layer = "out"
dim = 5
[data.text]
folder = "text"
encoder = "t"
layer = "out"
dim = {text_dim}
"""


@pytest.fixture
def run():
    return lambda *words: CliRunner().invoke(app, ["data", *map(str, words)])


def test_a_file_without_fault_exits_0(run, tmp_path):
    root = write_world(tmp_path)
    result = run("validate", root / "rows.jsonl")
    assert result.exit_code == 0
    assert "5 rows, no fault" in result.stdout


def test_faults_are_counted_by_kind_with_their_lines_and_exit_2(run, tmp_path):
    bad = [rows()[0] | {"duration": 0}, rows()[1], rows()[2] | {"duration": -1}, rows()[3] | {"query": ""}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in bad))
    result = run("validate", "--show", "1", path)
    assert result.exit_code == 2
    assert "4 rows, 3 faults" in result.stdout
    assert "duration not positive: 2 (line 1, 3)" in result.stdout
    assert "empty query: 1 (line 4)" in result.stdout
    assert f"{path}:1: duration is 0.0" in result.stdout
    assert f"{path}:3:" not in result.stdout


def test_windows_are_judged_as_they_would_be_read(run, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(rows()[0] | {"relevant_windows": [[8, 99]]}))
    assert run("validate", path).exit_code == 2
    result = run("validate", "--clip-windows", path)
    assert result.exit_code == 0
    assert "note: 1 windows cut to their video" in result.stdout


def test_an_empty_file_exits_2(run, tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    result = run("validate", tmp_path / "rows.jsonl")
    assert (result.exit_code, "no row" in result.stdout) == (2, True)


def test_info_of_a_folder_shows_rows_and_shapes(run, tmp_path):
    write_world(tmp_path)
    result = run("info", tmp_path)
    assert result.exit_code == 0
    squeezed = " ".join(result.stdout.split())
    assert "rows 5" in squeezed
    assert "windows 10" in squeezed
    assert "features: 5 channels, float16 4 arrays, rows 4 to 10, mean 7.75" in squeezed


def test_info_of_a_configuration_reads_the_data_it_names(run, tmp_path):
    write_world(tmp_path)
    (tmp_path / "run.toml").write_text(CONFIG.format(root=tmp_path, text_dim=4))
    result = run("info", tmp_path / "run.toml")
    assert result.exit_code == 0
    assert "7 channels, clip length 2 s" in result.stdout
    (tmp_path / "run.toml").write_text(CONFIG.format(root=tmp_path, text_dim=9))
    assert "dim = 9 is declared" in str(run("info", tmp_path / "run.toml").exception)


def test_info_of_nothing_says_so(run, tmp_path):
    assert "holds neither" in str(run("info", tmp_path).exception)
    (tmp_path / "run.toml").write_text("[model]\n")
    assert "no section [data]" in str(run("info", tmp_path / "run.toml").exception)
