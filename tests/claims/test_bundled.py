"""The bundled weights do what the README says, on films they never saw."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

import momentkit as mk
from momentkit.core.weights import read_weights
from momentkit.data.dataset import GroundingDataset
from momentkit.data.synthetic.writing import SetOptions, film_of, synthesize
from momentkit.features.tiny import TinyFrameEncoder, TinyTextEncoder
from momentkit.models.registry import list_models
from momentkit.predict.grounder import Grounder
from momentkit.predict.weights import read_grounder_weights
from momentkit.train.bundle import LEAST_AUROC
from momentkit.train.compare import compare
from momentkit.train.evaluate import evaluate
from momentkit.train.films import WAYS, ask_films
from momentkit.train.run_config import read_run_config

ASSETS = Path(mk.__file__).parent / "assets"
CONFIGS = Path(__file__).parents[2] / "configs"
OF_DRAWN_FILMS = ("flashvtg", "ld_detr", "momentdiff", "diffusion_vmr", "map_diffusion")
CHARADES_CLIP = Path(__file__).parents[3] / "shared" / "data" / "charades_clip"


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return mk.load("flashvtg")


def test_the_bundled_files_are_small_and_say_what_they_are() -> None:
    weights = sorted(ASSETS.glob("*.safetensors"))
    assert sum(path.stat().st_size for path in weights) < 12e6
    cards = {path.stem: read_weights(path)[0] for path in weights}
    heads = {name: card for name, card in cards.items() if card.model in list_models()}
    assert set(heads) == {*OF_DRAWN_FILMS, "flashvtg_charades"}
    assert heads["flashvtg"].presence is not None
    for name, card in heads.items():
        with safe_open(ASSETS / f"{name}.safetensors", "numpy") as file:
            kinds = {file.get_slice(key).get_dtype() for key in file.offset_keys()}
        assert kinds == {"F16"}, f"{name}: half precision is half the file"
        assert card.features is not None, name
        told = card.metrics.get("presence-AUROC", 100.0)  # of synthetic films alone
        assert (card.presence is not None) == (told >= LEAST_AUROC), name
        assert card.licence and card.trained_on and card.metrics and card.measured_on, name


@pytest.fixture(scope="module")
def unseen_films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unseen")
    frames, text = TinyFrameEncoder.bundled(), TinyTextEncoder.bundled()
    options = SetOptions(films=(("val", 40),), seed=7, negatives=0)
    synthesize(root, options, frame_encoder=frames, text_encoder=text)
    return root


@pytest.mark.parametrize("name", OF_DRAWN_FILMS)
def test_a_head_of_the_synthetic_world_finds_in_other_films_what_its_card_says(
    name: str, unseen_films: Path
) -> None:
    weights, config = read_grounder_weights(name), read_run_config(CONFIGS / f"{name}_synthetic_tiny.toml")
    data = replace(config.data, root=str(unseen_films))
    model = cast(nn.Module, weights.build_model(torch.device("cpu")))
    found = evaluate(model, GroundingDataset(data, "val"), data, weights.post).metrics
    for figure in ("MR-full-R1@0.5", "MR-full-R1@0.7", "MR-full-mAP"):
        assert found[figure] >= weights.card.metrics[figure] - 8, figure  # some 150 questions, drawn features


@pytest.mark.skipif(not CHARADES_CLIP.is_dir(), reason="../shared/data/charades_clip is not there")
def test_the_head_of_real_features_has_the_figures_of_its_card(tmp_path: Path) -> None:
    config = (CONFIGS / "flashvtg_charades_clip.toml").read_text()
    (tmp_path / "c.toml").write_text(config.replace("../shared/data/charades_clip", str(CHARADES_CLIP)))
    card, _ = read_weights(ASSETS / "flashvtg_charades.safetensors")
    found = compare("flashvtg_charades", tmp_path / "c.toml").figures["model"]
    for name, figure in card.metrics.items():
        assert abs(found[name] - figure) <= 0.4, name  # two queries of 539 may turn on another processor


def test_planted_events_are_found_through_pixels(grounder: Grounder, tmp_path: Path) -> None:
    films = [film_of("val", number, seed=7) for number in range(4)]
    prior = [[start / 10, start / 10 + 0.3] for start in range(7)] + [[0.0, 0.5], [0.5, 1.0], [0.0, 1.0]]
    asked = ask_films(grounder, films, np.array(prior), tmp_path)
    figures = asked.figures()
    assert len(asked.truth) >= 12
    for way in WAYS[:2]:
        assert figures[way]["MR-full-R1@0.5"] >= 60, way
    for way in WAYS[2:]:
        assert figures[way]["MR-full-R1@0.5"] <= 35, way
