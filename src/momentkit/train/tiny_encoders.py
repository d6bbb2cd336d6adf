"""The recipe of the bundled encoders: `python -m momentkit.train.tiny_encoders -o DIR --seed 0`.

Writes `tiny_text.safetensors`, `tiny_frames.safetensors` and `tiny_reading.npz` (what direct features are
dealt from). The same seed gives the same files on the same machine. About half an hour of one core.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from momentkit.features.tiny import TinyFrameEncoder
from momentkit.train.tiny_frames import held_out_films, save_frames, train_frames
from momentkit.train.tiny_reading import accuracies, measure, read_films, role_accuracies
from momentkit.train.tiny_text import train_text

ROUNDS, TEXT_STEPS, FILMS = 18, 3000, 60


def train(
    target: Path, seed: int, rounds: int = ROUNDS, text_steps: int = TEXT_STEPS, films: int = FILMS
) -> None:
    """Train both encoders, measure them on unseen films, and write all three files.

    Args:
        target: folder, made where missing.
        seed: of everything.
        rounds: of the frame encoder, 2,048 clips each.
        text_steps: of the text encoder, 128 sentences each.
        films: unseen films for the figures, and as many others for the spreads.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name, value in train_text(target, seed, text_steps).items():
        print(f"text   {name:24} {value:.4f}")
    train_frames(target, seed, rounds)
    measure_frames(target, seed, rounds, films)


def measure_frames(target: Path, seed: int, rounds: int, films: int) -> None:
    """Read unseen films with the written frame encoder; put the figures into its card."""
    # Read back what was written: half precision is what will be used.
    net = TinyFrameEncoder.read(target / "tiny_frames.safetensors").net
    seeds = list(held_out_films(seed, 2 * films))
    seen = read_films(net, seeds[:films])
    figures = accuracies(seen)
    for name, value in (
        figures | {f"role {role}": share for role, share in role_accuracies(seen).items()}
    ).items():
        print(f"frames {name:24} {value:.4f}", flush=True)
    measure(read_films(net, seeds[films:])).save(target / "tiny_reading.npz")
    save_frames(target, net, seed, rounds, figures)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the bundled encoders.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the three files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    np.seterr(all="raise", under="ignore")
    train(options.output, options.seed)


if __name__ == "__main__":
    main()
