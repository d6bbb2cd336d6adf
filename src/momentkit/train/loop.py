"""The training loop: batch, loss, backward, clip, step; evaluate; keep the best and the last.

Order of samples, dropout and noise are pure functions of (seed, epoch, step), so a run that was killed goes
on from its last checkpoint to the same bits, and evaluating in between changes nothing.

Several processes (torchrun) share each batch: process r takes samples r, r + world, ... of the same batch,
and gradients are added up weighted by the share of samples. A loss that is a mean over samples is then what
one process would get; a loss whose normaliser runs over the whole batch (clips, positive points, in-batch
negatives) is normalised within each share, so its gradient differs a little from one process's.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from momentkit.core.errors import ConfigError, DataError
from momentkit.core.types import GroundingModel
from momentkit.core.weights import WeightsCard, save_weights
from momentkit.data.collate import collate
from momentkit.train.checkpoint import Progress, load_state, pack, save_state, unpack
from momentkit.train.guards import check_gradient, check_losses
from momentkit.train.log import RunLog, evaluation_line
from momentkit.train.optim import WeightAverage, create_optimiser, learning_rate, tensors_for_use
from momentkit.train.options import TrainConfig
from momentkit.train.order import epoch_batches
from momentkit.train.randomness import seeded
from momentkit.train.source import SampleSource

Evaluate = Callable[[nn.Module], Mapping[str, float]]
"""A model in evaluation mode -> figures by name, the same in every process."""


def create_accelerator(options: TrainConfig) -> Accelerator:
    """The device, the precision and the group of processes of a run."""
    if options.threads:
        torch.set_num_threads(options.threads)
    precision = options.precision
    if precision == "auto":
        precision = "bf16" if torch.cuda.is_available() else "no"
    return Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())


@dataclass
class Trainer:
    """One run.

    Attributes:
        model: an `nn.Module` with `losses`; trained in place.
        source: training samples.
        evaluate: figures of a model.
        options: how to train.
        folder: where log, checkpoints and weights go.
        card: what the weights are; the figures are filled in.
        accelerator: of `create_accelerator`.
        lengths_N: clips of each training sample, for `bucket_batches`.
        videos_N: number of each training sample's video, for `distinct_videos`.
    """

    model: nn.Module
    source: SampleSource
    evaluate: Evaluate
    options: TrainConfig
    folder: Path
    card: WeightsCard
    accelerator: Accelerator
    lengths_N: NDArray[np.int64] | None = None
    videos_N: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if not len(self.source):
            raise DataError("the training set is empty")
        self.model = self.model.to(self.accelerator.device)
        self.optimiser = create_optimiser(self.model, self.options)
        self.average = WeightAverage(self.model, self.options.ema_decay) if self.options.ema_decay else None
        self.progress = Progress()
        self.steps_per_epoch = len(self._batches(0))
        if not self.steps_per_epoch:
            raise ConfigError(
                f"train.batch_size is {self.options.batch_size} and train.drop_last set, but there are only "
                f"{len(self.source)} samples: an epoch has no batch"
            )

    def fit(self, *, resume: bool = False) -> Progress:
        """Train to the end.

        Args:
            resume: go on from the folder's last checkpoint.

        Raises:
            TrainingError: a loss or gradient is not finite, or there is nothing whole to resume.
        """
        passed_over = self._restore() if resume else []
        log_path = self.folder / "log.jsonl" if self.accelerator.is_main_process else None
        with RunLog(log_path, self.options.epochs * self.steps_per_epoch, self.progress.step) as log:
            self._log_start(log)
            for sentence in passed_over:
                log.say(f"{sentence}; the checkpoint before it is used")
            if not resume:
                self._save_state()  # a kill before the first checkpoint is resumed as well
            while self.progress.epoch < self.options.epochs and not self.progress.stopped:
                self._train_epoch(log)
                last = self.progress.epoch == self.options.epochs
                if last or self.progress.epoch % self.options.evaluate_every == 0:
                    self._evaluate(log)
                if last or self.progress.stopped or self._checkpoint_due():
                    self._save_state()
        return self.progress

    def _log_start(self, log: RunLog) -> None:
        accelerator = self.accelerator
        log.row(
            "start",
            step=self.progress.step,
            processes=accelerator.num_processes,
            device=str(accelerator.device),
            precision=accelerator.mixed_precision,
            torch=torch.__version__,
        )

    def _batches(self, epoch: int) -> list[NDArray[np.int64]]:
        return epoch_batches(len(self.source), epoch, self.options, self.lengths_N, self.videos_N)

    def _train_epoch(self, log: RunLog) -> None:
        self.model.train()
        plan = self._batches(self.progress.epoch)
        for indices in plan[self.progress.step_in_epoch :]:
            started = time.monotonic()
            values = self._step(indices)
            done = self.progress.step_in_epoch + 1
            self.progress = replace(self.progress, step=self.progress.step + 1, step_in_epoch=done)
            seconds = round(time.monotonic() - started, 4)
            log.row("step", step=self.progress.step, epoch=self.progress.epoch + 1, **values, seconds=seconds)
            log.step(self.progress.step, values["loss"])
            if done < len(plan) and self._checkpoint_due():  # of an epoch's last step: after its evaluation
                self._save_state()
        self.progress = replace(self.progress, epoch=self.progress.epoch + 1, step_in_epoch=0)

    def _checkpoint_due(self) -> bool:
        every = self.options.checkpoint_steps
        return self.progress.step % every == 0 if every else self.progress.step_in_epoch == 0

    def _step(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        """One step on the samples of one batch; returns what is logged, of this process's share."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        step, epoch = self.progress.step, self.progress.epoch
        # Schedules go by epochs; with `distinct_videos` one may have a batch more or less than the first.
        planned = epoch * self.steps_per_epoch + min(self.progress.step_in_epoch, self.steps_per_epoch - 1)
        samples = [self.source.sample(int(index), epoch) for index in indices[rank::world]]
        qids = [sample.query.qid for sample in samples]
        values: dict[str, Any] = {"loss": math.nan, "losses": {}}
        if samples:  # the last batch may have fewer samples than there are processes
            batch = collate(samples).to(self.accelerator.device)
            with seeded(self.accelerator.device, self.options.seed, step, rank) as generator:
                with self.accelerator.autocast():
                    losses = cast(GroundingModel, self.model).losses(
                        batch,
                        generator=generator,
                        epoch=planned / self.steps_per_epoch,
                    )
                total = losses.total
            check_losses(losses, total, step, qids)
            self.accelerator.backward(total * (len(samples) / len(indices)))
            terms = {name: float(term.detach()) for name, term in losses.terms.items()}
            values = {"loss": float(total.detach()), "losses": terms}
        self._add_up_gradients()
        limit = self.options.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        check_gradient(self.model, norm, step, qids)
        rate = learning_rate(planned, self.steps_per_epoch, self.options)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.average is not None:
            self.average.update(self.model, step)
        return {**values, "learning_rate": rate, "gradient_norm": float(norm), "samples": len(indices)}

    def _add_up_gradients(self) -> None:
        """Sum over processes, in one message; a parameter without gradient here counts as zero."""
        if self.accelerator.num_processes == 1:
            return
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in learning if parameter.grad is not None])
        summed = self.accelerator.reduce(flat, reduction="sum")
        for parameter, part in zip(learning, summed.split([p.numel() for p in learning]), strict=True):
            parameter.grad = part.view_as(parameter)

    def _evaluate(self, log: RunLog) -> None:
        started = time.monotonic()
        model = self.model if self.average is None else self.average.model
        self._share_buffers(model)
        model.eval()
        with seeded(self.accelerator.device, self.options.seed):
            metrics = dict(self.evaluate(model))
        score = selection_score(metrics, self.options.select_by)
        self._count(score, metrics)
        best = self.progress.stale == 0
        if self.accelerator.is_main_process:
            card = self.card.model_copy(update={"metrics": metrics})
            for name in ("last", "best") if best else ("last",):
                save_weights(self.folder / f"{name}.safetensors", tensors_for_use(model), card)
        epoch, seconds = self.progress.epoch, round(time.monotonic() - started, 4)
        log.row(
            "evaluation", step=self.progress.step, epoch=epoch, score=score, metrics=metrics, seconds=seconds
        )
        log.say(evaluation_line(epoch, metrics, score, best))

    def _count(self, score: float, metrics: Mapping[str, float]) -> None:
        known = self.progress.best_score
        if known is None or score > known:
            epoch = self.progress.epoch
            self.progress = replace(
                self.progress, score=score, best_score=score, best_epoch=epoch, best_metrics=metrics, stale=0
            )
        else:
            stale = self.progress.stale + 1
            stopped = 0 < self.options.patience <= stale
            self.progress = replace(self.progress, score=score, stale=stale, stopped=stopped)

    def _share_buffers(self, model: nn.Module) -> None:
        """Buffers that training moves differ between processes; the first one's are evaluated and saved."""
        if self.accelerator.num_processes > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def _save_state(self) -> None:
        if self.accelerator.is_main_process:
            save_state(self.folder, pack(self.model, self.optimiser, self.average), self.progress)

    def _restore(self) -> list[str]:
        tensors, self.progress, passed_over = load_state(self.folder)
        unpack(tensors, self.model, self.optimiser, self.average)
        return passed_over


def selection_score(metrics: Mapping[str, float], names: tuple[str, ...]) -> float:
    """Mean of the named figures.

    Raises:
        ConfigError: a figure that the evaluation does not have; the ones it has are listed.
    """
    if missing := [name for name in names if name not in metrics]:
        known = ", ".join(metrics)
        raise ConfigError(f"train.select_by: the evaluation has no figure {missing[0]!r}; it has {known}")
    return sum(metrics[name] for name in names) / len(names)
