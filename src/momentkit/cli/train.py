"""`momentkit train`: one configuration in, one run directory out."""

import os
from pathlib import Path
from typing import Annotated

import typer


def command(
    config: Annotated[Path, typer.Argument(help="Configuration of the run, TOML.")],
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change an option; repeatable."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run directory; by default runs/<config>-seed<N>.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of the run directory.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="In place of train.seed.")] = None,
    data: Annotated[str | None, typer.Option(metavar="DIR", help="In place of data.root.")] = None,
) -> None:
    """Train a model; `torchrun --nproc_per_node N -m momentkit train ...` uses several processes."""
    from momentkit.core.errors import MissingExtraError
    from momentkit.train.log import figures_line
    from momentkit.train.run_config import read_run_config

    run = read_run_config(config, setting or (), seed=seed, root=data)
    try:
        from momentkit.train.run import run_training
    except ModuleNotFoundError as error:
        if error.name != "accelerate":
            raise
        raise MissingExtraError(
            "training needs accelerate, which is not installed: pip install 'momentkit[train]'"
        ) from error

    folder = output or Path("runs") / f"{config.stem}-seed{run.train.seed}"
    progress = run_training(run, folder, resume=resume)
    if os.environ.get("RANK", "0") != "0":  # of torchrun: the first process speaks
        return
    typer.echo(f"best epoch {progress.best_epoch}  {figures_line(progress.best_metrics)}")
    typer.echo(f"weights: {folder / 'best.safetensors'}   compare: momentkit eval {folder}")
