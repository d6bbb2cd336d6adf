"""`momentkit features`: films and sentences in, files with a contract out; verified; compared."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_encoder_siglip_text import write_siglip, write_words
from test_video_sound import noise, write_film
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.convert.encoders import import_encoder
from momentkit.core.contract import StreamContract
from momentkit.core.errors import FeatureError, FeatureMismatchError
from momentkit.features.base import FrameEncoder
from momentkit.features.cnn14 import Cnn14, Cnn14Config
from momentkit.features.encoders import EncoderOptions, load_encoders
from momentkit.features.extract import encode_video
from momentkit.features.folder import compare_features, cosine_of, verify_folder
from momentkit.features.sound import encode_sound
from momentkit.features.store import (
    l2_normalise,
    read_contract,
    read_text,
    read_video_stream,
    require_stream,
    write_features,
)


def run(*words):
    result = CliRunner().invoke(app, ["features", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for name in ("one", "two.part"):
        write_film(folder / f"{name}.mkv", noise(3), seconds=5)
    return folder


def test_films_become_files_of_raw_rows_with_their_contract(films, tmp_path):
    result = run("extract", films / "one.mkv", films / "two.part.mkv", "-o", tmp_path, "--encoder", "tiny")
    assert result.output.count("written") == 2
    encoder: FrameEncoder = load_encoders("tiny", EncoderOptions()).frames
    kept = read_contract(tmp_path)
    assert kept == encoder.contract.model_copy(update={"dtype": "float32"})
    raw = read_video_stream(tmp_path / "two.part.npz")
    assert raw.shape == (5, kept.dim)
    at_the_door = encode_video(films / "two.part.mkv", encoder).features_TD
    np.testing.assert_allclose(l2_normalise(raw), at_the_door, rtol=0, atol=1e-5)
    assert "there already" in run("extract", films / "one.mkv", "-o", tmp_path, "--encoder", "tiny").output


def test_a_folder_of_other_features_is_refused_before_any_work(films, tmp_path):
    run("extract", films / "one.mkv", "-o", tmp_path, "--encoder", "tiny")
    with pytest.raises(FeatureMismatchError, match="dtype"):
        run("extract", films / "one.mkv", "-o", tmp_path, "--encoder", "tiny", "--dtype", "float16")


def test_a_film_that_fails_does_not_keep_the_others_from_being_encoded(films, tmp_path):
    (tmp_path / "bad.mkv").write_text("no film")
    with pytest.raises(FeatureError, match="1 of 2 films"):
        run("extract", tmp_path / "bad.mkv", films / "one.mkv", "-o", tmp_path / "out", "--encoder", "tiny")
    assert [path.name for path in (tmp_path / "out").glob("*.npz")] == ["one.npz"]


def test_two_films_of_one_name_and_films_beside_annotations_are_refused(films, tmp_path):
    with pytest.raises(FeatureError, match=r"both become one\.npz"):
        run("extract", films / "one.mkv", tmp_path / "one.mp4", "-o", tmp_path, "--encoder", "tiny")
    with pytest.raises(FeatureError, match="one after the other"):
        run("extract", films / "one.mkv", tmp_path / "rows.jsonl", "-o", tmp_path, "--encoder", "tiny")
    with pytest.raises(FeatureError, match="does not encode films"):
        run(
            "extract",
            films / "one.mkv",
            "-o",
            tmp_path,
            "--encoder",
            "glove",
            "--from",
            write_words(tmp_path),
        )


def write_cnn14(folder):
    torch.manual_seed(0)
    torch.save({"model": Cnn14(Cnn14Config(width=2, embedding=12)).state_dict()}, folder / "cnn14.pth")
    run("import", folder / "cnn14.pth", "--encoder", "cnn14", "-o", folder / "cnn14.safetensors")
    return folder / "cnn14.safetensors"


def test_sound_gives_as_many_rows_as_the_film_has_clips_and_silence_after_its_end(films, tmp_path):
    weights = write_cnn14(tmp_path)
    out = tmp_path / "sound"
    run("extract", films / "one.mkv", "-o", out, "--encoder", "cnn14", "--from", weights)
    rows = read_video_stream(out / "one.npz")
    assert rows.shape == (3, 12)  # 5 s of film, 3 s of sound, clips of 2 s
    encoder = load_encoders("cnn14", EncoderOptions(source=weights)).sound
    silence = encoder.encode_sound(np.zeros((1, 64000), np.float32))
    np.testing.assert_allclose(rows[2:], silence, rtol=0, atol=1e-6)
    assert not np.allclose(rows[0], silence)
    normal = encode_sound(films / "one.mkv", encoder).features_TD
    np.testing.assert_allclose(normal, l2_normalise(rows), rtol=0, atol=1e-5)


def test_sentences_of_annotations_become_text_files(tmp_path):
    rows = [
        {"qid": 7, "query": "A lamp.", "vid": "v", "duration": 10, "relevant_windows": [[0, 2]]},
        {"qid": 8, "query": "a light", "vid": "w", "duration": 10, "relevant_windows": [[0, 2]]},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    words = write_words(tmp_path)
    result = run(
        "extract", tmp_path / "rows.jsonl", "-o", tmp_path / "t", "--encoder", "glove", "--from", words
    )
    assert "2 sentences" in result.output and "lamp." in result.output
    np.testing.assert_array_equal(read_text(tmp_path / "t" / "qid8"), [[1, 0, 0], [0, 2, 0]])
    assert run("verify", tmp_path / "t").exit_code == 0
    run(
        "extract", tmp_path / "rows.jsonl", "-o", tmp_path / "v", "--encoder", "tiny", "--text-files", "{vid}"
    )
    assert sorted(path.name for path in (tmp_path / "v").glob("*.npz")) == ["v.npz", "w.npz"]


CONTRACT = StreamContract(encoder="e", layer="l", dim=3)


def test_verify_names_what_does_not_fit_the_contract(tmp_path):
    write_features(tmp_path / "good", np.float32([[1, 2, 3], [0, 0, 0]]), CONTRACT)
    assert verify_folder(tmp_path).faults == () and verify_folder(tmp_path).zero_rows == 1
    np.savez(tmp_path / "wide.npz", features=np.ones((2, 4), np.float32))
    np.savez(tmp_path / "half.npz", features=np.ones((2, 3), np.float16))
    np.savez(tmp_path / "nan.npz", features=np.full((2, 3), np.nan, np.float32))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:-30])
    report = verify_folder(tmp_path)
    assert report.files == 1 and len(report.faults) == 4
    said = " ".join(report.faults)
    for part in ("4 channels, the contract says 3", "float16", "row 0", "cut.npz is damaged"):
        assert part in said
    assert run("verify", tmp_path).exit_code == 2
    (tmp_path / "contract.json").unlink()
    assert "no contract.json" in verify_folder(tmp_path).faults[0]
    with pytest.raises(FeatureError, match="no feature file"):
        verify_folder(films_of(tmp_path))


def films_of(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def test_cosine_is_by_row_and_a_row_of_zeros_agrees_only_with_another():
    a = np.float32([[1, 0], [1, 1], [0, 0], [0, 0], [2, 0]])
    b = np.float32([[5, 0], [1, 0], [0, 0], [1, 0], [-1, 0]])
    np.testing.assert_allclose(cosine_of(a, b), [1, 0.5**0.5, 1, 0, -1], atol=1e-12)


def test_folders_are_compared_file_by_file_and_the_worst_clip_is_named(tmp_path):
    rows = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    other = rows * 2
    other[4] = -rows[4]
    for side, values in (("a", rows), ("b", other)):
        write_features(tmp_path / side / "film", values, CONTRACT)
        write_features(tmp_path / side / f"only_{side}", rows, CONTRACT)
    write_features(tmp_path / "a" / "long", rows, CONTRACT)
    write_features(tmp_path / "b" / "long", rows[:5], CONTRACT)
    result = compare_features(tmp_path / "a", tmp_path / "b")
    assert result.names == ("film", "long") and result.lost == {"long": (6, 5)}
    assert (result.only_a, result.only_b) == (("only_a",), ("only_b",))
    worst = result.worst(1)[0]
    assert worst[1:] == ("film", 4) and worst[0] == pytest.approx(-1)
    printed = run("compare", tmp_path / "a", tmp_path / "b").output
    assert "2 films, 11 clips" in printed and "-1.000000  film, clip 4" in printed
    assert "long has 6 rows in A and 5 in B" in printed
    with pytest.raises(FeatureError, match="least cosine is -1"):
        run("compare", tmp_path / "a", tmp_path / "b", "--at-least", "0.99")
    single = run("compare", tmp_path / "a" / "film.npz", tmp_path / "b" / "film.npz", "--worst", "0")
    assert "1 films, 6 clips" in single.output


def test_features_of_different_widths_are_not_compared(tmp_path):
    write_features(tmp_path / "a" / "film", np.ones((2, 3), np.float32), CONTRACT)
    wide = CONTRACT.model_copy(update={"dim": 4})
    write_features(tmp_path / "b" / "film", np.ones((2, 4), np.float32), wide)
    with pytest.raises(FeatureError, match="two encoders"):
        compare_features(tmp_path / "a", tmp_path / "b")
    with pytest.raises(FeatureError, match="two files or two folders"):
        compare_features(tmp_path / "a", tmp_path / "b" / "film.npz")


def test_a_hub_checkpoint_is_pinned_by_its_commit_and_known_by_its_checksum(tmp_path):
    """A cache in the hub's own format stands for the hub; a copy of its files is known as the same."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub" / "models--google--siglip2-tiny"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    snapshot = cache / "snapshots" / commit
    snapshot.mkdir(parents=True)
    write_siglip(snapshot)
    code = (
        "from momentkit.features.encoders import *\n"
        "hub = load_encoders('google/siglip2-tiny', EncoderOptions())\n"
        f"pinned = load_encoders('google/siglip2-tiny', EncoderOptions(revision={commit!r}))\n"
        f"copy = load_encoders({str(snapshot)!r}, EncoderOptions())\n"
        "for one in (hub, pinned, copy): print(one.frames.contract.revision)\n"
        "contract = contract_of((hub.frames,), hub.text)\n"
        f"made = create_encoders(contract, sources=[__import__('pathlib').Path({str(snapshot)!r})])\n"
        "print(contract_of(*made) == contract, contract_of(*create_encoders(contract)) == contract)\n"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    hub, pinned, copy, agreed = done.stdout.strip().split("\n")
    assert hub == pinned == f"{commit}+{copy}" and copy.startswith("sha256:")
    assert agreed == "True True"


def test_importing_through_the_command_says_what_was_read(tmp_path):
    write_cnn14(tmp_path)
    result = run("import", tmp_path / "cnn14.pth", "--encoder", "cnn14", "-o", tmp_path / "again.safetensors")
    assert "PANN CNN14, from cnn14.pth, sha256 " in result.output
    again = import_encoder(tmp_path / "cnn14.pth", "cnn14", tmp_path / "third.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "third.safetensors").read_bytes()
    assert again.options == {"width": 2, "embedding": 12}


def test_a_configuration_that_states_no_revision_takes_features_of_any():
    made = CONTRACT.model_copy(update={"revision": "sha256:1"})
    require_stream(CONTRACT, made, "folder")
    with pytest.raises(FeatureMismatchError, match="revision"):
        require_stream(made, CONTRACT, "folder")
