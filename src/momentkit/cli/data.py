"""`momentkit data`: check annotation files, and say what a data set holds."""

from pathlib import Path

import typer

from momentkit.cli.synthesize import synthesize

app = typer.Typer(help="Check and describe data sets.", no_args_is_help=True)
app.command()(synthesize)


@app.command()
def validate(
    files: list[Path] = typer.Argument(help="Annotation files, .jsonl or .jsonl.gz."),
    clip_windows: bool = typer.Option(False, help="Cut windows to their video instead of refusing them."),
    drop_bad_windows: bool = typer.Option(False, help="Leave out windows that do not end after their start."),
    show: int = typer.Option(3, min=0, help="Faults of each kind that are written out."),
) -> None:
    """Name every fault of annotation files with its line; exit 2 where there is one."""
    from momentkit.data.annotations import validate_annotations
    from momentkit.data.row import WindowRules

    rules = WindowRules(clip_windows=clip_windows, drop_bad_windows=drop_bad_windows)
    faults = 0
    for file in files:
        report = validate_annotations(file, rules)
        faults += len(report.problems) + (not report.rows)
        verdict = (
            f"{len(report.problems)} faults" if report.problems else "no fault" if report.rows else "no row"
        )
        print(f"{file}: {report.rows} rows, {verdict}")
        for sentence in report.mended():
            print(f"  note: {sentence.removeprefix(f'{file}: ')}")
        for kind, count in report.counts.items():
            found = [problem for problem in report.problems if problem.kind == kind]
            lines = ", ".join(str(problem.line) for problem in found[:20]) + (", ..." if count > 20 else "")
            print(f"  {kind}: {count} (line {lines})")
            for problem in found[:show]:
                print(f"    {problem.message}")
    if faults:
        raise typer.Exit(2)


@app.command()
def split(
    train: Path = typer.Argument(help="Charades-STA's training rows, .jsonl or .jsonl.gz."),
    test: Path = typer.Argument(help="Its test rows."),
    rule: str = typer.Option(
        ..., help="len: training moments mostly under 10 s, test moments over; mom: before and after 15 s."
    ),
    directory: Path = typer.Option(..., "-o", "--output", help="Folder that receives both files."),
    released: bool = typer.Option(
        False, help="Number the rows as the released files do, where numbers repeat; else each keeps its own."
    ),
) -> None:
    """Make an anti-bias split (Charades-STA-Len, -Mom): test moments are not like training moments."""
    from momentkit.data.annotations import read_annotations, write_annotations
    from momentkit.data.splits import anti_bias

    for part, source in (("train", train), ("test", test)):
        rows = anti_bias(read_annotations(source), rule, part, released=released)
        target = write_annotations(directory / f"{part}_{rule}_80.jsonl", rows)
        print(f"{target}: {len(rows)} rows, {len({row.qid for row in rows})} qids")


@app.command()
def info(
    source: Path = typer.Argument(help="A folder of annotations and features, or a configuration file."),
) -> None:
    """Counts, durations, words and feature shapes of a data set."""
    if source.is_dir():
        _info_of_folder(source)
    else:
        _info_of_configuration(source)


def _info_of_folder(root: Path) -> None:
    from momentkit.data.annotations import validate_annotations
    from momentkit.data.info import annotation_figures, feature_figures, look_into

    folder = look_into(root)
    for file in folder.annotations:
        report = validate_annotations(file)
        _table(str(file.relative_to(root)), annotation_figures(report.queries))
        if report.problems:
            print(f"  {len(report.problems)} faults: see `momentkit data validate {file}`")
    for features in folder.features:
        _table(f"{features.relative_to(root)}/", feature_figures(features))


def _info_of_configuration(path: Path) -> None:
    from momentkit.core.config import build, read_toml
    from momentkit.core.errors import ConfigError
    from momentkit.data.dataset import GroundingDataset
    from momentkit.data.info import annotation_figures
    from momentkit.data.options import DataConfig

    values = read_toml(path)
    if not isinstance(values.get("data"), dict):
        raise ConfigError(f"{path} has no section [data]; a configuration of a training run is wanted")
    config = build(DataConfig, values["data"], f"{path} [data]")
    for split in ("train", "val"):
        data = GroundingDataset(config, split)
        figures = annotation_figures(data.queries)
        lengths = data.lengths_N
        figures["clips of a row"] = f"{lengths.min()} to {lengths.max()}, mean {lengths.mean():.4g}"
        figures["video input"] = (
            f"{config.contract.video_dim} channels, clip length {config.clip_length_s:g} s"
        )
        figures["text input"] = f"{config.text.dim} channels"
        _table(split, figures)  # what was cut is logged by the data set itself


def _table(title: str, figures: dict[str, str]) -> None:
    print(title)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"  {name:<{width}}  {value}")
