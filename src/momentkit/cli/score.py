"""`momentkit score`: the metrics of anybody's prediction file. Needs no torch."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

PROTOCOLS = (
    "qvh (official), cgdetr, univtg, lighthouse, momentdiff[:hl|tacos|charades|activity], "
    "tan[:charades|activitynet|tacos], tvsum, youtube, didemo"
)
MOMENT_COLUMNS = ("R1@0.5", "R1@0.7", "mAP@0.5", "mAP@0.75", "mAP", "mIoU")


def command(
    predictions: Annotated[Path, typer.Argument(help="Prediction file, JSON lines; plain or .gz.")],
    truth: Annotated[Path, typer.Argument(help="Ground truth of the same queries.")],
    protocol: Annotated[str, typer.Option(help=f"Whose evaluator: {PROTOCOLS}.")] = "qvh",
    shared_only: Annotated[
        bool, typer.Option("--shared-only", help="Score the queries both files have, instead of refusing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every figure as JSON.")] = False,
) -> None:
    """Score a prediction file against its ground truth."""
    from momentkit.metrics.score import score_files

    scores = score_files(predictions, truth, protocol=protocol, match_number=not shared_only)
    for warning in scores.warnings:
        print(f"momentkit: note: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(scores.figures, indent=1, allow_nan=False))
        return
    from rich.console import Console

    console = Console()
    console.print(
        f"{predictions.name}: {len(scores.qids)} queries, protocol {protocol}, percent", highlight=False
    )
    for table in tables(scores.figures):
        console.print(table)


def tables(figures: dict[str, Any]) -> "list[Table]":
    """The figures as tables for a terminal: moments by length, highlights by level, or the brief list."""
    made = []
    if any("MR-mAP" in part for part in figures.values() if part):
        names: list[str] = [name for name in ("full", "short", "middle", "long") if name in figures]
        rows = [_moment_row(figures[name]) for name in names]
        shown = MOMENT_COLUMNS if "MR-mIoU" in (figures["full"] or {}) else MOMENT_COLUMNS[:-1]
        made.append(_table("moments", shown, names, [row[: len(shown)] for row in rows]))
    if levels := [name for name in figures if name.startswith("HL-min-")]:
        rows = [[figures[name]["HL-mAP"], figures[name]["HL-Hit1"]] for name in levels]
        made.append(
            _table("highlights", ("mAP", "Hit1"), [name.removeprefix("HL-min-") for name in levels], rows)
        )
    if not made:
        made.append(
            _table("figure", ("percent",), list(figures["brief"]), [[v] for v in figures["brief"].values()])
        )
        domains = [name for name in figures if name != "brief"]
        if domains:
            made.append(_table("domain", ("mAP",), domains, [[figures[name]["mAP"]] for name in domains]))
    return made


def _moment_row(part: dict[str, Any] | None) -> list[float | None]:
    if part is None:
        return [None] * len(MOMENT_COLUMNS)
    recall, precision = part["MR-R1"], part["MR-mAP"]
    return [
        recall["0.5"],
        recall["0.7"],
        precision["0.5"],
        precision["0.75"],
        precision["average"],
        part.get("MR-mIoU"),
    ]


def _table(title: str, columns: tuple[str, ...], names: list[str], rows: list[list[float | None]]) -> "Table":
    from rich.table import Table

    table = Table(title, *columns)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in zip(names, rows, strict=True):
        table.add_row(name, *("-" if value is None else f"{value:.2f}" for value in row))
    return table
