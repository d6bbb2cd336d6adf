"""Parameter groups, the learning rate as a pure function of the step, an average of the weights."""

import copy
import math

import torch
from torch import Tensor, nn

from momentkit.train.options import TrainConfig


def create_optimiser(model: nn.Module, options: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that learn; one group, or two where vectors and scalars do not decay."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decays = [p for p in learning if options.decay == "all" or p.ndim > 1]
    rests = [p for p in learning if not (options.decay == "all" or p.ndim > 1)]
    groups = [
        {"params": decays, "weight_decay": options.weight_decay},
        {"params": rests, "weight_decay": 0.0},
    ]
    # fused: one pass over the weights instead of a dozen; the same arithmetic on CPU and GPU.
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], options.learning_rate, fused=True
    )


def learning_rate(step: int, steps_per_epoch: int, options: TrainConfig) -> float:
    """The rate of a step, a pure function: resuming needs no state of it.

    Args:
        step: 0-based, over the whole run.
        steps_per_epoch: steps an epoch has.
        options: the schedule.
    """
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / (options.warmup_steps + 1)
    if options.schedule == "step":
        epoch = step // steps_per_epoch
        if options.step_milestones:
            drops = sum(epoch >= milestone for milestone in options.step_milestones)
        else:
            drops = epoch // options.step_epochs
        return options.learning_rate * options.step_factor**drops
    if options.schedule == "cosine":
        steps = options.epochs * steps_per_epoch - options.warmup_steps
        done = min((step - options.warmup_steps) / max(steps, 1), 1.0)
        share = options.final_factor + (1 - options.final_factor) * (1 + math.cos(math.pi * done)) / 2
        return options.learning_rate * share
    return options.learning_rate


class WeightAverage:
    """Exponential moving average of a model's weights; buffers are copied.

    Args:
        model: what is averaged; the average starts as its copy.
        decay: share of the old average kept each step; smaller at first, (1 + n) / (10 + n) at step n, so
            that the average forgets the random start.

    Attributes:
        model: the averaged model.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        # What serves training alone is left out: its memory is large.
        left_out = {id(module): None for name, module in model.named_children() if name == "distill"}
        self.model = copy.deepcopy(model, left_out).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model after step `step` (0-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = dict(model.named_parameters())
        averages: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(
            averages, [weights[name] for name, _ in self.model.named_parameters()], 1 - decay
        )
        buffers = dict(model.named_buffers())
        for name, average in self.model.named_buffers():
            average.copy_(buffers[name])


def tensors_for_use(model: nn.Module) -> dict[str, Tensor]:
    """All tensors but those that serve training alone (a submodule named `distill`)."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith("distill.")}
