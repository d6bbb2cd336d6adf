"""How the bundled weights are made: `python -m momentkit.train.bundle`, after the tiny encoders are trained.

Writes features of films, trains the head on them, calibrates "is it in this film at all", measures both on
unseen films through the pixel path, and writes one file of half precision with its card.
"""

import argparse
import sys
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from momentkit.core.weights import Presence, WeightsCard, read_weights, save_weights
from momentkit.data.annotations import read_annotations
from momentkit.data.dataset import GroundingDataset
from momentkit.data.synthetic.writing import SetOptions, film_of, synthesize
from momentkit.features.tiny import TinyFrameEncoder, TinyTextEncoder
from momentkit.predict.grounder import load
from momentkit.predict.weights import read_grounder_weights
from momentkit.train.baselines import fit_location_prior
from momentkit.train.evaluate import answer
from momentkit.train.films import WAYS, ask_films
from momentkit.train.presence import fit_presence
from momentkit.train.run import run_training
from momentkit.train.run_config import RunConfig, read_run_config

UNSEEN_SEED = 1  # films of the seed that nothing was trained, selected or calibrated on


def bundle(config: Path, work: Path, output: Path, *, films: int, test_films: int) -> WeightsCard:
    """The whole recipe; what is there already in `work` is used.

    Args:
        config: run configuration of the head.
        work: folder for features and the run.
        output: weights to write.
        films: training films.
        test_films: unseen films for the figures.
    """
    data, run_folder = work / "films", work / "head"
    if not (data / "data.toml").exists():
        options = SetOptions(films=(("train", films), ("val", max(50, films // 10))), features="direct")
        frames, text = TinyFrameEncoder.bundled(), TinyTextEncoder.bundled()
        synthesize(data, options, frame_encoder=frames, text_encoder=text)
    run = read_run_config(config, root=str(data))
    if not (run_folder / "best.safetensors").exists():
        run_training(run, run_folder, resume=run_folder.exists())
    card, tensors = read_weights(run_folder / "best.safetensors")
    presence = _presence(run_folder, data, run)
    card = card.model_copy(
        update={
            "presence": presence,
            "trained_on": f"momentkit synthetic world, {films} films, features path",
            "licence": "Apache-2.0",
        }
    )
    half = {name: value.half() for name, value in tensors.items()}
    save_weights(output, half, card)
    asked = ask_films(
        load(output),
        [film_of("val", number, UNSEEN_SEED) for number in range(test_films)],
        fit_location_prior(read_annotations(data / "annotations" / "train.jsonl")),
        work,
        lambda done: print(f"{done} films asked", file=sys.stderr) if done % 10 == 0 else None,
    )
    figures = asked.figures()
    for way in WAYS:
        print(f"{way:<32}", "  ".join(f"{name} {value:.1f}" for name, value in figures[way].items()))
    card = card.model_copy(
        update={"metrics": figures["film"], "measured_on": f"{test_films} unseen films, mp4 to moments"}
    )
    save_weights(output, half, card)
    return card


def _presence(run_folder: Path, data: Path, run: RunConfig) -> Presence:
    """Calibrated on the validation films, whose negatives are near misses."""
    model = cast(nn.Module, read_grounder_weights(run_folder).build_model(torch.device("cpu")))
    best = []
    for split in ("val", str(data / "annotations" / "val_negatives.jsonl")):
        rows = answer(model, GroundingDataset(run.data, split), run.predict, batch_size=100)
        best.append(np.array([row["pred_relevant_windows"][0][2] for row in rows]))
    return fit_presence(best[0], best[1], "validation films of the synthetic world, near-miss sentences")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/flashvtg_synthetic_tiny.toml"))
    parser.add_argument("--work", type=Path, default=Path("runs/bundle"))
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("src/momentkit/assets/flashvtg.safetensors")
    )
    parser.add_argument("--films", type=int, default=4000)
    parser.add_argument("--test-films", type=int, default=100)
    options = parser.parse_args()
    bundle(options.config, options.work, options.output, films=options.films, test_films=options.test_films)


if __name__ == "__main__":
    main()
