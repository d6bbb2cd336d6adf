"""Cost of every model at its published size: a training step, inference in a batch, one query alone.

Random QVHighlights-like input (75 clips of 2,818 channels, 32 words of 512), one thread, CPU seconds, the
smallest of a few repeats, taken in turns so that a busy machine hurts all alike. Read the ratios.

    python benchmarks/models.py [--output benchmarks/models.json] [--repeats 3] [--models qd_detr ld_detr]
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from momentkit.core.types import Batch, Targets
from momentkit.models.registry import create_model, is_trainable, list_models

CLIPS, WORDS, VIDEO_DIM, TEXT_DIM, SAMPLES = 75, 32, 2818, 512, 32
REFERENCE = "moment_detr"
LARGE, SMALL = 65_536, SAMPLES  # entries of Distill Align's memory: the published one, and one batch


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="*", default=list(filter(is_trainable, list_models())))
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}",
        "input": f"{SAMPLES} samples, {CLIPS} clips, {WORDS} words",
        "cpu_s": measure(options.models, options.repeats),
        "memory_cpu_s": measure_memory(options.repeats),
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    _show(report)


def random_batch(samples: int) -> Batch:
    """Samples of full length with one moment each."""
    generator = torch.Generator().manual_seed(0)
    return Batch(
        video_BTD=torch.randn(samples, CLIPS, VIDEO_DIM, generator=generator),
        video_mask_BT=torch.ones(samples, CLIPS, dtype=torch.bool),
        text_BLE=torch.randn(samples, WORDS, TEXT_DIM, generator=generator),
        text_mask_BL=torch.ones(samples, WORDS, dtype=torch.bool),
        targets=Targets(
            windows_clip=tuple(torch.tensor([[10.0, 30.0]]) for _ in range(samples)),
            saliency_BT=((torch.arange(CLIPS) >= 10) & (torch.arange(CLIPS) < 30)).float().repeat(samples, 1)
            * 6,
            positive_clip_BP=torch.full((samples, 2), 15),
            negative_clip_BP=torch.full((samples, 2), 50),
        ),
    )


def measure(names: list[str], repeats: int) -> dict[str, dict[str, float]]:
    """Smallest CPU seconds of each kind of work, by model."""
    many, one = random_batch(SAMPLES), random_batch(1)
    jobs: dict[tuple[str, str], Callable[[], Any]] = {}
    parameters: dict[str, int] = {}
    for name in names:
        torch.manual_seed(0)
        model = create_model(name, video_dim=VIDEO_DIM, text_dim=TEXT_DIM)
        parameters[name] = sum(p.numel() for p in model.parameters() if p.requires_grad)
        jobs[name, "training step"] = lambda model=model: _train(model, many)
        jobs[name, "inference of 32"] = lambda model=model: _infer(model, many)
        jobs[name, "one query"] = lambda model=model: _infer(model, one)
    best = _best(jobs, repeats)
    kinds = ("training step", "inference of 32", "one query")
    return {
        name: {"parameters": parameters[name], **{kind: best[name, kind] for kind in kinds}} for name in names
    }


def measure_memory(repeats: int) -> dict[str, dict[str, float]]:
    """A training step with Distill Align's published memory against one of a single batch."""
    batch, jobs = random_batch(SAMPLES), {}
    for name in ("ld_detr", "qd_detr"):
        for size in (LARGE, SMALL):
            torch.manual_seed(0)
            model = create_model(
                name, video_dim=VIDEO_DIM, text_dim=TEXT_DIM, distill_align=True, distill_memory=size
            )
            jobs[name, str(size)] = lambda model=model: _train(model, batch)
    best = _best(jobs, repeats)
    return {
        name: {size: best[name, size] for n, size in best if n == name} for name in ("ld_detr", "qd_detr")
    }


def _best(jobs: dict[tuple[str, str], Callable[[], Any]], repeats: int) -> dict[tuple[str, str], float]:
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(repeats + 1):  # the first round warms up, and never wins against a warm one
        for key, job in jobs.items():
            started = time.process_time()
            job()
            best[key] = min(best[key], time.process_time() - started)
    return best


def _train(model: torch.nn.Module, batch: Batch) -> None:
    model.train()
    model.losses(batch, generator=torch.Generator().manual_seed(0), epoch=1.0).total.backward()
    model.zero_grad(set_to_none=True)


def _infer(model: torch.nn.Module, batch: Batch) -> None:
    with torch.no_grad():
        model.eval()(batch, generator=torch.Generator().manual_seed(0))


def _show(report: dict[str, Any]) -> None:
    console, measured = Console(), report["cpu_s"]
    kinds = ("training step", "inference of 32", "one query")
    table = Table(*("model", "parameters", *kinds), title="CPU seconds, one thread (ratio to Moment-DETR)")
    for name, row in measured.items():
        base = measured.get(REFERENCE, row)
        cells = [f"{row[kind]:.3f} ({row[kind] / base[kind]:.1f})" for kind in kinds]
        table.add_row(name, f"{row['parameters'] / 1e6:.1f} M", *cells)
    console.print(table)
    for name, row in report["memory_cpu_s"].items():
        large, small = row[str(LARGE)], row[str(SMALL)]
        console.print(
            f"{name}, training step with a memory of {LARGE}: {large:.3f} s, of {SMALL}: {small:.3f} s, "
            f"{100 * (large / small - 1):.1f} % more"
        )


if __name__ == "__main__":
    main()
