"""`momentkit doctor` says what is there, and fails on a broken installation."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from momentkit.cli import doctor

app = typer.Typer()
app.command()(doctor.command)


def test_this_installation_is_whole_and_above_every_floor():
    done = CliRunner().invoke(app, [], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "BROKEN" not in done.output
    for word in ("torch", "FFmpeg", "cores", "memory", "tiny_frames.safetensors", "transformers (encoders)"):
        assert word in done.output


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.13.0+cpu", (2, 13, 0)), ("n8.1.2-3", (8, 1, 2)), ("git", ()), ("18.1.0", (18, 1, 0))],
)
def test_versions_are_compared_as_numbers(version, numbers):
    assert doctor.version_tuple(version) == numbers


def test_an_old_package_is_broken_and_named_with_what_would_do(monkeypatch):
    monkeypatch.setitem(doctor.REQUIRED, "numpy", "99.0")
    done = CliRunner().invoke(app, [], env={"COLUMNS": "200"})
    assert done.exit_code == 1
    assert "numpy>=99.0" in done.output


def test_an_old_ffmpeg_is_broken(monkeypatch):
    monkeypatch.setattr("av.ffmpeg_version_info", "8.1.1")
    assert doctor.check_ffmpeg().state == "broken"


def test_a_missing_package_is_broken_and_a_missing_extra_is_not():
    assert doctor.check_package("no-such-package", "1").state == "broken"
    finding = doctor.check_package("no-such-package", "1", extra="encoders")
    assert finding.state == "absent" and "momentkit[encoders]" in finding.advice


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_a_python_that_was_not_tested_is_broken(version):
    assert doctor.check_python(version).state == "broken"


def test_damaged_and_missing_weights_are_broken(tmp_path):
    assets = Path(doctor.__file__).parents[1] / "assets"
    (whole,) = assets.glob("tiny_text.safetensors")
    content = bytearray(whole.read_bytes())
    content[-100] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(bytes(content))
    (finding,) = doctor.check_weights(tmp_path)
    assert finding.state == "broken" and "checksum" in finding.found
    (tmp_path / "empty").mkdir()
    assert next(doctor.check_weights(tmp_path / "empty")).state == "broken"
