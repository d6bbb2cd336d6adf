"""How a model that denoises is sampled: other numbers of steps and proposals, on the same weights."""

import copy
from dataclasses import replace

from momentkit.core.errors import ConfigError
from momentkit.core.types import GroundingModel, SamplingModel


def check_sampling(steps: int | None, proposals: int | None) -> None:
    """Refuse numbers below 1; None = as the weights say.

    Raises:
        ConfigError: names the value.
    """
    for name, value in (("steps", steps), ("proposals", proposals)):
        if value is not None and not value >= 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")


def resampled(
    model: GroundingModel, name: str, *, steps: int | None = None, proposals: int | None = None
) -> GroundingModel:
    """The same model, sampled otherwise; it shares its weights, and the one given is left as it was.

    Args:
        model: any.
        name: what messages call it.
        steps: of denoising; more take longer.
        proposals: spans that are denoised together.

    Raises:
        ConfigError: the model has no such option, or the number cannot be.
    """
    check_sampling(steps, proposals)
    wanted = {"steps": steps, "proposals": proposals}
    asked = {option: value for option, value in wanted.items() if value is not None}
    if not asked:
        return model
    fields = model.sampling if isinstance(model, SamplingModel) else {}
    for option in asked:
        if option not in fields:
            known = ", ".join(fields) or "none of its options"
            raise ConfigError(
                f"{name} takes no number of {option}: what may be changed after its training is {known}; "
                f"leave {option} out"
            )
    twin = copy.copy(model)  # shares parameters and buffers
    twin.config = replace(model.config, **{fields[option]: value for option, value in asked.items()})
    return twin
