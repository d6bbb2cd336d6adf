"""Sets on disk: two runs agree, and the readers of published data read them."""

import json
import tomllib
from pathlib import Path

import pytest

from momentkit.core.config import build
from momentkit.core.errors import ConfigError
from momentkit.data.annotations import read_annotations
from momentkit.data.dataset import DataConfig, GroundingDataset
from momentkit.data.synthetic.plan import FilmOptions
from momentkit.data.synthetic.writing import SetOptions, film_of, synthesize
from momentkit.features.tiny import TinyFrameEncoder, TinyTextEncoder

FRAMES, TEXT = TinyFrameEncoder.bundled(), TinyTextEncoder.bundled()
FEW = SetOptions(films=(("train", 4), ("val", 2)), film=FilmOptions(shortest_s=20, longest_s=30))


def test_the_same_options_write_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / "set" / name for name in "ab"]
    for folder in folders:
        synthesize(folder, FEW, frame_encoder=FRAMES, text_encoder=TEXT)
    files = sorted(path.relative_to(folders[0]) for path in folders[0].rglob("*") if path.is_file())
    assert len(files) > 20
    for file in files:
        if file.name != "data.toml":  # names its own folder
            assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file


def test_a_set_is_read_like_any_published_one(tmp_path: Path) -> None:
    report = synthesize(tmp_path, FEW, frame_encoder=FRAMES, text_encoder=TEXT)
    assert report.films == 6
    section = tomllib.loads((tmp_path / "data.toml").read_text())["data"]
    config = build(DataConfig, section, "data.toml [data]")
    data = GroundingDataset(config, "train", seed=0)
    assert len(data) == len(read_annotations(tmp_path / "annotations" / "train.jsonl"))
    sample = data.sample(0, 0)
    assert len(sample.video_TD) == sample.query.duration_s and sample.video_TD.shape[1] == 367 + 2
    assert sample.text_LE.shape[1] == TEXT.contract.dim
    assert max(sample.saliency_T) > 0


def test_each_film_counts_as_another_video(tmp_path: Path) -> None:
    """QVHighlights readers cut ids at underscores; films that then look alike would lose their negatives."""
    synthesize(tmp_path, FEW, frame_encoder=FRAMES, text_encoder=TEXT)
    section = tomllib.loads((tmp_path / "data.toml").read_text())["data"]
    data = GroundingDataset(build(DataConfig, section, "data.toml [data]"), "train", seed=0)
    assert len({data.sample(i, 0).video_key for i in range(len(data))}) == 4


def test_negatives_have_a_file_of_their_own_and_no_window(tmp_path: Path) -> None:
    synthesize(tmp_path, SetOptions(films=(("val", 5),), features="none", negatives=2))
    lines = (tmp_path / "annotations" / "val_negatives.jsonl").read_text().splitlines()
    assert len(lines) == 10 and all(json.loads(line)["relevant_windows"] == [] for line in lines)
    qids = [
        json.loads(line)["qid"]
        for path in (tmp_path / "annotations").iterdir()
        for line in path.read_text().splitlines()
    ]
    assert len(qids) == len(set(qids))


def test_drawn_and_encoded_sets_have_features_of_one_contract(tmp_path: Path) -> None:
    options = SetOptions(
        films=(("val", 1),), features="encoded", film=FilmOptions(shortest_s=12, longest_s=12)
    )
    synthesize(tmp_path / "encoded", options, frame_encoder=FRAMES, text_encoder=TEXT)
    synthesize(tmp_path / "direct", FEW, frame_encoder=FRAMES, text_encoder=TEXT)
    contracts = [
        (tmp_path / kind / "features/video/contract.json").read_bytes() for kind in ("encoded", "direct")
    ]
    assert contracts[0] == contracts[1]


def test_splits_and_seeds_share_no_film() -> None:
    films = [
        film_of(split, number, seed) for split in ("train", "val") for number in range(3) for seed in range(3)
    ]
    assert len({film.seed for film in films}) == len({film.vid for film in films}) == 18


def test_features_without_an_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="encoder"):
        synthesize(tmp_path, FEW)
    with pytest.raises(ConfigError, match="split"):
        SetOptions(films=(("test", 1),))
