"""Our metrics equal the stored figures of the official programs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from momentkit.cli.verify import line
from momentkit.verify.metrics import run

HERE = Path(__file__).parent / "metrics"
SHARED = Path(__file__).parents[2].parent / "shared"


def copied(tmp_path, *names):
    """The named parts of the stored folder, writable."""
    for name in names:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (HERE / name).is_dir() else shutil.copyfile)(HERE / name, target)
    return tmp_path


def only(folder, *ids):
    """Keep these cases of `qvh/cases.json` and return them for a change."""
    path = folder / "qvh/cases.json"
    cases = [case for case in json.loads(path.read_text()) if case["id"] in ids]
    path.write_text(json.dumps(cases))
    return cases


def assert_all_agree(results):
    results = list(results)
    assert results
    assert [line(result) for result in results if not result.ok] == []


def test_every_stored_synthetic_case_is_reproduced():
    results = list(run(HERE))
    assert len(results) == 36
    assert_all_agree(results)


def test_every_shared_case_is_reproduced():
    golden = SHARED / "golden/metrics"
    if not golden.is_dir():
        pytest.skip(f"shared fixtures not present: {golden}")
    assert_all_agree(run(golden))


def test_a_changed_figure_is_found_and_named(tmp_path):
    folder = copied(tmp_path, "qvh")
    only(folder, "rounding_32")
    path = folder / "qvh/expected/rounding_32.json"
    expected = json.loads(path.read_text())
    expected["cgdetr"]["full"]["MR-mAP"]["0.65"] += 0.01
    path.write_text(json.dumps(expected))
    (result,) = run(folder)
    assert not result.ok
    assert [stage.stage for stage in result.stages if not stage.ok] == ["cgdetr full/MR-mAP/0.65"]


def test_a_missing_or_surplus_figure_is_found(tmp_path):
    folder = copied(tmp_path, "qvh")
    only(folder, "rounding_32")
    path = folder / "qvh/expected/rounding_32.json"
    expected = json.loads(path.read_text())
    del expected["qvh"]["short"]["MR-R1"]["0.5"]
    path.write_text(json.dumps(expected))
    (result,) = run(folder)
    assert [stage.stage for stage in result.stages if not stage.ok] == ["qvh short/MR-R1/0.5"]


def test_a_changed_array_is_found(tmp_path):
    folder = copied(tmp_path, "qvh")
    only(folder, "rounding_32")
    path = folder / "qvh/per_query/rounding_32.npz"
    arrays = dict(np.load(path))
    arrays["iou_top1"][3] += 1e-9
    np.savez(path, **arrays)
    (result,) = run(folder)
    assert [stage.stage for stage in result.stages if not stage.ok] == ["per query iou_top1"]


def test_a_case_whose_annotations_are_absent_did_not_run(tmp_path):
    folder = copied(tmp_path / "golden/metrics", "qvh")
    (case,) = only(folder, "rand_grid")
    (folder / "qvh/cases.json").write_text(json.dumps([case | {"gt": "data:absent.jsonl.gz"}]))
    (result,) = run(folder)
    assert not result.ok
    assert result.stages == ()
    assert "not present" in result.note
    assert line(result).startswith("NOT RUN")


def official(folder, prediction, truth, expected, **more):
    """A folder with one case of one prediction row."""
    (folder / "qvh").mkdir()
    (folder / "p.jsonl").write_text(prediction)
    (folder / "t.jsonl").write_text(json.dumps(truth))
    (folder / "e.json").write_text(json.dumps(expected))
    case = {
        "id": "one",
        "pred": "p.jsonl",
        "gt": "t.jsonl",
        "expected": "e.json",
        "per_query": None,
        "evaluators": list(expected),
        "options": {},
        "gt_tie_order_matters": False,
    }
    (folder / "qvh/cases.json").write_text(json.dumps([case | more]))
    (result,) = run(folder)
    return result


TRUTH = {"qid": 1, "duration": 100, "relevant_windows": [[0, 10]]}
FIGURES = {"brief": {"MR-full-mAP": 100.0}}


@pytest.mark.parametrize(
    ("windows", "expected", "agrees"),
    [
        ("[]", {"error": "IndexError", "message": ""}, True),
        ("[[0, NaN, 1]]", FIGURES, True),  # figures of a NaN are not to be trusted
        ("[[0, 1e999, 1]]", FIGURES, True),
        ('[[0, 10, "high"]]', FIGURES, False),
        ("[[0, 10, 1]]", FIGURES, False),
        ("[[0, 10, 1]]", {"error": "IndexError", "message": ""}, False),
        ("[[0, 10, 1]]", {"error": "TypeError", "message": ""}, True),  # an empty range: ours gives null
    ],
)
def test_a_refusal_agrees_where_the_official_program_stops_or_must_not_be_trusted(
    tmp_path, windows, expected, agrees
):
    result = official(tmp_path, f'{{"qid": 1, "pred_relevant_windows": {windows}}}', TRUTH, {"qvh": expected})
    assert result.ok is agrees


def test_ties_are_asserted_in_both_fixed_orders_and_never_by_machine(tmp_path):
    prediction = '{"qid": 1, "pred_relevant_windows": [[5, 15, 0.9], [0, 10, 0.8]]}'
    truth = TRUTH | {"relevant_windows": [[0, 10], [10, 20]]}
    orders = {"qvh@ties_highest_index_first": FIGURES, "qvh@ties_lowest_index_first": FIGURES, "qvh": FIGURES}
    result = official(tmp_path, prediction, truth, orders, gt_tie_order_matters=True)
    assert len(result.stages) == 2
    assert "qvh not asserted" in result.note
