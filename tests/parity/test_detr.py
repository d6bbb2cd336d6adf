"""The DETR family equals the published codes, on stored runs."""

from importlib import import_module
from pathlib import Path

import pytest

from momentkit.cli.verify import VERIFIERS

HERE = Path(__file__).parent
SHARED = Path(__file__).parents[2].parent / "shared" / "golden"
CASES = {  # name -> cases here, cases of the full set
    "bm_detr": (1, 3),
    "cg_detr": (2, 5),
    "components": (4, 4),
    "ld_detr": (10, 12),
    "moment_detr": (3, 4),
    "momentdiff": (9, 16),
    "ms_2d_tan": (2, 9),
    "qd_detr": (3, 5),
    "tr_detr": (1, 3),
    "uvcom": (1, 4),
}


@pytest.mark.parametrize("name", CASES)
def test_every_stored_case_agrees(name: str) -> None:
    results = list(import_module(VERIFIERS[name]).run(HERE / name))
    assert len(results) == CASES[name][0]
    assert [result.case for result in results if not result.ok] == []


@pytest.mark.parametrize("name", CASES)
def test_every_case_of_the_full_set_agrees(name: str) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the full set of stored runs is not present: {SHARED / name}")
    results = list(import_module(VERIFIERS[name]).run(SHARED / name))
    assert len(results) == CASES[name][1]
    assert [result.case for result in results if not result.ok] == []


def test_every_shared_block_agrees() -> None:
    if not (SHARED / "detr_family").is_dir():
        pytest.skip(f"the stored runs of the blocks are not present: {SHARED / 'detr_family'}")
    results = list(import_module(VERIFIERS["detr_family"]).run(SHARED / "detr_family"))
    assert len(results) == 6
    assert [result.case for result in results if not result.ok] == []
