"""The command `momentkit`: one file a command, and the one place where errors become exit codes.

Exit codes: 0 fine, 1 our fault, 2 the user's input, 3 nothing found.
"""

import sys

import typer

from momentkit.cli import convert, verify
from momentkit.cli.data import app as data_app
from momentkit.cli.demo import command as demo_command
from momentkit.cli.doctor import command as doctor_command
from momentkit.cli.evaluate import command as evaluate_command
from momentkit.cli.find import command as find_command
from momentkit.cli.models import command as models_command
from momentkit.cli.score import command as score_command
from momentkit.cli.train import command as train_command
from momentkit.core.errors import MomentkitError
from momentkit.version import __version__

app = typer.Typer(
    help="Find when something happens in a video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(data_app, name="data")
app.command("demo")(demo_command)
app.command("find")(find_command)
app.command("models")(models_command)
app.command("convert")(convert.command)
app.command("verify")(verify.command)
app.command("score")(score_command)
app.command("train")(train_command)
app.command("eval")(evaluate_command)
app.command("doctor")(doctor_command)


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
