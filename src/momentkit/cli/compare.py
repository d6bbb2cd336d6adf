"""`momentkit compare`: runs beside the papers, or two runs with each other."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from momentkit.metrics.bootstrap import Difference
    from momentkit.train.beside_paper import Beside


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Two runs: differences and how sure they are.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="With --bootstrap: data as of `momentkit eval`, for both runs.")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="With --bootstrap: draws of the videos.")] = 10_000,
    configs: Annotated[Path, typer.Option(help="Folder of the published configurations.")] = Path("configs"),
    row: Annotated[str, typer.Option(help="Published row of all runs; by default found by --configs.")] = "",
    last: Annotated[bool, typer.Option("--last", help="Last weights in place of the best.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Also draw ours beside the papers.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hold runs against the published figures, or, with --bootstrap, the second run against the first."""
    if bootstrap:
        _bootstrap(runs, data, draws, as_json)
        return
    from rich.console import Console

    from momentkit.core.files import atomic_write
    from momentkit.train.beside_paper import beside_paper, markdown, to_svg

    entries = beside_paper(runs, configs, row=row, last=last)
    if svg is not None:
        atomic_write(svg, to_svg(entries))
    if as_json:
        print(json.dumps([entry.to_json() for entry in entries], indent=1, allow_nan=False))
    elif as_markdown:
        print(markdown(entries).rstrip())
    else:
        console = Console()
        for entry in entries:
            console.print(f"{entry.title}: {', '.join(entry.runs)}", highlight=False, markup=False)
            console.print(table(entry))
            said = ([f"source: {entry.source}"] if entry.source else []) + list(entry.notes)
            for note in said:
                console.print(note, highlight=False, markup=False)


def table(entry: "Beside") -> "Table":
    """One line a figure."""
    from momentkit.train.beside_paper import cells

    where = f"paper, {entry.split}" if entry.paper else "paper"
    return _table(("figure", "ours", where, "difference"), cells(entry))


def _bootstrap(runs: list[Path], data: Path | None, draws: int, as_json: bool) -> None:
    from rich.console import Console

    from momentkit.core.errors import ConfigError
    from momentkit.train.paired import compare_runs

    if len(runs) != 2:
        raise ConfigError(
            f"--bootstrap compares two runs, got {len(runs)}; name the old one, then the new one"
        )
    with Console(stderr=True).status("evaluating"):  # shows nothing in a pipe
        differences = compare_runs(runs[0], runs[1], data, draws=draws)
    if as_json:
        told = {name: value.to_json() for name, value in differences.items()}
        print(json.dumps(told, indent=1, allow_nan=False))
        return
    console = Console()
    console.print(f"{runs[1]} minus {runs[0]}, percent; 95 % interval over drawn videos", highlight=False)
    console.print(bootstrap_table(differences))


def bootstrap_table(differences: "dict[str, Difference]") -> "Table":
    """One line a figure."""
    rows = [
        (
            name,
            f"{each.first:.2f}",
            f"{each.second:.2f}",
            f"{each.difference:+.2f}",
            f"{each.low:+.2f} to {each.high:+.2f}",
            ("better" if each.difference > 0 else "worse") if each.sure else "cannot tell",
        )
        for name, each in differences.items()
    ]
    return _table(("figure", "first", "second", "difference", "interval", ""), rows)


def _table(head: "Sequence[str]", rows: "Sequence[Sequence[str]]") -> "Table":
    from rich.table import Table

    result = Table(*head)
    for column in result.columns[1:]:
        column.justify = "right"
    for row in rows:
        result.add_row(*row)
    return result
