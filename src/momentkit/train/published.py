"""What the papers print, a row a configuration file, and which of the rows a run belongs to.

The figures lie in assets/paper_results.toml, percent, each with its source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from momentkit.core.config import build, read_toml
from momentkit.core.errors import ConfigError
from momentkit.train.run_config import RunConfig, differences, read_run_config

# Figures that our evaluation calls otherwise; all others are MR-full-<name>, or the name itself.
OUR_NAMES = {"HD-mAP": "HL-min-VeryGood-mAP", "HIT@1": "HL-min-VeryGood-Hit1"}


@dataclass(frozen=True, kw_only=True)
class Published:
    """One line of a table.

    Attributes:
        split: "val" or "test".
        source: where it is printed.
        figures: figure -> percent.
    """

    split: str
    source: str
    figures: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A model on a data set with certain features.

    Attributes:
        config: name of its configuration file, without the ending.
        paper: the model as its paper calls it.
        dataset, features: as the table says them.
        published: may be empty; `note` then says why.
        note: what a reader of the figures must know.
    """

    config: str
    paper: str
    dataset: str
    features: str
    published: tuple[Published, ...] = ()
    note: str = ""

    @property
    def title(self) -> str:
        """How tables call it."""
        return f"{self.paper}, {self.dataset}, {self.features}"

    def on(self, split: str) -> Published | None:
        """The first line printed for this split, or else for another one; None where none is printed."""
        same = [line for line in self.published if line.split == split]
        return next(iter((*same, *self.published)), None)


@dataclass(frozen=True)
class _Rows:
    row: tuple[PublishedRow, ...] = field(default=())


def read_published() -> tuple[PublishedRow, ...]:
    """All published rows that have a configuration file."""
    path = Path(str(files("momentkit") / "assets" / "paper_results.toml"))
    return build(_Rows, read_toml(path), path.name).row


def our_name(figure: str, ours: Mapping[str, float]) -> str | None:
    """What our evaluation calls a printed figure, where it has it."""
    names = (OUR_NAMES.get(figure, figure), f"MR-full-{figure}")
    return next((name for name in names if name in ours), None)


def split_of(config: RunConfig) -> str:
    """ "val" or "test", by the name of the annotation file that the run is evaluated on."""
    return "test" if "test" in Path(config.data.val).stem else "val"


def find_row(
    run: RunConfig, rows: Sequence[PublishedRow], configs: Path
) -> tuple[PublishedRow, tuple[str, ...]] | None:
    """The published row whose model, features and evaluation file a run has, and in what the two differ.

    Of several the one that differs least. The seed, the folder of the data, the domain, and what changes no
    weight are passed over.

    Args:
        run: as its run directory keeps it.
        rows: of which to choose.
        configs: folder of the configuration files.

    Raises:
        ConfigError: no such folder.
    """
    if not configs.is_dir():
        raise ConfigError(
            f"no folder {configs}, whose files say what each published row is; name it with --configs, or "
            "the row with --row"
        )
    found = []
    for row in rows:
        path = configs / f"{row.config}.toml"
        if path.is_file() and _like(read_toml(path), run):
            published = read_run_config(path)
            same = published.data.contract == run.data.contract
            found += [(row, deviations(published, run))] if same else []
    return min(found, key=lambda pair: len(pair[1]), default=None)


def deviations(published: RunConfig, run: RunConfig) -> tuple[str, ...]:
    """Options in which a run differs from the published configuration, as "section.key: published -> run"."""
    free = ("train.seed:", "data.domain:", "train.threads:", "train.checkpoint_steps:")
    widths = ("model.video_dim:", "model.text_dim:")
    lines = [line for line in differences(published, run) if not line.startswith((*free, *widths))]
    epochs = f"train.epochs: {published.train.epochs} -> {run.train.epochs}"
    if published.train.epochs != run.train.epochs and epochs not in lines:
        lines.append(epochs)  # `differences` lets a run go on for longer
    return tuple(lines)


def _like(values: Mapping[str, Any], run: RunConfig) -> bool:
    """Whether model, layout and evaluation file are those of a run; cheaper than reading it all."""
    data = values.get("data", {})
    asked = (run.model["name"], run.data.layout, Path(run.data.val).name)
    return (values.get("model", {}).get("name"), data.get("layout"), Path(data.get("val", "")).name) == asked
