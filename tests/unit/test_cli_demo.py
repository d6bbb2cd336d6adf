"""`momentkit demo`, with a small picture and a stand-in for the grounder that knows the truth."""

import json
import sys

import pytest

from momentkit.cli import demo as demo_command
from momentkit.cli.main import main
from momentkit.core.types import Moment
from momentkit.data.synthetic.demo import demo_film
from momentkit.predict import grounder as grounder_module
from momentkit.predict.result import Result


class Grounder:
    """Finds what is there, and says of the rest that it is not."""

    def encode(self, path):
        assert path.stat().st_size > 1000
        return path

    def find(self, video, sentences, *, top):
        truth = {question.text: question.windows_s for question in demo_film(0).questions}
        return [self._result(video, sentence, truth[sentence]) for sentence in sentences]

    def _result(self, video, sentence, windows):
        return Result(
            query=sentence,
            video=video.name,
            duration_s=60,
            clip_length_s=1,
            moments=tuple(Moment(start_s=start, end_s=end, score=0.9) for start, end in windows or [(0, 5)]),
            saliency=(0.0,) * 60,
            not_found_probability=0.1 if windows else 0.95,
            model="flashvtg",
            encoder="test",
        )


@pytest.fixture
def run(monkeypatch, capsys):
    for name, value in {"HEIGHT": 72, "WIDTH": 128, "FPS": 2}.items():
        monkeypatch.setattr(demo_command, name, value)
    monkeypatch.setattr(grounder_module, "load", lambda name: Grounder())

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["momentkit", "demo", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    return call


def test_the_demo_leaves_a_film_a_report_and_a_result_and_says_how_well_it_went(run, tmp_path):
    code, out, err = run("-o", tmp_path / "out")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "film.mp4",
        "report.html",
        "result.json",
    ]
    assert "8 of 8 events found with an IoU of 0.5 or more, 1.00 on average; 9 of 9 right" in out
    assert "absent (95%)" in out and f"{tmp_path / 'out' / 'report.html'}" in out
    assert len(json.loads((tmp_path / "out" / "result.json").read_text())) == 9
    assert (tmp_path / "out" / "report.html").read_text().count("IoU 1.00</span>") == 8


@pytest.mark.parametrize(("chance", "ending"), [(0.7, "on average; 1 of 9 right"), (None, "on average. ")])
def test_events_called_absent_are_told_apart_from_events_found(run, tmp_path, monkeypatch, chance, ending):
    class Doubter(Grounder):
        def find(self, video, sentences, *, top):
            sure = super().find(video, sentences, top=top)
            return [result.model_copy(update={"not_found_probability": chance}) for result in sure]

    monkeypatch.setattr(grounder_module, "load", lambda name: Doubter())
    _, out, _ = run("-o", tmp_path / "out")
    assert ending in " ".join(out.split())


def test_a_folder_that_cannot_be_written_is_said_before_any_work(run, tmp_path):
    (tmp_path / "file").touch()
    code, out, err = run("-o", tmp_path / "file")
    assert (code, out) == (2, "") and "cannot write" in err


def test_a_seed_below_zero_is_refused(run, tmp_path):
    code, _, err = run("-o", tmp_path / "out", "--seed", "-1")
    assert code == 2 and "from 0 on" in err and not (tmp_path / "out").exists()
