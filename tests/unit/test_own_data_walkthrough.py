"""The commands of docs/own_data.md lead from films to an answer, as they stand but for the numbers."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.core.errors import NothingFoundError

DOCUMENT = Path(__file__).parents[2] / "docs" / "own_data.md"
FEWER = {
    "--films 20": "--films 3",
    "--val 6": "--val 2",
    "epochs = 30": "epochs = 1",
    "hidden = 64": "hidden = 16",
}
FEWER |= {"feed_forward = 128": "feed_forward = 32", "evaluate_every = 5": "evaluate_every = 1"}


def blocks(kind: str) -> list[str]:
    text = DOCUMENT.read_text()
    for number, fewer in FEWER.items():
        assert text.count(number) == 1, f"{number} is not in the document once"
        text = text.replace(number, fewer)
    return re.findall(rf"```{kind}\n(.*?)```", text, re.S)


@pytest.mark.timeout(600)
def test_the_walk_through_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (recipe,) = blocks("toml")
    Path("recipe.toml").write_text(recipe + "\n")
    said = {}
    for line in "".join(blocks("sh")).strip().splitlines():
        words = shlex.split(line)
        if words[0] == "cat":
            first, second, arrow, target = words[1:]
            assert arrow == ">"
            Path(target).write_text(Path(first).read_text() + Path(second).read_text())
            continue
        assert words[0] == "momentkit"
        result = CliRunner().invoke(app, words[1:])
        # A model of one epoch may find nothing, which is an answer.
        assert result.exit_code == 0 or isinstance(result.exception, NothingFoundError), (
            line,
            result.exception,
        )
        said[words[2] if words[1] == "data" else words[1]] = result.stdout
    assert {"synthesize", "import", "validate", "leakage", "encode", "info", "train", "eval", "find"} == set(
        said
    )
    assert said["validate"].count("no fault") == 2
    assert "0 videos in both" in said["leakage"]
    assert "5 films and 5 sentences encoded" in said["encode"]
    assert "best epoch 1" in said["train"]
    assert "location prior" in said["eval"]
    assert Path("runs/own/best.safetensors").is_file()
