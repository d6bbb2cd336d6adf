"""One configuration in, one run directory out.

A run directory holds config.toml (all options, defaults included), log.jsonl, best.safetensors and
last.safetensors (weights that say what they are), and the two newest state-<step>.safetensors for resuming.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import nn

from momentkit.core.config import read_toml
from momentkit.core.errors import ConfigError, TrainingError
from momentkit.core.files import atomic_write
from momentkit.core.types import GroundingModel
from momentkit.core.weights import WeightsCard
from momentkit.data.dataset import GroundingDataset
from momentkit.models.registry import build_model, is_trainable
from momentkit.train.augment import RandomCrop, Stretch, WordDrop
from momentkit.train.checkpoint import Progress, has_state, locked, remove_leftovers
from momentkit.train.evaluate import evaluate
from momentkit.train.loop import Trainer, create_accelerator
from momentkit.train.randomness import seeded
from momentkit.train.run_config import RunConfig, differences, parse_run, to_toml
from momentkit.train.source import SampleSource
from momentkit.train.start import start_from

CONFIG_FILE = "config.toml"


def run_training(config: RunConfig, folder: Path, *, resume: bool = False) -> Progress:
    """Train as a configuration says.

    Args:
        config: the run.
        folder: the run directory; made if missing.
        resume: go on from its last checkpoint.

    Returns:
        How far it came, and its best figures.

    Raises:
        TrainingError: the folder holds a run and `resume` is not set, or a run that differs; another process
            trains there; a loss or gradient is not finite.
        ConfigError: an option of the model is wrong, or does not fit the data.
    """
    accelerator = create_accelerator(config.train)
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) if accelerator.is_main_process else nullcontext():
        if accelerator.is_main_process:
            _open_folder(config, folder, resume)
        accelerator.wait_for_everyone()
        progress = create_trainer(config, folder, accelerator).fit(resume=resume)
        accelerator.end_training()
        return progress


def create_trainer(config: RunConfig, folder: Path, accelerator: Accelerator) -> Trainer:
    """Data, model and loop of a run."""
    with seeded(accelerator.device, config.train.seed):
        model = create_run_model(config)
    if config.train.start_from and not has_state(folder):  # a run that goes on has weights of its own
        start_from(model, config.model["name"], config.data.contract, config.train.start_from)
    train_set = GroundingDataset(config.data, "train", config.train.seed)
    val_set = GroundingDataset(config.data, "val", config.train.seed)

    def figures(model: nn.Module) -> Mapping[str, float]:
        batch_size = config.train.evaluate_batch_size
        return evaluate(model, val_set, config.data, config.predict, batch_size=batch_size).metrics

    if config.data.audio is not None and (config.train.crop or config.train.stretch):
        raise ConfigError("train.crop and train.stretch know no audio; set both to 0 or drop [data.audio]")
    source: SampleSource = train_set
    if config.train.crop:
        source = RandomCrop(source, config.train.crop, config.train.seed, config.data.tef)
    if config.train.stretch:
        source = Stretch(source, config.train.stretch, config.train.seed, config.data.tef)
    if config.train.word_drop:
        source = WordDrop(source, config.train.word_drop, config.train.seed)
    card, order = create_card(config, model), (train_set.lengths_N, train_set.videos_N)
    return Trainer(model, source, figures, config.train, folder, card, accelerator, *order)


def create_run_model(config: RunConfig) -> nn.Module:
    """The model of a run, drawn from torch's generator; its input widths are those of the data.

    Raises:
        ConfigError: the model cannot be trained, an option is wrong, or a width is given that the data does
            not have.
    """
    if not is_trainable(config.model["name"]):
        raise ConfigError(
            f"[model] {config.model['name']} has nothing to train; use it as it is: "
            f"momentkit find VIDEO SENTENCE --model {config.model['name']}"
        )
    contract = config.data.contract
    widths = {"video_dim": contract.video_dim, "text_dim": contract.text.dim}
    if contract.audio_dim:
        widths["audio_dim"] = contract.audio_dim
    options = {name: value for name, value in config.model.items() if name != "name"}
    for name, width in widths.items():
        if options.get(name, width) != width:
            raise ConfigError(f"[model] {name} is {options[name]}, but the features of [data] have {width}")
    return build_model(config.model["name"], widths | options, "[model]")


def create_card(config: RunConfig, model: nn.Module) -> WeightsCard:
    """What the weights of a run are; figures come with each evaluation."""
    data, options = config.data, asdict(cast(GroundingModel, model).config)
    options = {name: False if name == "distill_align" else value for name, value in options.items()}
    name = Path(data.root).resolve().name
    return WeightsCard(
        model=config.model["name"],
        options=_plain(options),
        features=data.contract,
        predict=_plain(asdict(config.predict)),
        trained_on=f"{name}/{data.train}" + (f", {data.domain}" if data.domain else ""),
        measured_on=f"{name}/{data.val}" + (f", {data.domain}" if data.domain else ""),
        notes=f"started from {Path(config.train.start_from).name}" if config.train.start_from else "",
    )


def untrained_card(config: RunConfig) -> WeightsCard:
    """The card of a configuration whose weights come from elsewhere; building its model takes no memory."""
    with torch.device("meta"):
        return create_card(config, create_run_model(config))


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def read_folder_config(folder: Path) -> RunConfig:
    """The configuration a run directory was made with."""
    path = folder / CONFIG_FILE
    return parse_run(read_toml(path), str(path))


def _open_folder(config: RunConfig, folder: Path, resume: bool) -> None:
    remove_leftovers(folder)
    if not resume:
        if has_state(folder):
            raise TrainingError(
                f"{folder} holds a run; go on with --resume, or choose another folder with -o"
            )
        (folder / "log.jsonl").unlink(missing_ok=True)
    elif (folder / CONFIG_FILE).exists() and (changed := differences(read_folder_config(folder), config)):
        raise TrainingError(
            f"{folder} was begun with other options ({'; '.join(changed)}); resume it with the same ones, "
            "or choose another folder with -o"
        )
    atomic_write(folder / CONFIG_FILE, to_toml(config))
