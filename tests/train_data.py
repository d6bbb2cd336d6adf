"""A small data set on disk with its run configuration: each query's words mark the clips of its window."""

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from momentkit.cli.main import app

CHANNELS = 8
CONFIG = """
[model]
name = "flashvtg"
hidden = 16
heads = 2
feed_forward = 16
input_layers = 1
dummies = 2
dummy_layers = 1
cross_layers = 1
encoder_layers = 1
strides = [1, 2]
kernel = 3
score_layers = 1

[data]
root = "{root}"
layout = "charades"
train = "train.jsonl"
val = "val.jsonl"
clip_length_s = 1.0
text = {{ folder = "text", encoder = "toy/words", layer = "last", dim = 8 }}

[[data.video]]
folder = "clip"
encoder = "toy/frames"
layer = "last"
dim = 8

[train]
epochs = 3
batch_size = 8
learning_rate = 1e-3
clip_norm = 1.0
checkpoint_steps = 2
threads = 1
select_by = ["MR-full-R1@0.5", "MR-full-R1@0.7"]
{more}

[predict]
step_s = 1.0
"""

# In place of CONFIG's [model].
DIFFUSION = """
[model]
name = "diffusion_vmr"
hidden = 16
heads = 2
feed_forward = 16
encoder_layers = 1
decoder_layers = 1
bins = 4
dynamic_width = 4
proposals = 3
steps = 2

"""


def write_data(root: Path, train: int = 28, val: int = 13) -> None:
    """Two queries a video; videos of 8 to 14 s."""
    generator = np.random.default_rng(0)
    for folder in ("clip", "text"):
        (root / folder).mkdir(parents=True)
    qid = 0
    for split, count in (("train", train), ("val", val)):
        rows = []
        for number in range(count):
            clips = 8 + (qid // 2) % 7
            if number % 2 == 0:
                video_TD = generator.standard_normal((clips, CHANNELS)).astype(np.float32)
            start = int(generator.integers(0, clips - 3))
            mark_D = generator.standard_normal(CHANNELS).astype(np.float32) * 3
            video_TD[start : start + 3] += mark_D
            vid = f"{split}{number // 2}"
            np.savez(root / "clip" / f"{vid}.npz", features=video_TD)
            np.savez(root / "text" / f"qid{qid}.npz", last_hidden_state=np.stack([mark_D] * 3))
            row = {"qid": qid, "query": f"mark {qid}", "vid": vid, "duration": clips}
            rows.append(row | {"relevant_windows": [[start, start + 3]]})
            qid += 1
            if number % 2 == 1:
                qid += qid % 2
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_config(path: Path, root: Path, more: str = "") -> Path:
    """A configuration of the smallest FlashVTG on that data."""
    path.write_text(CONFIG.format(root=root, more=more))
    return path


def train_two_seeds(folder: Path) -> list[Path]:
    """Finished runs of seeds 0 and 1 on the same data, all under `folder`."""
    write_data(folder / "data")
    config = write_config(folder / "c.toml", folder / "data")
    runs = [folder / f"run{seed}" for seed in (0, 1)]
    for seed, run in enumerate(runs):
        said = CliRunner().invoke(app, ["train", str(config), "-o", str(run), "--seed", str(seed)])
        assert said.exit_code == 0, said.output
    return runs
