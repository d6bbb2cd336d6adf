"""`momentkit find`: what it prints, writes and refuses, with a stand-in for the grounder."""

import json
import subprocess
import sys

import pytest

from grey_film import write_grey_film
from momentkit.cli.main import main
from momentkit.core.errors import WeightsError
from momentkit.core.types import Moment
from momentkit.core.weights import WeightsCard
from momentkit.predict import grounder as grounder_module
from momentkit.predict.result import Result

SCORES = {"a dog runs": 0.8, "rain": 0.2}


class Grounder:
    """Finds every known sentence at the start of the film."""

    name, card = "test", WeightsCard(model="flashvtg", trained_on="made-up films")

    def encode(self, path, *, progress):
        progress(1, 3)
        return path

    def sampled(self, *, steps, proposals):
        assert (steps, proposals) == (None, None)
        return self

    def find(self, video, sentences, *, top, min_confidence, trace):
        assert not trace
        return [self._result(video, sentence, top, min_confidence) for sentence in sentences]

    def _result(self, video, sentence, top, least):
        scores = [SCORES[sentence], SCORES[sentence] / 2]
        moments = [
            Moment(start_s=index, end_s=index + 1.5, score=p) for index, p in enumerate(scores) if p >= least
        ]
        return Result(
            query=sentence,
            video=video.name,
            duration_s=3,
            clip_length_s=1,
            moments=tuple(moments[:top]),
            saliency=(0, 1, 0),
            model="flashvtg",
            encoder="test",
            unknown_words=("dog",) if "dog" in sentence else (),
        )


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_grey_film(tmp_path_factory.mktemp("film") / "park.mp4", frames=15, step=10)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line; gives (exit code, standard output, standard error) and what was loaded."""
    loaded = []

    def load(model, *, encoder):
        if model == "nothing":
            raise WeightsError("there are no weights 'nothing'")
        loaded.append((model, encoder))
        return Grounder()

    monkeypatch.setattr(grounder_module, "load", load)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["momentkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    call.loaded = loaded
    return call


def test_people_get_a_table_a_sentence(run, film):
    code, out, err = run("find", film, "a dog runs", "rain")
    assert (code, err) == (0, "")
    assert "a dog runs" in out and "rain" in out and "0:01.5" in out and "0.80" in out
    assert "words the text encoder does not know, so the answer is a guess about them: dog" in out
    assert "weights test, trained on made-up films" in out
    assert "\x1b" not in out


def test_json_is_all_there_is_on_standard_output(run, film):
    code, out, _ = run("find", film, "a dog runs", "rain", "--json", "--top", 1)
    results = [Result.model_validate(row) for row in json.loads(out)]
    assert code == 0 and [result.query for result in results] == ["a dog runs", "rain"]
    assert all(len(result.moments) == 1 for result in results)


def test_files_are_written_in_the_format_of_their_ending(run, film, tmp_path):
    files = [tmp_path / f"out/x{ending}" for ending in (".json", ".csv", ".vtt", ".svg", ".html")]
    code, _, _ = run("find", film, "a dog runs", *(part for file in files for part in ("-o", file)))
    assert code == 0
    starts = [file.read_text()[:8].lower() for file in files]
    assert starts == ["[\n  {\n  ", "video,qu", "webvtt\n\n", "<svg xml", "<!doctyp"]
    assert "data:video/mp4;base64," in files[-1].read_text()


def test_the_model_and_the_encoder_are_handed_on(run, film):
    run("find", film, "rain", "--model", "runs/a", "--encoder", "clip", "--encoder", "slowfast.safetensors")
    run("find", film, "rain")
    assert run.loaded == [("runs/a", ["clip", "slowfast.safetensors"]), ("flashvtg", [])]


def test_exit_3_only_when_no_sentence_has_a_moment(run, film, tmp_path):
    some = run("find", film, "a dog runs", "rain", "--min-confidence", 0.5)
    none = run(
        "find", film, "a dog runs", "rain", "--min-confidence", 0.9, "-o", tmp_path / "x.csv", "--json"
    )
    assert some[0] == 0 and "no moment clears the threshold" in some[1]
    assert none[0] == 3 and none[2].count("\n") == 1 and "0.9 or more" in none[2]
    assert [row["moments"] for row in json.loads(none[1])] == [[], []]
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 3


def test_there_is_no_cut_of_nothing(run, film, tmp_path):
    files = [tmp_path / f"x{ending}" for ending in (".mp4", ".otio", ".json")]
    outputs = [part for file in files for part in ("-o", file)]
    code, *_ = run("find", film, "rain", "--min-confidence", 0.9, *outputs)
    assert code == 3 and [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_cut_is_written_and_said_where_it_does_not_mix_with_the_answer(run, film, tmp_path):
    code, out, err = run("find", film, "rain", "--json", "--exact", "-o", tmp_path / "cut.mp4")
    assert code == 0 and json.loads(out)
    assert err == "momentkit: note: cut.mp4: 1 stretch, 8 frames encoded again, exact to the frame\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gone.mp4", "rain"), "gone.mp4"),
        (("empty.mp4", "rain"), "empty.mp4"),
        (("text.mp4", "rain"), "text.mp4"),
        (("FILM", ""), "sentence is empty"),
        (("FILM", "rain", "  "), "sentence is empty"),
        (("FILM", "rain", "--model", "nothing"), "no weights 'nothing'"),
        (("FILM", "rain", "-o", "x.mp5"), ".json, .csv, .vtt, .svg, .html"),
        (("FILM", "rain", "-o", "text.mp4/x.json"), "cannot write"),
        (("FILM", "rain", "-o", "folder.json"), "it is a folder"),
        (("FILM", "rain", "--min-confidence", "nan"), "must lie in [0, 1]"),
        (("FILM", "rain", "--min-confidence", "2"), "must lie in [0, 1]"),
        (("FILM", "rain", "--top", "0"), "top must be at least 1"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_2(run, film, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a film")
    (tmp_path / "folder.json").mkdir()
    code, out, err = run("find", *(film if word == "FILM" else word for word in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("momentkit: ") and err.count("\n") == 1 and words in err


@pytest.mark.parametrize("arguments", [("rain", "--jsn"), ("rain", "--top", "many"), ()])
def test_a_misspelt_option_is_exit_2_and_named(run, film, arguments):
    code, out, err = run("find", film, *arguments)
    assert (code, out) == (2, "")
    assert all(word in err for word in arguments if word.startswith("--"))


def test_mistakes_are_found_before_anything_is_loaded(run, film, tmp_path):
    run("find", film, "rain", "-o", tmp_path / "x.mp5")
    run("find", film, "")
    run("find", tmp_path / "gone.mp4", "rain")
    assert run.loaded == []


def test_help_needs_neither_torch_nor_a_decoder():
    probe = "import sys, momentkit.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not {"torch", "av", "transformers"} & set(done.stdout.split())
