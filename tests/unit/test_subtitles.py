"""Pre-training on captions and starting a run from its weights."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from momentkit.cli.main import app
from momentkit.core.errors import DataError, FeatureMismatchError, MomentkitError, WeightsError
from momentkit.core.weights import read_weights
from momentkit.data.dataset import GroundingDataset
from momentkit.train.loop import create_accelerator
from momentkit.train.run import create_trainer, run_training
from momentkit.train.run_config import RunConfig, read_run_config

CLIPS = {"a_0.0_20.0": 10, "a_20.0_40.0": 8, "b_0.0_12.0": 6, "c_0.0_20.0": 10}
CONFIG = """
[model]
name = "moment_detr"
hidden = 8
heads = 2
feed_forward = 12
queries = 3
encoder_layers = 1
decoder_layers = 1

[data]
root = "{root}"
layout = "{layout}"
train = "{train}.jsonl"
val = "rated.jsonl"
train_text = "{train_text}"
clip_length_s = 2.0
max_windows = 5
text = {{ folder = "text", encoder = "toy/words", layer = "last", dim = 4 }}

[[data.video]]
folder = "clip"
encoder = "toy/frames"
layer = "last"
dim = 6

[train]
epochs = 2
batch_size = 2
learning_rate = 1e-3
threads = 1

[predict]
top = 3
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos, six captions with texts of their own, four rated rows."""
    root, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    for folder in ("clip", "text", "captions"):
        (root / folder).mkdir()
    for vid, clips in CLIPS.items():
        np.savez(root / "clip" / vid, features=rng.standard_normal((clips, 6)).astype("f4"))
    captions, rated = [], []
    for qid, vid in enumerate([*CLIPS, *list(CLIPS)[:2]]):
        caption = {"qid": qid, "query": f"and then {qid}", "vid": vid, "duration": 2 * CLIPS[vid]}
        # As published: clip ids without ratings.
        captions.append(caption | {"relevant_windows": [[2.5, 7]], "relevant_clip_ids": [1, 2]})
        np.savez(root / "captions" / f"qid{qid}", last_hidden_state=rng.standard_normal((5, 4)).astype("f4"))
    for qid, vid in enumerate(CLIPS):
        row = {"qid": qid, "query": f"a thing {qid}", "vid": vid, "duration": 2 * CLIPS[vid]}
        row |= {"relevant_windows": [[2, 6]], "relevant_clip_ids": [1, 2]}
        rated.append(row | {"saliency_scores": [[4, 3, 2], [1, 1, 1]]})
        np.savez(root / "text" / f"qid{qid}", last_hidden_state=rng.standard_normal((3, 4)).astype("f4"))
    for name, rows in (("captions", captions), ("rated", rated)):
        (root / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return root


def write_config(path: Path, root: Path, stage: str) -> Path:
    chosen = {"layout": "subtitles", "train": "captions", "train_text": "captions"}
    if stage == "fine":
        chosen = {"layout": "qvhighlights", "train": "rated", "train_text": ""}
    path.write_text(CONFIG.format(root=root, **chosen))
    return path


@pytest.fixture(scope="module")
def pretrained(root: Path) -> Path:
    """A finished pre-training."""
    config = write_config(root / "subtitles.toml", root, "subtitles")
    result = CliRunner().invoke(
        app, ["train", str(config), "-o", str(root / "pretrained")], catch_exceptions=False
    )
    assert result.exit_code == 0
    return root / "pretrained" / "last.safetensors"


def fine_tuning(root: Path, start: Path, *settings: str) -> RunConfig:
    config = write_config(root / "fine.toml", root, "fine")
    return read_run_config(config, [f"train.start_from={json.dumps(str(start))}", *settings])


def trainable(config: RunConfig, folder: Path) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Model and optimiser of a run before its first step."""
    trainer = create_trainer(config, folder, create_accelerator(config.train))
    return trainer.model, trainer.optimiser


def test_captions_give_labels_by_the_clip_length_and_have_a_text_folder_of_their_own(root: Path) -> None:
    config = read_run_config(write_config(root / "c.toml", root, "subtitles")).data
    train, val = GroundingDataset(config, "train"), GroundingDataset(config, "val")
    for epoch in range(20):
        sample = train.sample(0, epoch)
        np.testing.assert_array_equal(
            sample.saliency_T, [0, 1, 1, 0, 0, 0, 0, 0, 0, 0]
        )  # int(2.5/2)..int(7/2)-1
        assert sorted(sample.positive_clip_P) == [1, 2]
        assert len(set(sample.negative_clip_P)) == 2 and not set(sample.negative_clip_P) & {1, 2}
    assert len(train.sample(0).text_LE) == 5 and len(val.sample(0).text_LE) == 3
    assert val.sample(0).saliency_T.max() == 9  # rated rows keep their ratings
    assert train.sample(0).video_key == train.sample(1).video_key == "a"
    by_path = GroundingDataset(config, str(root / "captions.jsonl"))
    assert len(by_path.sample(0).text_LE) == 5


def test_a_caption_with_fewer_than_two_clips_outside_teaches_nothing_but_its_window(root: Path) -> None:
    row = {"qid": 0, "query": "all of it", "vid": "b_0.0_12.0", "duration": 12, "relevant_windows": [[0, 10]]}
    (root / "whole.jsonl").write_text(json.dumps(row))
    config = read_run_config(write_config(root / "c.toml", root, "subtitles")).data
    sample = GroundingDataset(replace(config, train="whole.jsonl"), "train").sample(0)
    assert sample.positive_clip_P.tolist() == sample.negative_clip_P.tolist()


def test_clip_ids_without_ratings_are_a_fault_anywhere_else(root: Path) -> None:
    config = read_run_config(write_config(root / "c.toml", root, "subtitles")).data
    with pytest.raises(DataError, match="saliency_scores goes with relevant_clip_ids"):
        GroundingDataset(replace(config, layout="qvhighlights"), "train")


def test_a_run_starts_with_the_pretrained_weights_and_a_new_optimiser(
    root: Path, pretrained: Path, tmp_path: Path
) -> None:
    card, stored = read_weights(pretrained)
    assert card.trained_on.endswith("captions.jsonl")
    config = fine_tuning(root, pretrained)
    model, optimiser = trainable(config, tmp_path / "run")
    drawn, _ = trainable(replace(config, train=replace(config.train, start_from="")), tmp_path / "other")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.cpu(), stored[name])
    assert not torch.equal(drawn.state_dict()["queries"].cpu(), stored["queries"])
    assert not optimiser.state
    run_training(config, tmp_path / "run")
    tuned, weights = read_weights(tmp_path / "run" / "last.safetensors")
    assert tuned.notes == "started from last.safetensors"
    assert not torch.equal(weights["queries"], stored["queries"])


def test_a_run_that_goes_on_needs_its_start_no_more(root: Path, pretrained: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    start.write_bytes(pretrained.read_bytes())
    config = fine_tuning(root, start)
    run_training(config, tmp_path / "run")
    start.unlink()
    longer = replace(config, train=replace(config.train, epochs=3))
    assert run_training(longer, tmp_path / "run", resume=True).epoch == 3


def test_slow_copies_start_equal_to_what_they_copy(root: Path, pretrained: Path, tmp_path: Path) -> None:
    config = fine_tuning(root, pretrained, "model.distill_align=true", "model.distill_memory=4")
    model, _ = trainable(config, tmp_path / "run")
    state = model.state_dict()
    copied = [name for name in state if name.startswith(("distill.video_in", "distill.text_in"))]
    assert copied and all(torch.equal(state[name], state[name.removeprefix("distill.")]) for name in copied)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (["model.hidden=16"], WeightsError, r"has shape .* the run's model .*same \[model\] options"),
        (["model.decoder_layers=2"], WeightsError, r"lacks the tensor decoder\.layers\.1"),
        (["model.pre_norm=true"], WeightsError, r"lacks the tensor encoder_norm"),
        (["model.name=qd_detr"], WeightsError, r"holds weights of 'moment_detr', the run trains 'qd_detr'"),
        (["data.tef=false"], FeatureMismatchError, r"start_from.*tef"),
        (['train.start_from="none.safetensors"'], WeightsError, r"cannot read none"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    root: Path,
    pretrained: Path,
    tmp_path: Path,
    settings: list[str],
    error: type[MomentkitError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        trainable(fine_tuning(root, pretrained, *settings), tmp_path / "run")


def test_weights_with_more_than_the_run_has_are_refused(root: Path, pretrained: Path, tmp_path: Path) -> None:
    config = write_config(root / "subtitles.toml", root, "subtitles")
    more = read_run_config(config, ["model.contrast=4", "train.epochs=1"])
    run_training(more, tmp_path / "more")
    with pytest.raises(WeightsError, match=r"does not have: contrast_query"):
        trainable(fine_tuning(root, tmp_path / "more" / "last.safetensors"), tmp_path / "run")
