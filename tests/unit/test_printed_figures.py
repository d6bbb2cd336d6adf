"""Figures that some papers print beside the rest: R5, R1@0.1, DiDeMo's ranking of all moments."""

from dataclasses import replace

import numpy as np
import pytest

from momentkit.core.errors import DataError
from momentkit.core.types import Query
from momentkit.data.forms import load_form
from momentkit.data.options import DataConfig, StreamConfig
from momentkit.metrics.didemo import SEGMENTS, chunk_ranking
from momentkit.train.evaluate import figures

STREAM = StreamConfig(folder="f", encoder="toy", layer="last", dim=4)
DATA = DataConfig(
    root=".", layout="charades", train="t", val="v", video=(STREAM,), text=STREAM, clip_length_s=1.0
)  # fmt: skip
PAIRS = [list(pair) for pair in SEGMENTS]


def answers(count: int) -> tuple[list[dict], list[Query]]:
    rng = np.random.default_rng(0)
    rows, queries = [], []
    for number in range(count):
        start_s = rng.uniform(0, 20, (8, 1))
        windows = np.concatenate([start_s, start_s + rng.uniform(1, 10, (8, 1)), rng.random((8, 1))], 1)
        rows.append({"qid": number, "pred_relevant_windows": windows.tolist()[: 3 + number % 6]})
        true = tuple((float(s), float(s) + 4.0) for s in rng.uniform(0, 20, 1 + number % 3))
        queries.append(Query(qid=number, text="t", vid="v", duration_s=30.0, windows_s=true))
    return rows, queries


def overlap(a, b) -> float:
    inner = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return inner / (a[1] - a[0] + b[1] - b[0] - inner)


@pytest.mark.parametrize("layout", ["charades", "tacos", "activitynet", "didemo"])
def test_recall_is_that_of_the_definition(layout: str) -> None:
    rows, queries = answers(60)
    found = figures(rows, queries, replace(DATA, layout=layout))[0]
    for count, thresholds in ((1, (0.1, 0.3, 0.5, 0.7)), (5, (0.1, 0.3, 0.5, 0.7))):
        for t in thresholds:
            hits = [
                any(overlap(w, g) >= t for w in row["pred_relevant_windows"][:count] for g in query.windows_s)
                for row, query in zip(rows, queries, strict=True)
            ]
            assert found[f"MR-full-R{count}@{t}"] == pytest.approx(100 * np.mean(hits), abs=0.0051)
    assert found["MR-full-R5@0.5"] > found["MR-full-R1@0.5"] > 0
    assert not any(name.startswith("DiDeMo") for name in found)  # these rows know no annotators


def test_papers_of_other_sets_print_none_of_these() -> None:
    rows, queries = answers(5)
    for layout in ("qvhighlights", "own"):
        assert not any("R5" in name for name in figures(rows, queries, replace(DATA, layout=layout))[0])


def test_windows_rank_all_moments() -> None:
    windows = [[10.1, 14.8, 0.9], [9.9, 15.2, 0.8], [0.0, 30.0, 0.7], [31.0, 40.0, 0.6], [5.0, 5.0, 0.5]]
    ranking = chunk_ranking(np.array(windows)).tolist()
    assert sorted(ranking) == sorted(PAIRS)
    # The second window names what the first did, the last two name nothing; then score times overlap:
    # 0.9 and 0.8 of 15 s of which 5 are shared, against 0.7 of 30 s of which 25 are.
    assert ranking[:4] == [[2, 2], [0, 5], [0, 4], [1, 5]]
    exact = [[5.0 * a, 5.0 * (b + 1), 1 - n / 30] for n, (a, b) in enumerate(PAIRS[::-1])]
    assert chunk_ranking(np.array(exact)).tolist() == PAIRS[::-1]


def test_the_official_figures_are_those_of_the_annotators(tmp_path) -> None:
    import json

    times = [[[0, 0], [0, 0], [0, 0], [5, 5]], [[2, 3], [2, 3], [2, 2], [2, 3]]]
    row = {"description": "a cat", "video": "v", "num_segments": 6}
    path = tmp_path / "val_data.json"
    path.write_text(json.dumps([row | {"annotation_id": n, "times": pairs} for n, pairs in enumerate(times)]))
    queries = load_form(path, "didemo").queries
    windows = [[[0.0, 5.0, 0.9]], [[0.0, 10.0, 0.9], [10.0, 20.0, 0.8]]]
    rows = [{"qid": n, "pred_relevant_windows": each} for n, each in enumerate(windows)]
    found = figures(rows, queries, replace(DATA, layout="didemo"))[0]
    assert (found["DiDeMo-Rank@1"], found["DiDeMo-Rank@5"], found["DiDeMo-mIoU"]) == (50, 100, 50)


@pytest.mark.parametrize("wrong", [[[0, 6]], [[2, 1]], [[0.5, 1]], [[0]], "0 1"])
def test_annotators_that_no_chunk_answers_to_are_refused(wrong, tmp_path) -> None:
    import json

    row = {
        "qid": 1,
        "query": "a",
        "vid": "v",
        "duration": 30,
        "relevant_windows": [[0, 5]],
        "annotators": wrong,
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match="annotators must be"):
        load_form(tmp_path / "rows.jsonl", "didemo")
