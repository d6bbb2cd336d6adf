"""`momentkit data info NAME DIR` and `where`: counts held against the expected ones, what lacks is named."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.data import catalog
from momentkit.data.catalog import PUBLISHED, Part, Published

SMALL = Published(
    title="Small",
    layout="charades",
    parts=(
        Part("train", ("train.jsonl",), 3, 2, 3),
        Part("val, JSON", ("val.jsonl",), 1, 1, 1),
        Part("val, text", ("val.txt",), 1, 1, 1),
        Part("test", ("test.jsonl",), 2, 2, 0),
    ),
    annotations=("somewhere",),
    features=("of some kind",),
    licence="none stated",
    known=("a quirk",),
)


def row(qid: int, vid: str, **fields) -> dict:
    row = {"qid": qid, "query": "a", "vid": vid, "duration": 9, "relevant_windows": [[1, 2]]}
    return row | fields


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(catalog.PUBLISHED, "small", SMALL)
    for name, rows in {
        "train": [row(0, "v"), row(1, "v"), row(2, "w")],
        "val": [row(3, "x")],
        "test": [row(4, "y", relevant_windows=None), row(5, "z", relevant_windows=None)],
    }.items():
        path = tmp_path / "notes" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return lambda *words: CliRunner().invoke(app, ["data", *map(str, words)])


def test_a_whole_copy_is_as_expected(run, tmp_path):
    result = run("info", "small", tmp_path)
    assert result.exit_code == 0
    assert "train: notes/train.jsonl: 3 rows, as expected" in result.stdout
    assert "missing" not in result.stdout  # one form of val is enough
    assert "known: a quirk" in result.stdout
    assert "no features of these rows; `momentkit data where small`" in result.stdout


def test_other_counts_and_missing_files_are_named_and_exit_2(run, tmp_path):
    path = tmp_path / "notes" / "train.jsonl"
    path.write_text(path.read_text() + json.dumps(row(2, "new")) + "\n")
    (tmp_path / "notes" / "test.jsonl").unlink()
    result = run("info", "small", tmp_path)
    assert result.exit_code == 2
    assert "rows: 4, expected 3" in result.stdout
    assert "videos: 3, expected 2" in result.stdout
    assert "note: 1 rows repeat a qid" in result.stdout
    assert "test: missing; wanted is test.jsonl" in result.stdout
    path.write_text("{}\n")
    assert "train.jsonl:1: qid is missing" in run("info", "small", tmp_path).stdout


def test_features_that_lack_are_counted_by_split(run, tmp_path):
    for folder, names in (("clip", ["v", "x", "z"]), ("words", ["qid0", "qid1", "qid2", "qid4", "qid5"])):
        (tmp_path / folder).mkdir()
        for name in names:
            np.save(tmp_path / folder / f"{name}.npy", np.ones((2, 3)))
    said = run("info", "small", tmp_path).stdout
    assert "features clip, {vid}: train 1 of 2, val, JSON 1 of 1, test 1 of 2" in said
    assert "lacks w, y\n" in said
    assert "features words, qid{qid}: train 3 of 3, val, JSON 0 of 1, test 2 of 2" in said
    assert "lacks qid3\n" in said


def test_nothing_of_a_set_or_no_such_set_says_so(run, tmp_path):
    (tmp_path / "empty").mkdir()
    said = str(run("info", "small", tmp_path / "empty").exception)
    assert "holds no annotation file of Small; wanted are train.jsonl" in said
    assert "no data set 'smal'; there are qvhighlights" in str(run("where", "smal").exception)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_where_says_sources_and_the_licence_of_each(name):
    result = CliRunner().invoke(app, ["data", "where", name])
    assert result.exit_code == 0
    for word in ("annotations:", "features:", "licence:", "files:"):
        assert re.search(rf"^  {word} \S", result.stdout, re.M), word
    assert f"momentkit data info {name} DIR" in result.stdout
    assert name in CliRunner().invoke(app, ["data", "where"]).stdout
