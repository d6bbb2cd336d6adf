"""How a bundled head is made.

    python -m momentkit.train.bundle --model NAME                on the synthetic world
    python -m momentkit.train.bundle --run RUN_DIR -o FILE       of a run on real features

The first, after the tiny encoders: writes features of films once for all heads, trains the head on them,
calibrates "is it in this film at all", measures both on unseen films through the pixel path. The second takes
the last weights of a finished run, calibrates and measures on its validation set. Either writes one file of
half precision with its card.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import cast

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
from momentkit.train.compare import CONFIG_FILE, MODEL, compare
from momentkit.train.evaluate import answer
from momentkit.train.films import SHOWN, WAYS, ask_films
from momentkit.train.presence import evidence, fit_presence
from momentkit.train.run import read_folder_config, run_training, untrained_card
from momentkit.train.run_config import RunConfig, read_run_config
from momentkit.train.sweep import LAST_WEIGHTS

LEAST_AUROC = 60.0  # below it "not in this film" is a guess, and the weights do not give one
UNSEEN_SEED = 1  # films of the seed that nothing was trained, selected or calibrated on


def bundle(config: Path, work: Path, output: Path, *, films: int, test_films: int) -> WeightsCard:
    """The whole recipe; what is there already in `work` is used.

    Args:
        config: run configuration of the head.
        work: folder for features, which all heads share, and for runs, one folder a model.
        output: weights to write.
        films: training films.
        test_films: unseen films for the figures.
    """
    data = work / "films"
    if not (data / "data.toml").exists():
        options = SetOptions(films=(("train", films), ("val", max(50, films // 10))), features="direct")
        frames, text = TinyFrameEncoder.bundled(), TinyTextEncoder.bundled()
        synthesize(data, options, frame_encoder=frames, text_encoder=text)
    run = read_run_config(config, root=str(data))
    run_folder = work / run.model["name"]
    if not (run_folder / "best.safetensors").exists():
        run_training(run, run_folder, resume=run_folder.exists())
    half = {name: value.half() for name, value in read_weights(run_folder / "best.safetensors")[1].items()}
    trained_on = f"momentkit synthetic world, {films} films, features path"
    card = untrained_card(run)  # options of sampling and of windows may be newer than the run
    card = card.model_copy(update={"trained_on": trained_on, "licence": "Apache-2.0"})
    save_weights(output, half, card)
    card = card.model_copy(update={"presence": _presence(output, data, run)})
    save_weights(output, half, card)
    asked = ask_films(
        load(output),
        [film_of("val", number, UNSEEN_SEED) for number in range(test_films)],
        fit_location_prior(read_annotations(data / "annotations" / "train.jsonl")),
        run_folder,
        lambda done: print(f"{done} films asked", file=sys.stderr) if done % 10 == 0 else None,
    )
    figures = asked.figures()
    for way in WAYS:
        print(f"{way:<32}", "  ".join(f"{name} {value:.1f}" for name, value in figures[way].items()))
    card = card.model_copy(
        update={"metrics": figures["film"], "measured_on": f"{test_films} unseen films, mp4 to moments"}
    )
    if figures["film"]["presence-AUROC"] < LEAST_AUROC:
        card = card.model_copy(update={"presence": None})
    save_weights(output, half, card)
    return card


def bundle_run(run_folder: Path, output: Path, *, licence: str, notes: str) -> WeightsCard:
    """Weights of a finished run as a head: halved, calibrated and measured as halved, on its validation set.

    Args:
        run_folder: of `momentkit train`; its last weights, not those that its validation set chose.
        output: weights to write.
        licence, notes: for the card.
    """
    card, tensors = read_weights(run_folder / LAST_WEIGHTS)
    config = read_folder_config(run_folder)
    card = card.model_copy(update={"predict": asdict(config.predict), "licence": licence, "notes": notes})
    half = {name: value.half() for name, value in tensors.items()}
    save_weights(output, half, card)
    comparison = compare(output, run_folder / CONFIG_FILE)
    assert comparison.presence is not None
    data = Path(config.data.root).name
    card = card.model_copy(
        update={
            "presence": comparison.presence.presence,
            "metrics": {name: comparison.figures[MODEL][name] for name in SHOWN},
            "measured_on": f"{len(comparison.rows)} queries of {data}, {config.data.val}",
        }
    )
    save_weights(output, half, card)
    for who, figures in comparison.figures.items():
        print(f"{who:<32}", "  ".join(f"{name} {value:.1f}" for name, value in figures.items()))
    return card


def _presence(weights: Path, data: Path, run: RunConfig) -> Presence:
    """Calibrated on the validation films, whose negatives are near misses."""
    model = cast(nn.Module, read_grounder_weights(weights).build_model(torch.device("cpu")))
    asked = []  # what occurs, then what does not
    for split in ("val", str(data / "annotations" / "val_negatives.jsonl")):
        asked.append(evidence(answer(model, GroundingDataset(run.data, split), run.predict, batch_size=100)))
    return fit_presence(asked[0], asked[1], "validation films of the synthetic world, near-miss sentences")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="flashvtg", help="flashvtg, ld_detr, momentdiff, diffusion_vmr, ..."
    )
    parser.add_argument("--config", type=Path, help="by default configs/MODEL_synthetic_tiny.toml")
    parser.add_argument("--work", type=Path, default=Path("runs/bundle"))
    parser.add_argument("-o", "--output", type=Path, help="by default src/momentkit/assets/MODEL.safetensors")
    parser.add_argument("--films", type=int, default=4000)
    parser.add_argument("--test-films", type=int, default=100)
    parser.add_argument("--run", type=Path, help="a finished run; with --output, --licence and --notes")
    parser.add_argument("--licence", default="", help="of what the run was trained on")
    parser.add_argument("--notes", default="", help="what a user must know of these weights")
    options = parser.parse_args()
    if options.run:
        if not options.output:
            parser.error("--run needs --output: the file's name is the head's")
        bundle_run(options.run, options.output, licence=options.licence, notes=options.notes)
        return
    config = options.config or Path(f"configs/{options.model}_synthetic_tiny.toml")
    output = options.output or Path(f"src/momentkit/assets/{options.model}.safetensors")
    bundle(config, options.work, output, films=options.films, test_films=options.test_films)


if __name__ == "__main__":
    main()
