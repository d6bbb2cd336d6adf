"""`momentkit convert`: an authors' checkpoint to our safetensors."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    checkpoint: Annotated[Path, typer.Argument(help="The authors' file (.ckpt, .pt, .pth).")],
    model: Annotated[str, typer.Option("--model", "-m", help="Registry name, such as flashvtg.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write; ends in .safetensors.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Run configuration that says which features the weights expect."),
    ] = None,
) -> None:
    """Turn an authors' checkpoint into weights that say what they are. Nothing in the file is executed."""
    from momentkit.convert.checkpoint import convert

    features, predict = None, None
    if config is not None:
        from momentkit.core.config import read_toml
        from momentkit.train.run_config import parse_run

        run = parse_run(read_toml(config), str(config))
        features, predict = run.data.contract, read_toml(config).get("predict", {})
    card = convert(checkpoint, model, output, features=features, predict=predict)
    typer.echo(
        f"{output}: {card.model}, {card.options['video_dim']} video channels, {card.options['hidden']} wide"
    )
    if features is None:
        typer.echo("It carries no feature contract: add --config to let it refuse features that do not fit.")
