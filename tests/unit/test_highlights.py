"""A reel: the best stretches, in order of time, never longer than asked."""

import json
import sys
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edit_films import numbers_in, write_numbered
from momentkit.cli.main import main
from momentkit.core.contract import FeatureContract, StreamContract
from momentkit.core.errors import QueryError
from momentkit.core.types import VideoFeatures
from momentkit.predict import grounder as grounder_module
from momentkit.predict.encoded import EncodedVideo
from momentkit.predict.highlights import LEAST_S, make_reel, parse_length, pick_stretches
from momentkit.predict.result import Result

CONTRACT = FeatureContract(
    video=(StreamContract(encoder="test", layer="x", dim=4),),
    text=StreamContract(encoder="test", layer="x", dim=4),
    clip_length_s=0.4,
)


@settings(max_examples=200, deadline=None)
@given(
    saliency_T=arrays(np.float64, st.integers(1, 60), elements=st.floats(-5, 5)),
    clip_length_s=st.sampled_from([0.4, 1.0, 2.0]),
    part=st.floats(0.1, 1.0),
    length_s=st.floats(1, 40),
)
def test_a_reel_is_never_too_long_never_overlaps_and_wastes_little(saliency_T, clip_length_s, part, length_s):
    duration_s = (len(saliency_T) - 1 + part) * clip_length_s
    stretches = pick_stretches(saliency_T, clip_length_s, duration_s, length_s)
    seconds = [min(end * clip_length_s, duration_s) - first * clip_length_s for first, end in stretches]
    assert sum(seconds) <= length_s + 1e-5
    assert all(a[1] < b[0] for a, b in pairwise(stretches))
    if stretches:  # whoever is left out no longer fits
        assert sum(seconds) >= min(duration_s, length_s - clip_length_s - LEAST_S) - 1e-6


def test_the_peaks_are_taken_with_their_neighbours_and_given_in_time():
    saliency_T = np.zeros(40)
    saliency_T[[30, 31, 32]], saliency_T[[5, 6]] = 3, 2
    assert pick_stretches(saliency_T, 1.0, 40.0, 5.0) == [(5, 7), (30, 33)]
    assert pick_stretches(saliency_T, 1.0, 40.0, 3.0) == [(30, 33)]


def test_a_reel_as_long_as_the_film_is_the_film():
    assert pick_stretches(np.random.default_rng(0).normal(size=20), 1.0, 19.3, 60.0) == [(0, 20)]


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("2m", 120), ("1h0m5s", 3605), (" 7.5 ", 7.5)])
def test_lengths_are_read_as_people_write_them(text, seconds):
    assert parse_length(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "-3", "soon", "nan", "inf", "3 0", "9" * 400])
def test_a_length_without_meaning_is_refused(text):
    with pytest.raises(QueryError):
        parse_length(text)


class Grounder:
    """Encodes to a film whose clips 3 and 4 are like no others; finds the first clips salient."""

    contract = CONTRACT

    def encode(self, path, *, progress=None):
        rows_TD = np.tile(np.array([1, 0, 0, 0], np.float32), (10, 1))
        rows_TD[3:5] = [0, 1, 0, 0]
        features = VideoFeatures(features_TD=rows_TD, clip_length_s=0.4, duration_s=4.0, contract=CONTRACT)
        return EncodedVideo(name=path.name, features=features, path=path)

    def find(self, video, sentence):
        return Result(
            query=sentence,
            video=video.name,
            duration_s=4.0,
            clip_length_s=0.4,
            moments=(),
            saliency=(9, 8, 7, 6, 5, 0, 0, 0, 0, 0),
            not_found_probability=0.9,
            model="test",
            encoder="test",
        )


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_numbered(tmp_path_factory.mktemp("film") / "park.mp4", Fraction(25), 100)


def test_without_a_sentence_the_rare_clips_are_taken(film):
    grounder = Grounder()
    result = make_reel(grounder, grounder.encode(film), length_s=0.8)
    assert [(m.start_s, m.end_s) for m in result.moments] == [(1.2, 2.0)]
    assert result.moments[0].score == 1 and len(result.saliency) == 10


def test_with_a_sentence_the_models_saliency_decides(film):
    grounder = Grounder()
    result = make_reel(grounder, grounder.encode(film), "a dog", length_s=2.0)
    assert [(m.start_s, m.end_s) for m in result.moments] == [(0.0, 2.0)] and result.query == "a dog"


@pytest.fixture
def run(monkeypatch, capsys):
    monkeypatch.setattr(grounder_module, "load", lambda model, *, encoder: Grounder())

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["momentkit", "highlights", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    return call


def test_the_command_says_what_it_took_and_writes_it_to_the_frame(run, film, tmp_path):
    reel, timeline = tmp_path / "reel.mp4", tmp_path / "reel.fcpxml"
    code, out, err = run(film, "--length", "0.8s", "-o", reel, "-o", timeline, "--exact")
    assert code == 0 and "took 1 stretch, 0.8 s of 0.8 s, from a film of 0:04" in out
    assert "least like the rest" in out and "20 frames encoded again" in err
    assert numbers_in(reel) == list(range(30, 50))
    assert 'start="6/5s" duration="4/5s"' in timeline.read_text()


def test_a_sentence_that_is_probably_not_there_is_said(run, film):
    _, out, _ = run(film, "a dog", "--length", "2s")
    assert "probably not in this video: 90% sure" in out


def test_json_is_all_there_is_on_standard_output(run, film):
    code, out, err = run(film, "a dog", "--length", "2s", "--json")
    assert (code, err) == (0, "") and Result.model_validate(json.loads(out)).query == "a dog"


@pytest.mark.parametrize("arguments", [("--length", "soon"), ("",), ("-o", "x.mp5")])
def test_a_users_mistake_is_one_line_and_exit_2(run, film, arguments):
    code, out, err = run(film, *arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1
