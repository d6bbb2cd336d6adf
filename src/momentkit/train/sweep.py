"""Many runs from one file: rows of a table times seeds, each run a process of its own, all of it resumable.

A sweep file names a configuration, seeds and rows; a row changes options and may carry the paper's figures:

    title = "Loops on QD-DETR"
    config = "configs/qd_detr_charades_clip.toml"
    seeds = [0, 1, 2]
    figures = ["R1@0.5", "R1@0.7", "mAP"]

    [[row]]
    name = "two loops"
    set = ["model.decoder_loops=2"]
    paper = { mAP = "42.26 ± 0.61" }

A row with `weights_of = "two loops"` is not trained: it evaluates that row's weights with its own options
(steps and proposals of a diffusion model).

A run directory that holds `figures.json` is done; one that holds a checkpoint is gone on with.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from momentkit.core.config import build, read_toml
from momentkit.core.errors import ConfigError, TrainingError
from momentkit.core.files import atomic_write
from momentkit.train.checkpoint import has_state
from momentkit.train.compare import MODEL, compare
from momentkit.train.published import our_name
from momentkit.train.run_config import read_run_config

FIGURES_FILE, LAST_WEIGHTS = "figures.json", "last.safetensors"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table."""

    name: str
    config: str = ""  # in place of the sweep's
    set: tuple[str, ...] = ()  # section.key=value, after the sweep's own
    weights_of: str = ""  # the row whose weights are evaluated; "": a training of its own
    paper: Mapping[str, str] = field(default_factory=dict)  # figure -> what the paper prints


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Rows times seeds."""

    title: str
    row: tuple[Row, ...]
    config: str = ""  # of rows that name none; relative to the working directory
    set: tuple[str, ...] = ()  # of every run
    seeds: tuple[int, ...] = (0,)
    figures: tuple[str, ...] = ("R1@0.5", "R1@0.7", "mAP")
    at_step: int = 0  # also the figures of the evaluation at this step; 0 = none

    def __post_init__(self) -> None:
        names = [row.name for row in self.row]
        if not names or not self.seeds:
            raise ConfigError("a sweep needs at least one [[row]] and one seed")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(
                f"two rows are called {twice[0]!r}; a row's name is its folder's, so rename one"
            )
        for row in self.row:
            if not (row.config or self.config):
                raise ConfigError(f"row {row.name!r} has no config, and the sweep names none")
            if row.weights_of and row.weights_of not in {r.name for r in self.row if not r.weights_of}:
                raise ConfigError(
                    f"row {row.name!r} takes the weights of {row.weights_of!r}, which is no row that trains"
                )


@dataclass(frozen=True)
class Run:
    """One cell of a sweep: a row with a seed.

    Attributes:
        row: the row.
        seed: in place of train.seed.
        config: configuration file.
        settings: changes to it.
        folder: its run directory.
        weights: run directory whose weights it evaluates; None = it trains.
    """

    row: Row
    seed: int
    config: Path
    settings: tuple[str, ...]
    folder: Path
    weights: Path | None = None

    @property
    def done(self) -> bool:
        """Whether it was trained and evaluated."""
        return (self.folder / FIGURES_FILE).is_file()


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep file, and every configuration it leads to.

    Raises:
        ConfigError: an option that does not exist or has a bad value, here or in a run.
    """
    values = read_toml(path)
    rows = values.get("row", [])
    if not isinstance(rows, list):
        raise ConfigError(f"{path}: rows are written as [[row]]")
    values["row"] = tuple(build(Row, row, f"{path} [[row]] {index}") for index, row in enumerate(rows, 1))
    sweep = build(Sweep, values, str(path))
    for row in sweep.row:
        read_run_config(Path(row.config or sweep.config), (*sweep.set, *row.set))
    return sweep


def runs_of(sweep: Sweep, output: Path) -> list[Run]:
    """All runs, seed by seed, so that a sweep cut short has whole rows of its first seeds."""
    return [
        Run(
            row,
            seed,
            Path(row.config or sweep.config),
            (*sweep.set, *row.set),
            _folder(output, row.name, seed),
            _folder(output, row.weights_of, seed) if row.weights_of else None,
        )
        for seed in sweep.seeds
        for row in sweep.row
    ]


def _folder(output: Path, name: str, seed: int) -> Path:
    return output / f"{''.join(c if c.isalnum() else '_' for c in name)}-seed{seed}"


def run_sweep(sweep: Sweep, output: Path, workers: int, devices: Sequence[str] = ()) -> Iterator[Run]:
    """Train and evaluate what is not done yet, `workers` runs at a time; yields each as it ends.

    Args:
        sweep: rows times seeds.
        output: folder of the run directories.
        workers: runs at a time.
        devices: of CUDA, as CUDA_VISIBLE_DEVICES names them; a run takes the next free one.

    Raises:
        TrainingError: a run failed; its last lines are said. The others go on to their end.
    """
    open_runs = [run for run in runs_of(sweep, output) if not run.done]
    failed: list[str] = []
    free: SimpleQueue[str] = SimpleQueue()
    for number in range(workers):
        free.put(devices[number % len(devices)] if devices else "")
    for trained in (False, True):  # first what trains, then what needs its weights
        with ThreadPoolExecutor(workers) as pool:
            runs = [run for run in open_runs if bool(run.weights) == trained]
            started = {pool.submit(_on_device, run, free): run for run in runs}
            for future in as_completed(started):
                run = started[future]
                if said := future.result():
                    failed.append(f"{run.row.name}, seed {run.seed}: {said}")
                else:
                    yield run
    if failed:
        raise TrainingError(f"{len(failed)} of {len(open_runs)} runs failed: {'; '.join(failed)}")


def _on_device(run: Run, free: SimpleQueue[str]) -> str:
    device = free.get()
    try:
        return _train(run, os.environ | ({"CUDA_VISIBLE_DEVICES": device} if device else {}))
    finally:
        free.put(device)


def _train(run: Run, environment: Mapping[str, str]) -> str:
    """Train and evaluate in processes of their own; the last line of a failure, or nothing."""
    if run.weights:
        if not (run.weights / FIGURES_FILE).is_file():
            return f"row {run.row.weights_of!r} is not done"
        take_weights(run, run.weights)
    momentkit = [sys.executable, "-m", "momentkit"]
    train = [*momentkit, "train", str(run.config), "-o", str(run.folder), "--seed", str(run.seed)]
    for setting in run.settings:
        train += ["--set", setting]
    if run.folder.is_dir() and has_state(run.folder):
        train.append("--resume")
    own = "from pathlib import Path; from momentkit.train.sweep import evaluate_run; "
    evaluate = [sys.executable, "-c", f"{own}evaluate_run(Path({str(run.folder)!r}))"]
    for command in (evaluate,) if run.weights else (train, evaluate):
        ended = subprocess.run(command, capture_output=True, text=True, env=dict(environment))
        if ended.returncode:
            lines = ended.stderr.strip().splitlines()
            return lines[-1] if lines else f"exit {ended.returncode}"
    return ""


def take_weights(run: Run, source: Path) -> None:
    """Write a run directory with the last weights of another one and the run's own options."""
    from momentkit.core.weights import read_weights, save_weights
    from momentkit.train.run import untrained_card
    from momentkit.train.run_config import to_toml

    config = read_run_config(run.config, run.settings, seed=run.seed)
    card = untrained_card(config)
    run.folder.mkdir(parents=True, exist_ok=True)
    save_weights(run.folder / LAST_WEIGHTS, read_weights(source / LAST_WEIGHTS)[1], card)
    atomic_write(run.folder / "config.toml", to_toml(config))


def evaluate_run(folder: Path) -> Path:
    """Figures of a run's last weights, of the location prior and of both probes, and of every evaluation.

    The last weights, not the best: choosing an epoch by the figures that are reported flatters them.
    """
    import torch

    torch.set_num_threads(1)
    result = compare(folder / LAST_WEIGHTS).to_json()
    path = folder / "log.jsonl"  # none where the weights are another row's
    log = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    result["evaluations"] = {
        str(entry["step"]): entry["metrics"] for entry in log if entry.get("kind") == "evaluation"
    }
    steps = [entry for entry in log if entry.get("kind") == "step"]
    result["train_s"] = sum(entry["seconds"] for entry in steps)
    return atomic_write(folder / FIGURES_FILE, json.dumps(result, indent=1))


def table_of(sweep: Sweep, output: Path) -> list[dict[str, Any]]:
    """One entry a row: how many seeds are done, and mean and deviation of each figure over them.

    Returns:
        Entries with `row`, `seeds`, `figures` (who -> figure -> [mean, deviation]), `at_step`, `paper`.
    """
    entries = []
    for row in sweep.row:
        done = [run for run in runs_of(sweep, output) if run.row is row and run.done]
        results = [json.loads((run.folder / FIGURES_FILE).read_text()) for run in done]
        who = list(results[0]["figures"]) if results else []
        step = str(sweep.at_step)
        entries.append(
            {
                "row": row.name,
                "seeds": [run.seed for run in done],
                "figures": {name: _spread([r["figures"][name] for r in results], sweep) for name in who},
                "at_step": _spread(
                    [r["evaluations"][step] for r in results if step in r["evaluations"]], sweep
                ),
                "train_s": statistics.mean([r["train_s"] for r in results]) if results else None,
                "paper": dict(row.paper),
            }
        )
    return entries


def _spread(results: Sequence[Mapping[str, float]], sweep: Sweep) -> dict[str, list[float]]:
    """Figure -> mean and sample deviation (0 for a single result)."""
    spread = {}
    for name in sweep.figures:
        known = [r[key] for r in results if (key := our_name(name, r)) is not None]
        if known:
            spread[name] = [statistics.mean(known), statistics.stdev(known) if len(known) > 1 else 0.0]
    return spread


def markdown(sweep: Sweep, entries: Sequence[Mapping[str, Any]]) -> str:
    """The table as Markdown: ours, at the step where one is asked for, the paper's where it is given."""
    columns = [f"{name}" for name in sweep.figures]
    if sweep.at_step:
        columns += [f"{name}, step {sweep.at_step}" for name in sweep.figures]
    papers = [name for name in sweep.figures if any(name in entry["paper"] for entry in entries)]
    columns += [f"{name}, paper" for name in papers]
    lines = [f"| {sweep.title} | seeds | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for entry in entries:
        own = entry["figures"].get(MODEL, {})
        cells = [_cell(own.get(name)) for name in sweep.figures]
        if sweep.at_step:
            cells += [_cell(entry["at_step"].get(name)) for name in sweep.figures]
        cells += [entry["paper"].get(name, "") for name in papers]
        lines.append(f"| {entry['row']} | {len(entry['seeds'])} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(value: Sequence[float] | None) -> str:
    return "" if value is None else f"{value[0]:.1f} ± {value[1]:.1f}"
