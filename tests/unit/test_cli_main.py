"""Every user error is one line on standard error, and the exit code says whose fault it was."""

import subprocess
import sys
from pathlib import Path

import pytest


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "momentkit", *words], capture_output=True, text=True)


@pytest.mark.parametrize(
    "words,says",
    [
        (["find", "film.mp4", "a", "--tpo", "3"], "No such option: --tpo"),
        (["find"], "Missing argument 'VIDEO'"),
        (["fnid"], "Did you mean 'find'?"),
        (["find", "film.mp4", "a", "--top", "x"], "Invalid value for '--top'"),
        (["verify", "nothing"], "nothing to verify for 'nothing'"),
        (["score", "missing.jsonl", "missing.jsonl"], "cannot read missing.jsonl"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(words: list[str], says: str) -> None:
    result = run(*words)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("momentkit: ") and result.stderr.count("\n") == 1
    assert says in result.stderr


def test_no_argument_shows_the_help() -> None:
    result = run()
    assert result.returncode == 2 and "find" in result.stdout and result.stderr == ""


def test_the_version_is_printed_alone() -> None:
    result = run("--version")
    assert result.returncode == 0 and result.stdout.strip().count(".") == 2


def test_scoring_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['momentkit', 'score', 'a', 'b']\n"
        "from momentkit.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.strip() == "False"
