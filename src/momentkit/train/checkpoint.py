"""Everything a run needs to go on after it was killed: weights, optimiser, average and progress, in one file.

One file, so that one rename decides; safetensors with a JSON header, so that nothing is unpickled; a SHA-256
of both, since safetensors notices no flipped bit. The newest two are kept: if the last is damaged, the one
before serves. No random state is in it: order, dropout and noise are pure functions of (seed, epoch, step).
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from torch import Tensor, nn

from momentkit.core.errors import MomentkitError, TrainingError, WeightsError
from momentkit.core.files import atomic_write, read_bytes
from momentkit.core.weights import MAX_WEIGHTS_BYTES, checksum, serialise
from momentkit.train.optim import WeightAverage

KEPT = 2


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is."""

    step: int = 0  # steps taken
    epoch: int = 0  # epochs finished
    step_in_epoch: int = 0  # steps taken in the epoch that is not finished
    score: float | None = None  # of the last evaluation
    best_score: float | None = None
    best_epoch: int = 0  # 1-based, as a person counts
    best_metrics: Mapping[str, float] = field(default_factory=dict)
    stale: int = 0  # evaluations since the best
    stopped: bool = False  # early


def pack(
    model: nn.Module, optimiser: torch.optim.Optimizer, average: WeightAverage | None
) -> dict[str, Tensor]:
    """All tensors of a run, by name."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, tensor in optimiser.state[parameter].items():
            tensors[f"optimiser.{key}.{name}"] = tensor
    return tensors


def unpack(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: WeightAverage | None,
) -> None:
    """The inverse of `pack`.

    Raises:
        TrainingError: the tensors belong to another model.
    """
    try:
        model.load_state_dict(_with_prefix(tensors, "model."))
        if average is not None:
            average.model.load_state_dict(_with_prefix(tensors, "average."))
    except RuntimeError as error:
        raise TrainingError(f"the checkpoint belongs to another model: {error}") from error
    for name, parameter in model.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if (tensor := tensors.get(f"optimiser.{key}.{name}")) is not None:
                optimiser.state[parameter][key] = tensor.to(parameter.device)


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def save_state(folder: Path, tensors: Mapping[str, Tensor], progress: Progress) -> Path:
    """Write `state-<step>.safetensors`, then remove all but the newest two."""
    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    text = json.dumps(asdict(progress), sort_keys=True)
    metadata = {"progress": text, "sha256": checksum(text, ordered)}
    path = atomic_write(folder / f"state-{progress.step:09d}.safetensors", serialise(ordered, metadata))
    for old in _states(folder)[KEPT:]:
        old.unlink()
    return path


def load_state(folder: Path) -> tuple[dict[str, Tensor], Progress, list[str]]:
    """The newest state that is whole.

    Returns:
        Tensors, progress, and a sentence for each damaged state passed over.

    Raises:
        TrainingError: there is none.
    """
    passed_over: list[str] = []
    for path in _states(folder):
        try:
            return *_read_state(path), passed_over
        except MomentkitError as error:
            passed_over.append(str(error))
    seen = "; ".join(passed_over) or "it has no state-<step>.safetensors"
    raise TrainingError(f"{folder} cannot be resumed: {seen}; start again without --resume in another folder")


def has_state(folder: Path) -> bool:
    """Whether a run was begun in this folder."""
    return bool(_states(folder))


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of writes that a kill cut short."""
    for path in folder.glob(".*.tmp*"):
        path.unlink()


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*.safetensors"), reverse=True)


def _read_state(path: Path) -> tuple[dict[str, Tensor], Progress]:
    data = read_bytes(path, MAX_WEIGHTS_BYTES)
    try:
        tensors = parse_tensors(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        ordered = {name: tensors[name] for name in sorted(tensors)}
        if metadata["sha256"] != checksum(metadata["progress"], ordered):
            raise WeightsError(f"{path} is damaged: its checksum does not fit its content")
        return ordered, Progress(**json.loads(metadata["progress"]))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged or cut short: {error}") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder; the system lets go of it when the process ends, however it ends.

    Raises:
        TrainingError: another process trains here.
    """
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _hold(handle, folder)
        yield
    finally:
        os.close(handle)


def _hold(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(handle, 20).decode() or "unknown"
        raise TrainingError(
            f"process {owner} trains in {folder}; choose another folder or wait for it"
        ) from error
    os.truncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())
