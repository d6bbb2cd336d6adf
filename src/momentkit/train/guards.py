"""What stops a run before it spoils its weights: a loss or a gradient that is not finite.

One AdamW step on a NaN turns every weight into NaN for good, so both are looked at before each step.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from momentkit.core.errors import TrainingError
from momentkit.core.types import Losses, QueryId

MAX_NAMED = 8
ADVICE = "no step was taken; look at these samples' features and windows, or lower the learning rate"


def check_losses(losses: Losses, total: Tensor, step: int, qids: Sequence[QueryId]) -> None:
    """Refuse a loss that is NaN or infinite.

    Raises:
        TrainingError: names the step, the terms with their values, and the samples.
    """
    if bool(torch.isfinite(total)):
        return
    values = {name: float(term.detach()) for name, term in losses.terms.items()}
    bad = {name: value for name, value in values.items() if not math.isfinite(value)} or {
        "total": float(total.detach())
    }
    named = ", ".join(f"{name} = {value}" for name, value in bad.items())
    raise TrainingError(f"step {step}: the loss is not finite ({named}) on samples {_some(qids)}; {ADVICE}")


def check_gradient(model: nn.Module, norm: Tensor, step: int, qids: Sequence[QueryId]) -> None:
    """Refuse a gradient that is NaN or infinite.

    Args:
        model: holds the gradients.
        norm: of the whole gradient.
        step: named in the message.
        qids: named in the message.

    Raises:
        TrainingError: names the step, the parameters and the samples.
    """
    if bool(torch.isfinite(norm)):
        return
    bad = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())
    ]
    where = _some(bad) or "its norm alone"
    raise TrainingError(
        f"step {step}: the gradient is not finite in {where} on samples {_some(qids)}; {ADVICE}"
    )


def _some(names: Sequence[object]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(str(name) for name in names[:MAX_NAMED]) + more
