"""Anti-bias splits: the rule on a few rows, the released files, and the command."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.core.errors import ConfigError, DataError
from momentkit.core.types import Query
from momentkit.data.annotations import read_annotations, write_annotations
from momentkit.data.splits import anti_bias

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def row(qid: int, start_s: float, end_s: float) -> Query:
    return Query(qid=qid, text="a sentence.", vid=f"v{qid}", duration_s=40.0, windows_s=((start_s, end_s),))


# Lengths 3, 12, 10 (neither), 4, 11, 5, 6, 7, 8, 30, 25
ROWS = [
    row(100 + number, start_s, end_s)
    for number, (start_s, end_s) in enumerate(
        [(0, 3), (1, 13), (5, 15), (16, 20), (17, 28), (2, 7), (3, 9), (15, 22), (4, 12), (0, 30), (15.5, 40)]
    )
]


def numbers(rows: list[Query]) -> list[int]:
    return [query.qid - 100 for query in rows]


@pytest.mark.parametrize(
    ("rule", "part", "expected"),
    [
        (
            "len",
            "train",
            [0, 3, 5, 6, 7, 8, 1],
        ),  # six short ones, and the first long one: a quarter, rounded down
        ("len", "test", [1, 4, 9, 10, 0]),
        ("mom", "train", [0, 1, 5, 6, 8, 3]),  # ending at 15 s, or running across it, is neither
        ("mom", "test", [3, 4, 10]),  # three late ones: not enough for an early one
    ],
)
def test_the_majority_comes_first_then_the_first_rows_of_the_rest(rule, part, expected) -> None:
    assert numbers(anti_bias(ROWS, rule, part)) == expected


def test_every_row_keeps_its_own_qid_unless_the_released_numbers_are_wanted() -> None:
    ours, released = (anti_bias(ROWS, "len", "test", released=flag) for flag in (False, True))
    assert len({query.qid for query in ours}) == len(ours)
    assert [query.qid for query in released] == [0, 1, 2, 3, 0]
    assert [query.vid for query in released] == [query.vid for query in ours]


def test_a_row_without_exactly_one_window_is_refused() -> None:
    for windows in (None, (), ((0.0, 1.0), (2.0, 3.0))):
        bad = Query(qid=7, text="x", vid="v", duration_s=9.0, windows_s=windows, line=3)
        with pytest.raises(DataError, match=r"qid 7 \(line 3\) has \d windows"):
            anti_bias([*ROWS, bad], "len", "train")


@pytest.mark.parametrize(("rule", "part"), [("length", "train"), ("len", "val")])
def test_an_unknown_rule_or_part_is_refused(rule: str, part: str) -> None:
    with pytest.raises(ConfigError, match="rule is len or mom"):
        anti_bias(ROWS, rule, part)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("rule", ["len", "mom"])
def test_the_released_files_come_out_row_by_row(rule: str, part: str) -> None:
    source = SHARED / "charades_sta" / f"charades_sta_{part}_tvr_format.jsonl.gz"
    target = SHARED / f"charades_sta_{rule}" / f"{part}_{rule}_80.jsonl.gz"
    if not (source.exists() and target.exists()):
        pytest.skip(f"published data not present: {source}, {target}")
    ours = anti_bias(read_annotations(source), rule, part, released=True)
    theirs = read_annotations(target)
    assert [(q.qid, q.vid, q.duration_s, q.windows_s) for q in ours] == [
        (q.qid, q.vid, q.duration_s, q.windows_s) for q in theirs
    ]
    corrected = sum(one.text != other.text for one, other in zip(ours, theirs, strict=True))
    assert corrected == {("len", "test"): 1, ("mom", "test"): 3}.get((rule, part), 0)  # typing errors
    clean = anti_bias(read_annotations(source), rule, part)
    assert len({query.qid for query in clean}) == len(clean) > len({query.qid for query in theirs})


def test_the_command_writes_both_parts(tmp_path: Path) -> None:
    train, test = (write_annotations(tmp_path / f"{part}.jsonl", ROWS) for part in ("train", "test"))
    words = ["data", "split", str(train), str(test), "--rule", "mom", "-o", str(tmp_path / "mom")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "train_mom_80.jsonl: 6 rows, 6 qids" in result.stdout
    written = read_annotations(tmp_path / "mom" / "test_mom_80.jsonl")
    assert numbers(written) == [3, 4, 10]
    released = CliRunner().invoke(app, [*words, "--released"])
    assert "train_mom_80.jsonl: 6 rows, 5 qids" in released.stdout
    first = json.loads((tmp_path / "mom" / "train_mom_80.jsonl").read_text().splitlines()[0])
    assert first["qid"] == 0 and first["relevant_windows"] == [[0.0, 3.0]]


def test_the_command_refuses_an_unknown_rule(tmp_path: Path) -> None:
    file = write_annotations(tmp_path / "rows.jsonl", ROWS)
    result = CliRunner().invoke(
        app, ["data", "split", str(file), str(file), "--rule", "x", "-o", str(tmp_path)]
    )
    assert isinstance(result.exception, ConfigError)
