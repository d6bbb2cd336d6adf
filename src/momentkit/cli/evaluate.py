"""`momentkit eval`: a model's figures beside the location prior and the probes, and what lies behind them."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from momentkit.train.by_query import Details
    from momentkit.train.compare import Comparison
    from momentkit.train.presence import PresenceReport

SHOWN = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU", "mAP")  # what fits 80 columns; all are in --json


def command(
    model: Annotated[
        str, typer.Argument(metavar="RUN|WEIGHTS", help="Run directory, weights, bundled name.")
    ],
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Configuration file whose data section is used; or, for a run directory, another data "
            "folder or annotation file. By default the run's own validation set."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every figure as JSON.")] = False,
    predictions: Annotated[
        Path | None, typer.Option(help="Write the model's answers, for `momentkit score`.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write all of it as one HTML page.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries a forward.")] = 100,
    repeats: Annotated[
        int, typer.Option(min=1, help="Seeds to evaluate a model with that draws noise: mean and deviation.")
    ] = 1,
    negatives: Annotated[
        Path | None,
        typer.Option(
            help="Annotation file of sentences that do not occur in their videos; by default sentences of "
            "other videos."
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Keep with the weights how probably a sentence occurs, for --min-confidence."
        ),
    ] = False,
) -> None:
    """Evaluate a model, and beside it what it must beat: constant windows, and itself misled."""
    from rich.console import Console

    from momentkit.train.compare import compare, keep_presence, write_predictions

    with Console(stderr=True).status("evaluating"):  # shows nothing in a pipe
        comparison = compare(model, data, batch_size=batch_size, repeats=repeats, negatives=negatives)
    if calibrate:
        print(f"{keep_presence(model, comparison)}: calibrated", file=sys.stderr)
    if predictions is not None:
        write_predictions(predictions, comparison.rows)
    if report is not None:
        from momentkit.train.eval_report import save_report

        save_report(comparison, f"{model} on {data}" if data else model, report)
    if as_json:
        print(json.dumps(comparison.to_json(), indent=1, allow_nan=False))
        return
    console = Console()
    title = f"{model}: {len(comparison.rows)} queries, percent"
    if comparison.deviation:
        title += f", mean and deviation over {comparison.repeats} seeds"
    console.print(title, highlight=False, markup=False)
    console.print(table(comparison))
    if comparison.details:
        console.print(parts_table(comparison.details))
        for curve in comparison.details.calibration:
            console.print(
                f"calibration error {100 * curve.error:.1f}, confidence minus share right "
                f"{100 * curve.bias:+.1f}, where overlaps of {curve.threshold} and more are right",
                highlight=False,
                soft_wrap=True,
            )
    if comparison.presence:
        console.print(presence_line(comparison.presence), highlight=False, soft_wrap=True)
    for note in comparison.notes:
        console.print(note, highlight=False, markup=False)


def table(comparison: "Comparison") -> "Table":
    """One row for the model and each thing it is held against."""
    from rich.table import Table

    names = list(next(iter(comparison.figures.values())))
    moments = [f"MR-full-{name}" for name in SHOWN if f"MR-full-{name}" in names]
    columns = [*moments, *(name for name in names if not name.startswith("MR-"))]
    result = Table("", *(column.removeprefix("MR-full-") for column in columns))
    for column in result.columns[1:]:
        column.justify = "right"
    for index, (who, figures) in enumerate(comparison.figures.items()):
        deviation = comparison.deviation if index == 0 else {}
        result.add_row(who, *(cell(column, figures, deviation) for column in columns))
    return result


def presence_line(report: "PresenceReport") -> str:
    """How well absent sentences are told; see `momentkit.metrics.presence`."""
    scores = report.scores
    return (
        f"not in this video: AUROC {100 * scores.auroc:.1f}, Rej-F1 {100 * scores.rejection_f1:.1f} "
        f"(rejecting everything: 66.7), calibration error {100 * scores.curve.error:.1f} (of a perfect "
        f"calibration: {100 * scores.chance_error:.1f}), of {scores.there} queries and {scores.absent} "
        f"sentences that do not occur, on {report.videos} videos, each half judged by the other"
    )


def parts_table(details: "Details") -> "Table":
    """The model's figures on parts of the queries, the location prior's R1@0.5 beside them."""
    from rich.table import Table

    from momentkit.train.compare import MODEL, PRIOR

    names = ("R1@0.5", "R1@0.7", "mIoU", "mAP")
    result = Table("", "queries", *names, "R1@0.5 of the prior")
    for column in result.columns[1:]:
        column.justify = "right"
    for scale, parts in details.parts[MODEL].items():
        for label, own in parts.items():
            if not own["queries"]:
                continue
            prior = details.parts.get(PRIOR, {}).get(scale, {}).get(label, {})
            cells = [cell(name, own, {}) for name in names] + [cell("R1@0.5", prior, {})]
            result.add_row(f"{scale}: {label}", str(own["queries"]), *cells)
    return result


def cell(name: str, figures: Mapping[str, float], deviation: Mapping[str, float]) -> str:
    """A figure with its deviation where there is one; "-" where there is no figure."""
    if name not in figures:
        return "-"
    return f"{figures[name]:.2f}" + (f" ± {deviation[name]:.2f}" if name in deviation else "")
