"""The command `momentkit`: one file a command, and the one place where errors become exit codes.

Exit codes: 0 fine, 1 our fault, 2 the user's input, 3 nothing found.
"""

import sys
from typing import NoReturn

import typer
import typer.exceptions

from momentkit.cli import (
    compare,
    convert,
    data,
    demo,
    doctor,
    evaluate,
    features,
    find,
    highlights,
    models,
    score,
    sweep,
    train,
    verify,
)
from momentkit.core.errors import MomentkitError
from momentkit.version import __version__

app = typer.Typer(
    help="Find when something happens in a video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


COMMANDS = {
    "demo": demo,
    "find": find,
    "highlights": highlights,
    "score": score,
    "train": train,
    "eval": evaluate,
    "compare": compare,
    "sweep": sweep,
    "verify": verify,
    "convert": convert,
    "models": models,
    "doctor": doctor,
}
for _name, _module in COMMANDS.items():
    app.command(_name)(_module.command)
app.add_typer(data.app, name="data")
app.add_typer(features.app, name="features")


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; every user error is one line on standard error."""
    try:
        code = app(standalone_mode=False)
    except MomentkitError as error:
        _stop(str(error), error.exit_code)
    except typer.exceptions.TyperException as error:  # a misspelt option, a missing argument
        said = error.format_message() if hasattr(error, "format_message") else str(error)
        if not said:  # no argument at all: the help was shown
            sys.exit(2)
        asked = [word for word in sys.argv[1:2] if word in COMMANDS or word in ("data", "features")]
        _stop(f"{said.rstrip('.')}. Try `{' '.join(['momentkit', *asked, '--help'])}`.", 2)
    except (KeyboardInterrupt, typer.Abort):
        _stop("interrupted", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _stop(said: str, code: int) -> NoReturn:
    print(f"momentkit: {said}", file=sys.stderr)
    sys.exit(code)
