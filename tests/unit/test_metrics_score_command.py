"""The command `momentkit score`, in a fresh process as a user runs it."""

import json
import subprocess
import sys

import pytest

PREDICTION = {"qid": 1, "pred_relevant_windows": [[0, 10, 0.9]]}
TRUTH = {"qid": 1, "duration": 100, "relevant_windows": [[0, 12]]}
MAIN = "from momentkit.cli.main import main; main()"


@pytest.fixture
def files(tmp_path):
    paths = tmp_path / "p.jsonl", tmp_path / "t.jsonl"
    for path, row in zip(paths, (PREDICTION, TRUTH), strict=True):
        path.write_text(json.dumps(row))
    return [str(path) for path in paths]


def run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )


def test_json_is_the_whole_dictionary(files):
    done = run(MAIN, "score", *files, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["full"]["MR-mAP"]["average"] == 70.0
    assert json.loads(done.stdout)["long"] is None


def test_the_table_shows_the_figures_and_no_torch_is_loaded(files):
    after = (
        "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules, 'av' in sys.modules)); "
    )
    done = run(after + MAIN, "score", *files, "--protocol", "cgdetr")
    assert done.returncode == 0, done.stderr
    assert "83.33" in done.stdout  # mIoU
    assert done.stdout.rstrip().endswith("False False")


def test_a_bad_file_is_one_line_and_exit_2(files):
    done = run(MAIN, "score", files[0], files[0])
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("momentkit: ")
    assert "p.jsonl:1: relevant_windows: is missing" in done.stderr


def test_a_note_goes_to_standard_error(files, tmp_path):
    reversed_window = PREDICTION | {"pred_relevant_windows": [[10, 0, 0.9]]}
    (tmp_path / "p.jsonl").write_text(json.dumps(reversed_window))
    done = run(MAIN, "score", *files, "--json")
    json.loads(done.stdout)
    assert "momentkit: note: 1 rows predict a window that ends before it starts" in done.stderr
