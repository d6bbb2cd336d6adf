"""Authors' checkpoints -> our self-describing safetensors. The only place of the package that unpickles.

The restricted unpickler of torch (`weights_only=True`) is the only one used, and there is no second try.
Classes that the published files name beside tensors are replaced by an inert stand-in that runs nothing;
any other class is refused by name.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from momentkit.convert.architecture import WITHOUT_HEADS, read_options
from momentkit.convert.keys import TABLES, rename
from momentkit.core.contract import FeatureContract
from momentkit.core.errors import ConfigError, WeightsError
from momentkit.core.weights import MAX_WEIGHTS_BYTES, WeightsCard, save_weights
from momentkit.models.registry import build_model


class Inert:
    """Takes whatever a pickle gives to the class it stands for, and does nothing with it."""

    def __setstate__(self, state: Any) -> None:
        pass


# torch's unpickler fills nothing but plain dictionaries, so that is what stands for the dictionary classes.
STAND_INS: list[Any] = [
    (Inert, "argparse.Namespace"),
    (OrderedDict, "nncore.utils.config.Config"),
    (OrderedDict, "nncore.utils.config.CfgNode"),
]


def read_checkpoint(path: str | Path, key: str = "model") -> dict[str, Tensor]:
    """The state dictionary of an authors' checkpoint, under the published names.

    Args:
        path: the checkpoint.
        key: where it lies in the file's dictionary; it may also be the whole of it.

    Raises:
        WeightsError: unreadable, naming a class that is not allowed, or without tensors.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a device or a pipe would be read without end
            raise WeightsError(f"{path} is no file; give an authors' checkpoint")
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise WeightsError(
                f"{path} has {path.stat().st_size} bytes; at most {MAX_WEIGHTS_BYTES} are read"
            )
        with torch.serialization.safe_globals(STAND_INS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it asks for {named.group(1)}, which could run code" if named else "it is no plain checkpoint"
        raise WeightsError(f"{path} is refused: {what}; nothing was executed or written") from error
    except Exception as error:  # a damaged archive raises whatever its parser meets first
        raise WeightsError(f"{path} is not a checkpoint: {type(error).__name__}: {error}") from error
    state = content.get(key, content) if isinstance(content, dict) else content
    if not (isinstance(state, dict) and state and all(isinstance(value, Tensor) for value in state.values())):
        raise WeightsError(f"{path} holds no state dictionary under {key!r}, nor is it one")
    # Training on several GPUs writes a prefix in front of every name.
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def convert(
    path: str | Path,
    model: str,
    output: str | Path,
    *,
    features: FeatureContract | None = None,
    predict: Mapping[str, Any] | None = None,
    heads: int = 8,
) -> WeightsCard:
    """Read an authors' checkpoint, check it against our network, write our file.

    The architecture is read off the shapes; only the number of heads leaves no trace in them.

    Args:
        path: the checkpoint.
        model: registry name.
        output: a .safetensors path.
        features: contract of the features it was trained with; without it the weights cannot encode a video.
        predict: decoding options that belong to it.
        heads: attention heads.

    Raises:
        WeightsError: an unknown, missing or misshapen parameter; nothing is written.
    """
    if model not in TABLES:
        raise ConfigError(f"no key table for {model!r}; there are {', '.join(sorted(TABLES))}")
    if Path(output).suffix != ".safetensors":
        raise ConfigError(f"the output must end in .safetensors, got {output}")
    state = rename(read_checkpoint(path), model)
    options = read_options(state, model)
    if model not in WITHOUT_HEADS:
        options = {"heads": heads, **options}
    network = build_model(model, options)
    wanted = network.state_dict()
    problems = [f"{name} is missing" for name in sorted(wanted.keys() - state.keys())]
    problems += [f"{name} is not part of the network" for name in sorted(state.keys() - wanted.keys())]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, the network {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & state.keys())
        if state[name].shape != wanted[name].shape
    ]
    problems += [f"{name} is not finite" for name, value in state.items() if not torch.isfinite(value).all()]
    if problems:
        raise WeightsError(f"{path} does not fit {model}: {'; '.join(problems)}")
    if features is not None and features.video_dim != options["video_dim"]:
        raise WeightsError(
            f"{path} takes {options['video_dim']} video channels, "
            f"the declared features have {features.video_dim}"
        )
    card = WeightsCard(
        model=model,
        options=options,
        features=features,
        predict=dict(predict or {}),
        trained_on="as its authors state",
        licence="as its authors state",
        notes=f"converted from {Path(path).name}",
    )
    save_weights(output, state, card)
    return card
