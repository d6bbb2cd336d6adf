"""Our runs beside the papers: runs of one published row together, mean and deviation, and the difference."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from momentkit.core.errors import ConfigError
from momentkit.core.weights import read_weights
from momentkit.train.charts import Pair, dumbbells
from momentkit.train.compare import MODEL
from momentkit.train.published import PublishedRow, find_row, our_name, read_published, split_of
from momentkit.train.run import read_folder_config
from momentkit.train.run_config import RunConfig
from momentkit.train.sweep import FIGURES_FILE, LAST_WEIGHTS

SHOWN = ("R1@0.5", "R1@0.7", "mAP", "mIoU")  # of a run that belongs to no published row
DOMAIN = "mAP-"  # figures of one domain of TVSum and YouTube Highlights


@dataclass(frozen=True)
class RunFigures:
    """A run directory's figures.

    Attributes:
        folder: the run directory.
        config: its configuration.
        metrics: figure -> percent, those kept with the weights.
    """

    folder: Path
    config: RunConfig
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Beside:
    """Runs of one row beside what is printed for it.

    Attributes:
        title: the published row; the model's name where there is none.
        runs: names of the run directories.
        split: of the printed figures.
        source: where they are printed.
        ours: figure -> (mean, sample deviation) over the runs; deviation 0 for one run.
        paper: figure -> percent.
        notes: what a reader must know.
    """

    title: str
    runs: tuple[str, ...]
    split: str
    source: str
    ours: Mapping[str, tuple[float, float]]
    paper: Mapping[str, float]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """With the differences, ours minus the paper's."""
        difference = {name: round(self.ours[name][0] - self.paper[name], 4) for name in self.shared}
        own = {name: {"mean": mean, "deviation": spread} for name, (mean, spread) in self.ours.items()}
        said = {"row": self.title, "runs": list(self.runs), "split": self.split, "source": self.source}
        figures = {"ours": own, "paper": dict(self.paper), "difference": difference}
        return said | figures | {"notes": list(self.notes)}

    @property
    def shared(self) -> list[str]:
        """Figures that both have, as the paper orders them."""
        return [name for name in self.paper if name in self.ours]


def beside_paper(
    folders: Sequence[Path], configs: Path, *, row: str = "", last: bool = False
) -> list[Beside]:
    """Hold runs against the published rows they belong to.

    Args:
        folders: run directories.
        configs: folder of the configuration files, by which the row of a run is found.
        row: name of the row of all of them, in place of looking for it.
        last: figures of the last weights, not of the best ones.

    Raises:
        ConfigError: no such row, or no folder of configurations.
        WeightsError: a run directory without weights.
    """
    rows = read_published()
    if row and row not in {each.config for each in rows}:
        raise ConfigError(f"no published row {row!r}; a row is called like its file in {configs}")
    groups: dict[str, list[tuple[RunFigures, tuple[str, ...]]]] = {}
    by_name = {each.config: each for each in rows}
    for folder in folders:
        run = read_run(folder, last)
        found = (by_name[row], ()) if row else find_row(run.config, rows, configs)
        name = found[0].config if found else f" {run.config.model['name']} {Path(run.config.data.root).name}"
        groups.setdefault(name, []).append((run, found[1] if found else ()))
    return [
        _beside(
            by_name.get(name), [run for run, _ in group], sorted({d for _, ds in group for d in ds}), last
        )
        for name, group in groups.items()
    ]


def read_run(folder: Path, last: bool = False) -> RunFigures:
    """Configuration and figures of a run directory.

    Raises:
        ConfigError: no configuration in it.
        WeightsError: no weights in it.
    """
    if not (folder / "config.toml").is_file():
        raise ConfigError(
            f"{folder} is no run directory: it has no config.toml; train with `momentkit train`"
        )
    if last and (measured := folder / FIGURES_FILE).is_file():  # a run of a sweep
        return RunFigures(
            folder, read_folder_config(folder), json.loads(measured.read_text())["figures"][MODEL]
        )
    card, _ = read_weights(folder / (LAST_WEIGHTS if last else "best.safetensors"))
    return RunFigures(folder, read_folder_config(folder), card.metrics)


def _beside(
    row: PublishedRow | None, runs: Sequence[RunFigures], differs: Sequence[str], last: bool
) -> Beside:
    split = split_of(runs[0].config)
    line = row.on(split) if row else None
    wanted = list(line.figures) if line else list(SHOWN)
    notes = []
    if row is None:
        notes.append("no published row has this model with these features and this evaluation file")
    elif line is None:
        notes.append(f"nothing to hold it against: {row.note}")
    else:
        notes += [row.note] if row.note else []
        if line.split != split:
            notes.append(f"the paper's figures are those of {line.split}, ours those of {split}")
    if not last:
        notes.append("ours are the best evaluation of each run, as the papers choose theirs; see --last")
    if differs:
        notes.append(f"differs from the published configuration: {'; '.join(differs)}")
    ours = _spread(runs, wanted)
    if missing := [name for name in wanted if name not in ours and line]:
        notes.append(f"not measured here: {', '.join(missing)}")
    title = row.title if row else f"{runs[0].config.model['name']}, {Path(runs[0].config.data.root).name}"
    names = tuple(run.folder.name for run in runs)
    return Beside(
        title, names, line.split if line else split, line.source if line else "", ours,
        dict(line.figures) if line else {}, tuple(notes),
    )  # fmt: skip


def _spread(runs: Sequence[RunFigures], wanted: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Mean and sample deviation of the wanted figures over the runs that have them.

    Where the paper prints domains, each run knows those it was trained for, and the mean over domains is made
    here once all of them are there.
    """
    domains = [name for name in wanted if name.startswith(DOMAIN)]
    spread = {}
    for name in wanted:
        if domains and name not in domains:
            continue
        values = [run.metrics[key] for run in runs if (key := our_name(name, run.metrics)) is not None]
        if values:
            spread[name] = (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
    if domains and all(name in spread for name in domains):
        spread["mAP"] = (statistics.mean(spread[name][0] for name in domains), 0.0)
    return spread


def cells(entry: Beside) -> list[tuple[str, str, str, str]]:
    """A line a figure: name, ours, the paper's, the difference."""
    several = len(entry.runs) > 1
    lines = []
    for name in entry.paper or entry.ours:
        ours, paper = entry.ours.get(name), entry.paper.get(name)
        own = "-" if ours is None else f"{ours[0]:.2f}" + (f" ± {ours[1]:.2f}" if several else "")
        gap = f"{ours[0] - paper:+.2f}" if ours is not None and paper is not None else "-"
        lines.append((name, own, "-" if paper is None else f"{paper:.2f}", gap))
    return lines


def markdown(entries: Sequence[Beside]) -> str:
    """A table a row of the papers."""
    parts = []
    for entry in entries:
        where = f"paper, {entry.split}" if entry.paper else "paper"
        parts += [f"**{entry.title}** ({len(entry.runs)} run{'s' * (len(entry.runs) > 1)})", ""]
        parts += [f"| figure | ours | {where} | difference |", "|---|---|---|---|"]
        parts += [f"| {' | '.join(line)} |" for line in cells(entry)]
        parts += ["", f"Source: {entry.source}." if entry.source else "", ""]
        parts += [f"- {note}" for note in entry.notes] + [""]
    return "\n".join(parts).rstrip() + "\n"


def to_svg(entries: Sequence[Beside]) -> str:
    """Every figure that both have on one scale: the paper's as a ring, ours as a dot."""
    pairs = [
        Pair(entry.title, name, entry.ours[name][0], entry.ours[name][1], entry.paper[name])
        for entry in entries
        for name in entry.shared
    ]
    return dumbbells(pairs, "Ours beside the papers, percent")
