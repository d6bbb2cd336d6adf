"""What lies behind the figures: values of each query, two runs against each other, the HTML page."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.core.errors import ConfigError, DataError
from momentkit.core.types import Query
from momentkit.data.options import DataConfig, StreamConfig
from momentkit.train.by_query import details, per_query
from momentkit.train.compare import MODEL, PRIOR, Comparison, compare
from momentkit.train.eval_report import to_html
from momentkit.train.evaluate import figures
from momentkit.train.paired import paired
from train_data import train_two_seeds

STREAM = StreamConfig(folder="f", encoder="toy", layer="last", dim=4)
DATA = DataConfig(
    root=".", layout="charades", train="t", val="v", video=(STREAM,), text=STREAM, clip_length_s=2.0, tef=True
)  # fmt: skip
LINES = ["model", "location prior", "another query's text", "another video's frames"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs on the same data."""
    return train_two_seeds(tmp_path_factory.mktemp("runs"))


def answers(count: int, seed: int) -> tuple[list[dict], list[Query]]:
    """Rated queries with one to three moments, and random answers."""
    generator = np.random.default_rng(seed)
    rows, queries = [], []
    for number in range(count):
        windows = tuple(
            (float(s), float(s + 2 + number % 9)) for s in sorted(generator.integers(0, 20, 1 + number % 3))
        )
        queries.append(
            Query(
                qid=number // 2,  # a file may hold one qid twice
                text="word " * (1 + number % 14),
                vid=f"v{number // 3}",
                duration_s=40.0,
                windows_s=windows if number else None,
                relevant_clips=(1, 2),
                saliency_scores=((4, 4, 2), (1, 2, 3)),
            )
        )
        start = generator.random(5) * 20
        found = np.stack([start, start + 6, np.sort(generator.random(5))[::-1]], 1).round(4).tolist()
        saliency = generator.random(20).round(4).tolist()
        rows.append({"qid": number // 2, "pred_relevant_windows": found, "pred_saliency_scores": saliency})
    return rows, queries


def test_the_values_of_the_queries_average_to_the_figures() -> None:
    rows, queries = answers(30, seed=0)
    metrics, unlabelled = figures(rows, queries, DATA)
    values = per_query(rows, queries, DATA)
    assert unlabelled == 1 and len(values.queries) == 29
    names = {name: f"MR-full-{name}" for name in ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU", "mAP")}
    names |= {"HL-mAP": "HL-min-VeryGood-mAP", "HL-Hit1": "HL-min-VeryGood-Hit1"}
    assert values.values.keys() == names.keys()
    for ours, printed in names.items():
        assert 100 * values.values[ours].mean() == pytest.approx(metrics[printed], abs=0.0051)


@pytest.mark.parametrize(("layout", "raters"), [("tvsum", 20), ("youtube", 1)])
def test_highlight_sets_have_one_value_a_video_and_no_parts(layout: str, raters: int) -> None:
    generator = np.random.default_rng(1)
    ratings = [generator.integers(1, 5, (10, raters)) - 2 * (raters == 1) for _ in range(4)]
    queries = [
        Query(
            qid=n, text="t", vid=f"v{n}", duration_s=20.0, domain="BK",
            clip_labels=tuple(tuple(map(float, clip)) for clip in rating),
        )
        for n, rating in enumerate(ratings)
    ]  # fmt: skip
    rows = [{"qid": n, "pred_saliency_scores": generator.random(12).tolist()} for n in range(4)]
    data = replace(DATA, layout=layout)
    values = per_query(rows, queries, data)
    assert 100 * values.values["mAP"].mean() == pytest.approx(
        figures(rows, queries, data)[0]["mAP"], abs=0.001
    )
    assert details({MODEL: values}, MODEL) is None


def test_parts_and_misses_are_those_of_the_answers() -> None:
    rows, queries = answers(30, seed=2)
    values = per_query(rows, queries, DATA)
    found = details({MODEL: values}, MODEL)
    assert found is not None
    for parts in found.parts[MODEL].values():
        assert sum(part["queries"] for part in parts.values()) == 29
    short = [n for n, query in enumerate(values.queries) if len(query.text.split()) <= 4]
    assert found.parts[MODEL]["words"]["up to 4"]["mIoU"] == pytest.approx(
        100 * values.values["mIoU"][short].mean()
    )
    sure = [miss["confidence"] for miss in found.misses]
    assert sure == sorted(sure, reverse=True) and all(miss["iou"] < 0.5 for miss in found.misses)
    assert [curve.threshold for curve in found.calibration] == [0.5, 0.7]
    assert found.calibration[1].bias > found.calibration[0].bias


def test_a_run_against_another_is_its_difference_and_other_queries_are_refused() -> None:
    (rows, queries), (others, _) = answers(30, seed=3), answers(30, seed=4)
    first, second = (per_query(each, queries, DATA) for each in (rows, others))
    found = paired(first, second, draws=300)
    assert found["mAP"].difference == pytest.approx(100 * (second.values["mAP"] - first.values["mAP"]).mean())
    assert found["mAP"].low < found["mAP"].difference < found["mAP"].high
    with pytest.raises(DataError, match="one has 29, the other 28"):
        paired(first, per_query(others[:-1], queries[:-1], DATA))
    moved = [*queries[:-1], replace(queries[-1], windows_s=((0.0, 1.0),))]
    with pytest.raises(DataError, match="query 28 is 14 on v9 for one and 14 on v9"):
        paired(first, per_query(others, moved, DATA))


def test_eval_reports_parts_and_calibration_and_writes_the_page(trained: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    told = CliRunner().invoke(app, ["eval", str(trained[0]), "--json", "--report", str(page)])
    details_told = json.loads(told.stdout)["details"]
    assert set(details_told["parts"]) == {MODEL, PRIOR}
    assert set(details_told["parts"][MODEL]) == {"moment length", "position", "words", "moments"}
    shown = CliRunner().invoke(app, ["eval", str(trained[0])], env={"COLUMNS": "160"}).stdout
    assert "moment length: under 5 s" in shown and "words: 12 and more" not in shown
    assert "calibration error" in shown
    text = page.read_text()
    assert all(name in text.replace("&#x27;", "'") for name in LINES) and "By position" in text
    assert "Right from an overlap of 0.5" in text and "The surest misses" in text


class Addresses(HTMLParser):
    """Everything in a page that could reach outside it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.reached += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "action")]
        self.reached += [tag] if tag in ("script", "link", "iframe", "img") else []
        self.open += [tag] if tag not in ("meta", "path", "rect", "circle", "polyline") else []

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "rect", "circle", "polyline"):
            assert self.open.pop() == tag


def test_the_page_reaches_for_nothing_and_shows_words_as_they_are(trained: list[Path]) -> None:
    comparison = compare(trained[0])
    assert comparison.details is not None
    evil = '<script>alert("x")</script>'
    misses = tuple(dict(miss) | {"query": evil} for miss in comparison.details.misses)
    page = to_html(replace(comparison, details=replace(comparison.details, misses=misses)), evil)
    parser = Addresses()
    parser.feed(page)
    assert parser.reached == [] and parser.open == []
    assert evil not in page and page.count("&lt;script&gt;") >= 1 + len(misses)


def test_scores_that_are_no_confidences_are_said_to_be_none() -> None:
    rows, queries = answers(12, seed=5)
    for row in rows:
        row["pred_relevant_windows"] = [[s, e, 9 * score] for s, e, score in row["pred_relevant_windows"]]
    behind = details({MODEL: per_query(rows, queries, DATA)}, MODEL)
    page = to_html(Comparison({MODEL: {"MR-full-mAP": 1.0}}, rows, (), details=behind), "t")
    assert "are not confidences between 0 and 1" in page and "expected calibration error" not in page


def test_the_command_compares_two_runs(trained: list[Path]) -> None:
    command = ["compare", "--bootstrap", *map(str, trained), "--draws", "200"]
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    each = [compare(run).figures[MODEL] for run in trained]
    assert told["mAP"]["difference"] == pytest.approx(
        each[1]["MR-full-mAP"] - each[0]["MR-full-mAP"], abs=0.011
    )
    shown = CliRunner().invoke(app, command, env={"COLUMNS": "160"}).stdout
    assert "interval" in shown and ("cannot tell" in shown or "better" in shown or "worse" in shown)
    alone = CliRunner().invoke(app, command[:3])
    assert isinstance(alone.exception, ConfigError) and "compares two runs, got 1" in str(alone.exception)
