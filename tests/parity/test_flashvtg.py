"""FlashVTG equals the published code, on stored runs."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.models.flashvtg import FlashVTG
from momentkit.verify.flashvtg import run

HERE = Path(__file__).parent / "flashvtg"
SHARED = Path(__file__).parents[2].parent / "shared" / "golden" / "flashvtg"


def test_every_stored_case_agrees() -> None:
    results = list(run(HERE))
    assert len(results) >= 13
    assert [result.case for result in results if not result.ok] == []


def test_every_case_of_the_full_set_agrees() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"the full set of stored runs is not present: {SHARED}")
    results = list(run(SHARED))
    assert len(results) == 20
    assert [result.case for result in results if not result.ok] == []


def test_verify_prints_a_line_a_case_and_fails_on_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    good = CliRunner().invoke(app, ["verify", "flashvtg", "--golden", str(HERE)])
    assert good.exit_code == 0 and "mr_train " in good.stdout
    relu = torch.nn.functional.relu
    monkeypatch.setattr(torch.nn.functional, "relu", lambda x: relu(x) + 1e-3)
    assert FlashVTG  # the network is the same; only its arithmetic was disturbed
    bad = CliRunner().invoke(app, ["verify", "flashvtg", "--golden", str(HERE)])
    assert bad.exit_code == 1 and "DIFFERS" in bad.stdout


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", "flashvtg", "--golden", str(tmp_path)])
    assert result.exit_code != 0 and "no case" in str(result.exception)
