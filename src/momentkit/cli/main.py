"""The command `momentkit`: one file a command, and the one place where errors become exit codes.

Exit codes: 0 fine, 1 our fault, 2 the user's input, 3 nothing found.
"""

import sys

import typer

from momentkit.core.errors import MomentkitError
from momentkit.version import __version__

app = typer.Typer(
    help="Find when something happens in a video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; every user error is one line on standard error."""
    try:
        app()
    except MomentkitError as error:
        print(f"momentkit: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("momentkit: interrupted", file=sys.stderr)
        sys.exit(130)
