"""Cost of the models: a training step, inference in a batch, one query alone.

Random input, one thread, CPU seconds, the smallest of a few repeats, taken in turns so that a busy machine
hurts all alike. Read the ratios.

    python benchmarks/models.py             at the published sizes, QVHighlights-like: 75 clips of 2,818
                                            channels, 32 words of 512. Not the two map models: their step of
                                            32 samples is 52 TFLOP, eleven minutes of such a thread
    python benchmarks/models.py --recipes   all twelve at the sizes of configs/*_charades_clip.toml: 32 clips
                                            of 514 channels, 10 words of 384

    [--output FILE.json] [--repeats 3] [--models qd_detr ld_detr]
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from momentkit.core.types import Batch, Targets
from momentkit.models.registry import create_model, is_trainable, list_models
from momentkit.train.run_config import read_run_config

SAMPLES = 32
CONFIGS = Path(__file__).parents[1] / "configs"
TOO_LARGE = ("ms_2d_tan", "map_diffusion")  # at their published sizes
REFERENCE = "moment_detr"
LARGE, SMALL = 65_536, SAMPLES  # entries of Distill Align's memory: the published one, and one batch


@dataclass(frozen=True)
class Sizes:
    """Of the input."""

    clips: int
    words: int
    video_dim: int
    text_dim: int


PUBLISHED, RECIPES = Sizes(75, 32, 2818, 512), Sizes(32, 10, 514, 384)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--recipes", action="store_true", help="at the sizes of our charades_clip recipes")
    parser.add_argument("--models", nargs="*", default=list(filter(is_trainable, list_models())))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = RECIPES if options.recipes else PUBLISHED
    names = [name for name in options.models if options.recipes or name not in TOO_LARGE]
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}",
        "input": f"{SAMPLES} samples, {sizes.clips} clips, {sizes.words} words",
        "cpu_s": measure(names, options.repeats, sizes),
        "memory_cpu_s": {} if options.recipes else measure_memory(options.repeats),
    }
    output = options.output or Path(__file__).with_name(
        "models_recipes.json" if options.recipes else "models.json"
    )
    output.write_text(json.dumps(report, indent=1) + "\n")
    _show(report)


def random_batch(samples: int, sizes: Sizes) -> Batch:
    """Samples of full length with one moment each."""
    generator = torch.Generator().manual_seed(0)
    clip_T = torch.arange(sizes.clips)
    inside_T = (clip_T >= sizes.clips // 8) & (clip_T < sizes.clips * 3 // 8)
    return Batch(
        video_BTD=torch.randn(samples, sizes.clips, sizes.video_dim, generator=generator),
        video_mask_BT=torch.ones(samples, sizes.clips, dtype=torch.bool),
        text_BLE=torch.randn(samples, sizes.words, sizes.text_dim, generator=generator),
        text_mask_BL=torch.ones(samples, sizes.words, dtype=torch.bool),
        targets=Targets(
            windows_clip=tuple(
                torch.tensor([[sizes.clips // 8, sizes.clips * 3 // 8]]).float() for _ in range(samples)
            ),
            saliency_BT=inside_T.float().repeat(samples, 1) * 6,
            positive_clip_BP=torch.full((samples, 2), sizes.clips // 4),
            negative_clip_BP=torch.full((samples, 2), sizes.clips * 2 // 3),
        ),
    )


def measure(names: list[str], repeats: int, sizes: Sizes) -> dict[str, dict[str, float]]:
    """Smallest CPU seconds of each kind of work, by model."""
    many, one = random_batch(SAMPLES, sizes), random_batch(1, sizes)
    jobs: dict[tuple[str, str], Callable[[], Any]] = {}
    parameters: dict[str, int] = {}
    for name in names:
        torch.manual_seed(0)
        options = {}
        if sizes == RECIPES:
            options = dict(read_run_config(CONFIGS / f"{name}_charades_clip.toml").model)
            del options["name"]
        model = create_model(name, video_dim=sizes.video_dim, text_dim=sizes.text_dim, **options)
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
    batch, jobs = random_batch(SAMPLES, PUBLISHED), {}
    for name in ("ld_detr", "qd_detr"):
        for size in (LARGE, SMALL):
            torch.manual_seed(0)
            model = create_model(
                name,
                video_dim=PUBLISHED.video_dim,
                text_dim=PUBLISHED.text_dim,
                distill_align=True,
                distill_memory=size,
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
