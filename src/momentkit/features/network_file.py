"""Weights of an encoder whose network is ours (SlowFast, Cnn14): safetensors with a card, made once from the
published file by `momentkit features import`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from momentkit.core.errors import WeightsError
from momentkit.core.weights import checksum, read_weights


def read_network(path: str | Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Options, tensors and revision of an encoder's weights.

    Args:
        path: a .safetensors file.
        name: the encoder's; weights of anything else are refused.

    Raises:
        WeightsError: missing, damaged, or the weights of something else.
    """
    if Path(path).suffix != ".safetensors":
        raise WeightsError(
            f"{path} is no .safetensors file; `momentkit features import {path} --encoder NAME -o FILE` "
            "makes one from the published weights"
        )
    card, tensors = read_weights(path)
    if card.model != name:
        raise WeightsError(f"{path} holds weights of {card.model}, not of {name}")
    return card.options, tensors, f"sha256:{checksum('', tensors)[:16]}"


def fill(network: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Put tensors into a network, all of it.

    Raises:
        WeightsError: one is missing, superfluous or misshapen; names the first few.
    """
    wanted = network.state_dict()
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - tensors.keys())]
    faults += [f"{name} is not part of the network" for name in sorted(tensors.keys() - wanted.keys())]
    faults += [
        f"{name} has shape {tuple(tensors[name].shape)}, the network {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & tensors.keys())
        if wanted[name].shape != tensors[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise WeightsError(f"{where} does not fit {type(network).__name__}: {'; '.join(faults[:4])}{more}")
    network.load_state_dict(dict(tensors))
