"""Model files say what tells their model apart: two of them share less than a quarter of their lines."""

import ast
import itertools
from difflib import SequenceMatcher
from pathlib import Path

import momentkit

MODELS = Path(momentkit.__file__).parent / "models"
MOST = 0.25


def code_lines(path: Path) -> list[str]:
    """Lines that say something: no imports, docstrings, comments, blank lines or lone brackets."""
    text = path.read_text()
    passed_over: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, ast.Import | ast.ImportFrom):
            passed_over |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = [line.split("  #")[0].strip() for line in text.splitlines()]
    return [
        line
        for number, line in enumerate(lines, 1)
        if number not in passed_over and line.strip(")]},([{") and not line.startswith("#")
    ]


def shared(one: list[str], other: list[str]) -> float:
    """Identical lines in the same order, as a share of the lines of both."""
    blocks = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return 2 * sum(block.size for block in blocks) / (len(one) + len(other))


def test_the_measure_counts_what_is_the_same() -> None:
    assert shared(["a", "b", "c", "d"], ["a", "b", "c", "d"]) == 1
    assert shared(["a", "b", "c", "d"], ["a", "x", "c", "y"]) == 0.5


def test_no_two_model_files_share_a_quarter_of_their_lines() -> None:
    frame = ("__init__", "registry", "family")
    files = {path.stem: code_lines(path) for path in MODELS.glob("*.py") if path.stem not in frame}
    assert len(files) >= 12 and all(files.values())
    shares = {
        (one, other): shared(files[one], files[other]) for one, other in itertools.combinations(files, 2)
    }
    assert {pair: round(share, 2) for pair, share in shares.items() if share >= MOST} == {}
