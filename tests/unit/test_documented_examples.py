"""The examples in docstrings are run: what they show is what happens."""

import doctest
from fractions import Fraction
from importlib import import_module

import pytest

from edit_films import write_numbered

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


def test_every_public_name_is_there_and_documented():
    module = import_module("momentkit")
    for name in module.__all__:
        if not name.startswith("__"):
            assert (getattr(module, name).__doc__ or "").strip(), name
