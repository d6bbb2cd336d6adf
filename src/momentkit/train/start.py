"""A run that starts from given weights: fine-tuning after pre-training on other rows."""

from pathlib import Path

from torch import nn

from momentkit.core.contract import FeatureContract
from momentkit.core.errors import FeatureMismatchError, WeightsError
from momentkit.core.weights import read_weights


def start_from(model: nn.Module, name: str, features: FeatureContract, path: str | Path) -> None:
    """Put the weights of a file in the place of a model's first ones.

    Args:
        model: written to. What serves training alone (a submodule named `distill`) is in no file: its slow
            copies start equal to what they copy, the rest as it is.
        name: registry name of the model.
        features: what the run's data is.
        path: a weights file of ours.

    Raises:
        WeightsError: unreadable, of another model, or a tensor is missing, unknown or of another shape.
        FeatureMismatchError: it was trained on features of another kind.
    """
    card, tensors = read_weights(path)
    if card.model != name:
        raise WeightsError(
            f"train.start_from: {path} holds weights of {card.model!r}, the run trains {name!r}"
        )
    if card.features is not None:
        try:
            card.features.require(features)
        except FeatureMismatchError as error:
            raise FeatureMismatchError(f"train.start_from: {path}: {error}") from error
    wanted = model.state_dict()
    started = {key: tensors.get(key.removeprefix("distill."), value) for key, value in wanted.items()}
    needed = {key for key in wanted if not key.startswith("distill.")}
    for key in sorted(needed ^ tensors.keys()):
        fault = "lacks the tensor" if key in needed else "holds a tensor the run's model does not have:"
        raise WeightsError(f"train.start_from: {path} {fault} {key}; give the run the same [model] options")
    for key in sorted(needed):
        if tensors[key].shape != wanted[key].shape:
            raise WeightsError(
                f"train.start_from: {path}: {key} has shape {tuple(tensors[key].shape)}, the run's model "
                f"{tuple(wanted[key].shape)}; give the run the same [model] options"
            )
    model.load_state_dict(started)
