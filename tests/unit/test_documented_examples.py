"""The examples in docstrings and on pages are run: what they show is what happens."""

import doctest
import re
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import pytest

from edit_films import write_numbered
from momentkit.data.synthetic.film import write_film
from momentkit.data.synthetic.plan import FilmOptions, make_film

DOCS = Path(__file__).parents[2] / "docs"

MODULES = [
    "momentkit",
    "momentkit.core.timeline",
    "momentkit.models.registry",
    "momentkit.predict.encoded",
    "momentkit.predict.export",
    "momentkit.predict.highlights",
    "momentkit.predict.long",
    "momentkit.predict.render",
    "momentkit.predict.result",
    "momentkit.predict.windows",
    "momentkit.video.grid",
]


@pytest.mark.parametrize("name", MODULES)
def test_what_the_documentation_shows_is_what_happens(name, tmp_path, monkeypatch):
    """In an empty folder that holds one film."""
    monkeypatch.chdir(tmp_path)
    if name == "momentkit":
        write_numbered(tmp_path / "match.mp4", Fraction(5), 40, sound=False)
    outcome = doctest.testmod(import_module(name))
    assert outcome.attempted > 0 and outcome.failed == 0


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A folder with a short film of the synthetic world."""
    folder = tmp_path_factory.mktemp("film")
    options = FilmOptions(shortest_s=20, longest_s=24)
    write_film(make_film(4_100_000_000, options), folder / "film.mp4", height=144, width=256, fps=12)
    return folder


def test_what_the_page_on_python_shows_is_what_happens(film, monkeypatch):
    monkeypatch.chdir(film)
    lines = (DOCS / "python.md").read_text().splitlines()
    text = "\n".join("" if line.startswith("```") else line for line in lines)
    examples = doctest.DocTestParser().get_doctest(text, {}, "python.md", "python.md", 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(examples)
    assert runner.tries > 15 and runner.failures == 0


def test_the_code_of_the_readme_runs(film, monkeypatch):
    monkeypatch.chdir(film)
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS.parent / "README.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["result"].moments and (film / "report.html").is_file()


def test_every_public_name_is_there_and_documented():
    module = import_module("momentkit")
    for name in module.__all__:
        if not name.startswith("__"):
            assert (getattr(module, name).__doc__ or "").strip(), name
