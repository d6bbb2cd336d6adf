"""What denoising costs and what it buys: steps and proposals, on the same weights.

Cost: seconds a query of every model that denoises, at its published size. Random input as of Charades-STA
with CLIP features (64 clips of 514 channels, 16 words of 512; map_diffusion: its small preset, 16 clips), one
process, one thread, CPU seconds, the smallest of a few repeats, taken in turns so that a busy machine hurts
all alike. Read the ratios.

    python benchmarks/diffusion.py [--output FILE.json] [--repeats 3] [--queries 1] [--models momentdiff ...]

Figures: a trained run at 1 to 50 steps and 5 to 100 proposals, without training it again; mean and deviation
over seeds. Writes a table as JSON and, beside it, a plot as SVG.

    python benchmarks/diffusion.py --run RUN_DIR [--output FILE.json] [--repeats 5] [--data FILE.jsonl]
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from momentkit.core.types import Batch, SamplingModel
from momentkit.data.dataset import GroundingDataset
from momentkit.models.registry import create_model
from momentkit.predict.sampling import resampled
from momentkit.predict.weights import read_grounder_weights
from momentkit.train.compare import find_data
from momentkit.train.evaluate import evaluate_repeatedly

STEPS, PROPOSALS = (1, 2, 5, 10, 50), (5, 10, 20, 50, 100)
VIDEO_DIM, TEXT_DIM, WORDS = 514, 512, 16
MODELS: dict[str, tuple[int, dict[str, Any]]] = {  # clips, and options that differ from the defaults
    "momentdiff": (64, {}),
    "diffusion_vmr": (64, {}),
    "map_diffusion": (16, {"kernel": 9, "width": 256}),
}
SHOWN = ("MR-full-R1@0.3", "MR-full-R1@0.5", "MR-full-R1@0.7", "MR-full-mIoU", "MR-full-mAP")
INK, MUTED, RULE = "#1b2430", "#56606e", "#d9dee5"
COLOURS = ("#b45309", "#2563eb", "#0f7b55", "#7c3aed", "#b42318")
PANEL, LEFT, TOP, BOTTOM = 460, 52, 46, 270  # pixels of a plot
Curve = dict[str, dict[str, Any]]  # steps or proposals -> what was measured there


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--repeats", type=int, help="rounds of timing (3), or seeds of a run (5)")
    parser.add_argument("--steps", type=int, nargs="*", default=STEPS)
    parser.add_argument("--proposals", type=int, nargs="*", default=PROPOSALS)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--queries", type=int, default=1, help="queries a forward, when timing")
    parser.add_argument("--run", type=Path, help="run directory or weights file to evaluate")
    parser.add_argument("--data", type=Path, help="in place of the run's validation set")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    if options.run is None:
        output = options.output or Path(__file__).with_suffix(".json")
        report = cost(options.models, options.steps, options.proposals, options.queries, options.repeats or 3)
        _show_cost(report, console)
    else:
        folder = options.run if options.run.is_dir() else options.run.parent
        output = options.output or folder / "denoising.json"
        report = curves(options.run, options.data, options.steps, options.proposals, options.repeats or 5)
        _show_curves(report, console)
        output.with_suffix(".svg").write_text(plot(report))
    output.write_text(json.dumps(report, indent=1) + "\n")


def cost(
    names: Sequence[str], steps: Sequence[int], proposals: Sequence[int], queries: int, repeats: int
) -> dict[str, Any]:
    """Smallest CPU seconds a query, by model and by steps or proposals."""
    jobs: dict[tuple[str, str, int], Callable[[], Any]] = {}
    for name in names:
        clips, options = MODELS[name]
        torch.manual_seed(0)
        model = create_model(name, video_dim=VIDEO_DIM, text_dim=TEXT_DIM, **options).eval()
        batch = _batch(queries, clips)
        assert isinstance(model, SamplingModel)
        asked = [("steps", count) for count in steps]
        asked += [("proposals", count) for count in proposals if "proposals" in model.sampling]
        for what, count in asked:
            other = resampled(model, name, **{what: count})
            jobs[name, what, count] = lambda other=other, batch=batch: _infer(other, batch)
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(repeats + 1):  # the first round warms up, and never wins against a warm one
        for key, job in jobs.items():
            started = time.process_time()
            job()
            best[key] = min(best[key], (time.process_time() - started) / queries)
    measured: dict[str, dict[str, dict[str, float]]] = {
        name: {"steps": {}, "proposals": {}} for name in names
    }
    for (name, what, count), seconds in best.items():
        measured[name][what][str(count)] = seconds
    return {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}",
        "queries": queries,
        "clips": {name: MODELS[name][0] for name in names},
        "cpu_s_a_query": measured,
    }


def _batch(queries: int, clips: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        video_BTD=torch.randn(queries, clips, VIDEO_DIM, generator=generator),
        video_mask_BT=torch.ones(queries, clips, dtype=torch.bool),
        text_BLE=torch.randn(queries, WORDS, TEXT_DIM, generator=generator),
        text_mask_BL=torch.ones(queries, WORDS, dtype=torch.bool),
        noise_keys=tuple(range(queries)),
    )


def _infer(model: Any, batch: Batch) -> None:
    with torch.inference_mode():
        model(batch, generator=torch.Generator().manual_seed(0))


def curves(
    run: Path, data: Path | None, steps: Sequence[int], proposals: Sequence[int], repeats: int
) -> dict[str, Any]:
    """Figures of a trained run: steps with its own proposals, then proposals with its own steps."""
    weights = read_grounder_weights(run)
    model = weights.build_model(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    resampled(model, weights.name, steps=1)  # a model without steps is refused before the data is read
    assert isinstance(model, SamplingModel)
    config, split = find_data(run, data)
    weights.contract.require(config.contract)
    dataset = GroundingDataset(config, split)
    report: dict[str, Any] = {
        "model": weights.card.model,
        "queries": len(dataset),
        "repeats": repeats,
        "own": {name: getattr(model.config, field) for name, field in model.sampling.items()},
    }
    for what, counts in (("steps", steps), ("proposals", proposals)):
        curve: Curve = {}
        for count in counts if what in model.sampling else ():
            other: Any = resampled(model, weights.name, **{what: count})
            found = evaluate_repeatedly(other, dataset, config, weights.post, repeats=repeats)
            curve[str(count)] = {"mean": found.mean, "deviation": found.deviation}
        report[what] = curve
    return report


def _show_cost(report: Mapping[str, Any], console: Console) -> None:
    for what in ("steps", "proposals"):
        rows = {name: curve[what] for name, curve in report["cpu_s_a_query"].items() if curve[what]}
        if not rows:
            continue
        counts = list(next(iter(rows.values())))
        title = f"CPU milliseconds a query against {what}, one thread (ratio to {counts[0]})"
        table = Table("model", *counts, title=title)
        for name, row in rows.items():
            table.add_row(name, *(f"{1000 * row[n]:.1f} ({row[n] / row[counts[0]]:.1f})" for n in counts))
        console.print(table)


def _figures(curve: Curve) -> list[str]:
    """Those that are shown; highlight sets have others than moments."""
    there = next(iter(curve.values()))["mean"]
    return [name for name in SHOWN if name in there] or list(there)[: len(COLOURS)]


def _show_curves(report: Mapping[str, Any], console: Console) -> None:
    own = ", ".join(f"{count} {name}" for name, count in report["own"].items())
    said = f"{report['model']}, {report['queries']} queries, {report['repeats']} seeds; trained with {own}"
    for what in ("steps", "proposals"):
        if not report[what]:
            continue
        names = _figures(report[what])
        table = Table(what, *(name.removeprefix("MR-full-") for name in names), title=said)
        for count, row in report[what].items():
            deviation = row["deviation"]
            cells = [
                f"{row['mean'][name]:.2f}" + (f" ± {deviation[name]:.2f}" if name in deviation else "")
                for name in names
            ]
            table.add_row(count, *cells)
        console.print(table)


def plot(report: Mapping[str, Any]) -> str:
    """The curves side by side, with a bar of one deviation either way; self-contained SVG."""
    panels = [what for what in ("steps", "proposals") if report[what]]
    width = PANEL * len(panels)
    content = "".join(
        f'<g transform="translate({PANEL * column} 0)">{_panel(what, report[what])}</g>'
        for column, what in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {BOTTOM + 40}" width="{width}" '
        f'height="{BOTTOM + 40}" role="img" fill="{INK}" font-size="12" '
        f'font-family="system-ui,-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif">'
        f"<title>{escape(report['model'])}: figures in percent against steps and proposals</title>"
        f'<rect width="{width}" height="{BOTTOM + 40}" fill="#ffffff"/>{content}</svg>\n'
    )


def _panel(what: str, curve: Curve) -> str:
    """All figures against one of the two; the counts stand evenly spaced."""
    names = _figures(curve)
    values = [row["mean"][name] for row in curve.values() for name in names]
    low, high = min(values) // 10 * 10, max(values) // 10 * 10 + 10
    places = [LEFT + index * (PANEL - LEFT - 100) / max(len(curve) - 1, 1) for index in range(len(curve))]

    def height(value: float) -> float:
        return BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)

    parts = [f'<text x="{LEFT}" y="20" font-size="14" font-weight="600">percent against {what}</text>']
    for mark in range(int(low), int(high) + 1, 10):
        y = height(mark)
        parts.append(f'<path d="M{LEFT - 8} {y:.1f}H{PANEL - 90}" stroke="{RULE}"/>')
        parts.append(f'<text x="{LEFT - 14}" y="{y + 4:.1f}" text-anchor="end" fill="{MUTED}">{mark}</text>')
    for x, count in zip(places, curve, strict=True):
        parts.append(
            f'<text x="{x:.1f}" y="{BOTTOM + 22}" text-anchor="middle" fill="{MUTED}">{count}</text>'
        )
    ends = {name: height(list(curve.values())[-1]["mean"][name]) for name in names}
    below = -1e9
    for name in sorted(names, key=lambda name: ends[name]):  # labels that would touch move down
        below = max(ends[name], below + 13)
        colour = COLOURS[names.index(name)]
        parts.append(
            f'<text x="{places[-1] + 12:.1f}" y="{below + 4:.1f}" fill="{colour}">'
            f"{name.removeprefix('MR-full-')}</text>"
        )
        points = [
            (x, row["mean"][name], row["deviation"].get(name, 0.0))
            for x, row in zip(places, curve.values(), strict=True)
        ]
        parts.append(_line(colour, points, height))
    return "".join(parts)


def _line(colour: str, points: Sequence[tuple[float, float, float]], height: Callable[[float], float]) -> str:
    """A line through means, each with its deviation; points are (x, mean, deviation)."""
    line = " ".join(f"{x:.1f},{height(mean):.1f}" for x, mean, _ in points)
    marks = "".join(
        f'<path d="M{x:.1f} {height(mean - off):.1f}V{height(mean + off):.1f}" stroke="{colour}"/>'
        f'<circle cx="{x:.1f}" cy="{height(mean):.1f}" r="3" fill="{colour}">'
        f"<title>{mean:.2f} ± {off:.2f}</title></circle>"
        for x, mean, off in points
    )
    return f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>{marks}'


if __name__ == "__main__":
    main()
