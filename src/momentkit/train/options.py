"""The [train] section of a run's configuration."""

from dataclasses import dataclass
from typing import Literal

from momentkit.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained; checked when made, whatever it is made from."""

    epochs: int = 100
    batch_size: int = 32  # samples a step, over all processes together
    drop_last: bool = False  # leave out an epoch's incomplete last batch
    bucket_batches: int = 1  # deal out the samples of so many batches by length: less padding; 1 = off
    # No two queries of one video in a batch; those passed over are lost for the epoch (BM-DETR).
    distinct_videos: bool = False
    crop: float = 0.0  # share of the samples that are cut at random around their moments
    stretch: float = 0.0  # share of the samples that play up to 1.5 times faster or slower
    word_drop: float = 0.0  # chance of a word to be left out of its sentence
    seed: int = 0  # decides first weights, order, dropout and noise
    start_from: str = ""  # a .safetensors of ours whose weights the run starts with, nothing else; "": random

    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    decay: Literal["all", "matrices"] = (
        "all"  # what decays: everything (published), or weights of two axes and more
    )
    clip_norm: float = 0.1  # largest norm of the whole gradient; 0 = off
    schedule: Literal["constant", "cosine", "step"] = "constant"
    warmup_steps: int = 0  # linear from 0, before the schedule
    final_factor: float = 0.0  # "cosine": rate it falls towards, as a share of learning_rate
    step_epochs: int = 0  # "step": epochs between two drops
    step_milestones: tuple[int, ...] = ()  # or the epochs before which the drops come (UVCOM)
    step_factor: float = 0.1  # "step": factor of each drop
    ema_decay: float = 0.0  # average of weights: evaluated and saved in their place; 0 = off

    evaluate_every: int = 1  # epochs; the last one is always evaluated
    evaluate_batch_size: int = 100
    select_by: tuple[str, ...] = ("MR-full-mAP",)  # best = highest mean of these figures
    patience: int = 0  # stop after this many evaluations without a better one; 0 = never

    checkpoint_steps: int = 200  # a checkpoint each so many, and at the end; 0 = after each epoch
    precision: Literal["auto", "no", "bf16"] = "auto"  # "auto": bf16 on a GPU, none on a CPU
    threads: int = 0  # of torch; 0 = as it is

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "bucket_batches", "evaluate_every", "evaluate_batch_size"):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        counts = ("seed", "warmup_steps", "step_epochs", "patience", "checkpoint_steps", "threads")
        for name in ("weight_decay", "clip_norm", *counts):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"train.{name} must not be negative, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ConfigError(f"train.learning_rate must be positive, got {self.learning_rate}")
        for name in ("ema_decay", "final_factor", "word_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must lie in [0, 1), got {getattr(self, name)}")
        for name in ("crop", "stretch"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"train.{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 < self.step_factor <= 1:
            raise ConfigError(f"train.step_factor must lie in (0, 1], got {self.step_factor}")
        if (self.step_epochs > 0) + bool(self.step_milestones) != (self.schedule == "step"):
            raise ConfigError(
                'train.step_epochs and step_milestones belong to schedule "step": give it one of them, '
                "and any other schedule none"
            )
        if not all(epoch > 0 for epoch in self.step_milestones):
            raise ConfigError(f"train.step_milestones must be positive, got {self.step_milestones}")
        if self.distinct_videos and self.bucket_batches > 1:
            raise ConfigError("train.distinct_videos and bucket_batches exclude each other; leave out one")
        if not self.select_by:
            raise ConfigError("train.select_by names no figure; give at least one, such as MR-full-mAP")
