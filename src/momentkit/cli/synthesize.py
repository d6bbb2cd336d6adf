"""`momentkit data synthesize`: films with planted events, their questions and features."""

import sys
from pathlib import Path

import typer

from momentkit.core.errors import ConfigError


def synthesize(
    directory: Path = typer.Option(..., "-o", "--output", help="Folder that receives the set."),
    films: int = typer.Option(200, help="Films of the training split."),
    val: int = typer.Option(50, help="Films of the validation split."),
    seed: int = typer.Option(0, help="Sets of different seeds share no film."),
    queries: int = typer.Option(4, help="Most questions a film."),
    negatives: int = typer.Option(1, help="Most sentences a film about what is not in it."),
    video: bool = typer.Option(False, "--video", help="Write an mp4 file for each film."),
    features: str = typer.Option(
        "direct",
        help="none; direct (drawn from how the bundled encoder reads films, fast); "
        "encoded (each film is drawn and encoded).",
    ),
    height: int = typer.Option(144, help="Pixels of the mp4 files."),
    width: int = typer.Option(256, help="Pixels of the mp4 files."),
    fps: int = typer.Option(12, help="Frames a second of the mp4 files."),
) -> None:
    """Make films with planted events: annotations in the QVHighlights form, features, mp4 on request."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from momentkit.data.synthetic.writing import SetOptions
    from momentkit.data.synthetic.writing import synthesize as write
    from momentkit.features.tiny import TinyFrameEncoder, TinyTextEncoder

    if features not in ("none", "direct", "encoded"):
        raise ConfigError(f"--features is none, direct or encoded, got {features!r}")
    options = SetOptions(
        films=(("train", films), ("val", val)),
        seed=seed,
        queries=queries,
        negatives=negatives,
        video=video,
        features=features,  # type: ignore[arg-type]
        height=height,
        width=width,
        fps=fps,
    )
    columns = (TextColumn("films"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not sys.stderr.isatty(), console=Console(stderr=True)) as bar:
        task = bar.add_task("films", total=films + val)
        report = write(
            directory,
            options,
            frame_encoder=TinyFrameEncoder.bundled(),
            text_encoder=TinyTextEncoder.bundled(),
            progress=lambda done: bar.update(task, completed=done),
        )
    print(
        f"{directory}: {report.films} films of {report.seconds / 60:.0f} minutes together, "
        f"{report.queries} questions, {report.negatives} negatives"
    )
