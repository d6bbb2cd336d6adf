"""`momentkit find --steps --proposals --trace`: what a model that denoises answers, step by step."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from grey_film import write_grey_film
from momentkit.cli.main import main
from momentkit.core.types import VideoFeatures
from momentkit.core.weights import WeightsCard, save_weights
from momentkit.models.registry import create_model
from momentkit.predict.encoded import EncodedVideo
from momentkit.predict.grounder import Grounder, load
from momentkit.predict.render import to_json
from momentkit.predict.result import Result, Trace
from momentkit.predict.timeline_svg import to_svg
from momentkit.predict.trace_svg import ROWS, SPANS, drawn_steps, trace_svg

SMALL = {
    "diffusion_vmr": {
        "hidden": 16,
        "heads": 4,
        "feed_forward": 16,
        "encoder_layers": 1,
        "bins": 4,
        "steps": 3,
    },
    "map_diffusion": {
        "hidden": 16,
        "text_hidden": 8,
        "text_layers": 1,
        "columns": 8,
        "scales": 2,
        "kernel": 3,
        "width": 16,
        "map_width": 4,
        "heads": 4,
        "groups": 4,
        "steps": 3,
    },
    "momentdiff": {"hidden": 16, "heads": 4, "feed_forward": 16, "steps": 3, "queries": 4},
}
SENTENCES = ["a red circle jumps", "rain"]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Weights that know nothing, for the features of the bundled encoders."""
    folder, contract = tmp_path_factory.mktemp("weights"), load("flashvtg").contract
    for name, options in SMALL.items():
        options = options | {"video_dim": contract.video_dim, "text_dim": contract.text.dim}
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = create_model(name, **options)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
        card = WeightsCard(model=name, options=options, features=contract)
        save_weights(folder / f"{name}.safetensors", model.state_dict(), card)
    return folder


@pytest.fixture(scope="module", params=SMALL)
def grounder(request, saved) -> Grounder:
    return load(saved / f"{request.param}.safetensors")


def a_video(grounder: Grounder, clips: int = 30) -> EncodedVideo:
    contract = grounder.contract
    features_TD = np.random.default_rng(0).normal(size=(clips, contract.video_dim - 2 * contract.tef))
    features = VideoFeatures(
        features_TD=features_TD.astype(np.float32),
        clip_length_s=contract.clip_length_s,
        duration_s=(clips - 0.4) * contract.clip_length_s,
        contract=contract,
    )
    return EncodedVideo(name="park.mp4", features=features)


def test_a_trace_holds_every_step_and_ends_at_the_answer(grounder: Grounder) -> None:
    video = a_video(grounder)
    for steps in (1, 3, 10):
        results = grounder.sampled(steps=steps).find(video, SENTENCES, top=100, trace=True)
        for result in results:
            trace = result.trace
            assert len(trace.steps) == steps
            assert {len(spans) for spans in trace.steps} == {len(trace.start)}
            everything = [span for spans in (trace.start, *trace.steps) for span in spans]
            assert all(0 <= start <= end <= video.features.duration_s + 1e-3 for start, end in everything)
            found = [(moment.start_s, moment.end_s) for moment in result.moments]
            assert trace.steps[-1][0] == pytest.approx(found[0], abs=2e-3)  # the best one first
            for span in trace.steps[-1]:
                if span[1] > span[0] + 1e-3:
                    assert min(np.abs(np.subtract(found, span)).max(1)) < 2e-3
    assert results[0].trace.start != results[1].trace.start  # each sentence has its own noise


def test_an_answer_does_not_depend_on_what_else_is_asked_nor_on_the_name_of_the_film(grounder) -> None:
    video = a_video(grounder)
    together = grounder.find(video, SENTENCES, trace=True)
    renamed = EncodedVideo(name="other.mp4", features=video.features)
    for sentence, result in zip(SENTENCES, together, strict=True):
        for alone in (
            grounder.find(video, sentence, trace=True),
            grounder.find(renamed, sentence, trace=True),
        ):
            assert alone.trace.start == result.trace.start
            ours, theirs = np.array(alone.trace.steps), np.array(result.trace.steps)
            np.testing.assert_allclose(ours, theirs, atol=2e-3)
    other = grounder.find(video, SENTENCES[0], trace=True, seed=1)
    assert other.trace.start != together[0].trace.start


def test_without_the_option_there_is_no_trace_and_the_answer_is_the_same(grounder: Grounder) -> None:
    video = a_video(grounder)
    plain, traced = (grounder.find(video, SENTENCES[0], trace=trace) for trace in (False, True))
    assert plain.trace is None and traced.model_copy(update={"trace": None}) == plain
    assert "trace" not in json.loads(to_json(plain))
    assert Result.model_validate_json(to_json(traced)) == traced
    assert "trace" in Result.model_json_schema()["properties"]


def numbers(text: str) -> list[float]:
    return [float(value) for value in text.split(";")]


@pytest.mark.parametrize(("steps", "spans"), [(1, 1), (3, 5), (60, 40), (2, 0)])
def test_the_picture_shows_the_steps_and_moves_from_the_noise_to_the_answer(steps: int, spans: int) -> None:
    rng = np.random.default_rng(steps)
    states = np.sort(rng.uniform(-0.0, 20, (steps + 1, spans, 2)), -1)
    trace = Trace.of(states.tolist())
    picture = ElementTree.fromstring(trace_svg(trace, 20.0))
    shown = drawn_steps(steps, ROWS)
    assert shown[0] == 0 and shown[-1] == steps and len(shown) == min(steps + 1, ROWS)
    names = [text.text for text in picture.iter(f"{SVG}text")]
    assert [name for name in names if name == "noise" or name.startswith("step ")] == [
        f"step {number}" if number else "noise" for number in shown
    ]
    drawn = min(spans, SPANS)
    still = [rect for rect in picture.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert len(still) == len(shown) * drawn
    moving = [rect for rect in picture.iter(f"{SVG}rect") if rect.find(f"{SVG}animate") is not None]
    assert len(moving) == drawn
    for index, rect in enumerate(reversed(moving)):
        lefts, widths = (numbers(animate.get("values")) for animate in rect.iter(f"{SVG}animate"))
        times = numbers(rect.find(f"{SVG}animate").get("keyTimes"))
        assert len(lefts) == len(widths) == len(times) == len(shown) + 1
        assert times == sorted(times) and (times[0], times[-1]) == (0, 1)
        for place, number in enumerate([*shown, steps]):
            left = 92 + states[number][index][0] / 20 * (960 - 92 - 24)
            assert lefts[place] == pytest.approx(left, abs=0.2)
        # Where nothing moves the answer stands.
        assert float(rect.get("x")) == lefts[-1] and float(rect.get("width")) == widths[-1]


def test_the_picture_reaches_for_nothing_and_runs_no_script(grounder: Grounder) -> None:
    result = grounder.find(a_video(grounder), "<script>alert(1)</script>", trace=True)
    svg = to_svg([result])
    ElementTree.fromstring(svg)
    assert "From random to real" in svg and "<animate" in svg
    assert not re.search(r"<script|href|url\(|@import", svg)
    assert "From random to real" not in to_svg([result.model_copy(update={"trace": None})])


@dataclass
class Run:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["momentkit", "find", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return Run(int(stop.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    return write_grey_film(tmp_path_factory.mktemp("film") / "park.mp4", frames=40, step=5)


def test_the_command_traces_as_many_steps_and_proposals_as_asked(run, film, saved, tmp_path) -> None:
    weights = saved / "momentdiff.safetensors"
    options = ("--model", weights, "--steps", 7, "--proposals", 11, "--trace", "--json")
    report = tmp_path / "r.html"
    done = run(film, "rain", *options, "-o", report)
    assert (done.code, done.err) == (0, "")
    (result,) = [Result.model_validate(row) for row in json.loads(done.out)]
    assert len(result.trace.steps) == 7 and {len(spans) for spans in result.trace.steps} == {11}
    page = report.read_text()
    assert page.count("From random to real") == 1 and "<animate" in page and ">step 7<" in page
    assert "trace" not in json.loads(run(film, "rain", "--model", weights, "--json").out)[0]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            None,
            ("--steps", 5),
            "flashvtg takes no number of steps: what may be changed after its training is",
        ),
        (None, ("--proposals", 5), "flashvtg takes no number of proposals"),
        (None, ("--trace",), "flashvtg answers in one go and has no steps to trace"),
        ("map_diffusion", ("--proposals", 5), "map_diffusion takes no number of proposals"),
        ("momentdiff", ("--steps", 2000), "steps must lie in 1..noise_steps = 1000, got 2000"),
        ("momentdiff", ("--steps", 0), "steps must be at least 1, got 0"),
        ("diffusion_vmr", ("--proposals", -3), "proposals must be at least 1, got -3"),
    ],
)
def test_what_a_model_cannot_do_is_one_sentence(run, film, saved, name, options, words) -> None:
    model = ("--model", saved / f"{name}.safetensors") if name else ()
    done = run(film, "rain", *model, *options)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("momentkit: ") and done.err.count("\n") == 1 and words in done.err
