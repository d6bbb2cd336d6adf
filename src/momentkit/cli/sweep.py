"""`momentkit sweep`: a table of runs from one file."""

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[Path, typer.Argument(help="Sweep file, TOML.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the runs; by default runs/<file>.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    devices: Annotated[
        str,
        typer.Option(help="CUDA devices the runs take turns on, such as 0,1; by default what is visible."),
    ] = "",
    show: Annotated[
        bool, typer.Option("--show", help="Print the table of what is done; train nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Train every row with every seed, go on where it stopped, print the table as Markdown."""
    from momentkit.core.files import atomic_write
    from momentkit.train.sweep import markdown, read_sweep, run_sweep, runs_of, table_of

    sweep = read_sweep(file)
    folder = output or Path("runs") / file.stem
    if not show:
        total = len(runs_of(sweep, folder))
        for run in run_sweep(sweep, folder, workers, [d for d in devices.split(",") if d]):
            done = sum(each.done for each in runs_of(sweep, folder))
            typer.echo(f"{done} of {total}: {run.row.name}, seed {run.seed}", err=True)
    entries = table_of(sweep, folder)
    text = json.dumps(entries, indent=1) if as_json else markdown(sweep, entries)
    if not show:
        atomic_write(folder / "table.json", json.dumps(entries, indent=1))
    typer.echo(text.rstrip())
