"""`momentkit verify`: our implementation against stored runs of the published one."""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from momentkit.core.errors import ConfigError

if TYPE_CHECKING:
    from momentkit.verify.report import CaseResult

VERIFIERS = {
    "components": "momentkit.verify.components",
    "bm_detr": "momentkit.verify.bm_detr",
    "cg_detr": "momentkit.verify.cg_detr",
    "detr_family": "momentkit.verify.detr_family",
    "flashvtg": "momentkit.verify.flashvtg",
    "ld_detr": "momentkit.verify.ld_detr",
    "metrics": "momentkit.verify.metrics",
    "moment_detr": "momentkit.verify.moment_detr",
    "ms_2d_tan": "momentkit.verify.ms_2d_tan",
    "momentdiff": "momentkit.verify.momentdiff",
    "qd_detr": "momentkit.verify.qd_detr",
    "uvcom": "momentkit.verify.uvcom",
    "tr_detr": "momentkit.verify.tr_detr",
}


def command(
    name: Annotated[str, typer.Argument(help=f"What to verify: {', '.join(sorted(VERIFIERS))}.")],
    golden: Annotated[
        Path | None,
        typer.Option(help="Folder of stored runs. Default: tests/parity/NAME of a source checkout."),
    ] = None,
) -> None:
    """Replay stored runs and print the largest difference of each; exit 1 if any exceeds its tolerance."""
    if name not in VERIFIERS:
        raise ConfigError(f"nothing to verify for {name!r}; there are {', '.join(sorted(VERIFIERS))}")
    if golden is None:
        golden = Path(__file__).parents[3] / "tests" / "parity" / name
    if not golden.is_dir():
        raise ConfigError(f"no stored runs at {golden}; name their folder with --golden")
    run: Callable[[Path], Iterator[CaseResult]] = import_module(VERIFIERS[name]).run
    results = []
    for result in run(golden):
        results.append(result)
        typer.echo(line(result))
    failed = sum(not result.ok for result in results)
    if not results:
        raise ConfigError(f"{golden} holds no case; a case is a folder with a case.json")
    typer.echo(f"{len(results) - failed} of {len(results)} cases agree")
    if failed:
        raise typer.Exit(1)


def line(result: "CaseResult") -> str:
    """One case in one line: verdict, name, the stage closest to or furthest beyond its tolerance."""
    note = f"  [{result.note}]" if result.note else ""
    if not result.stages:
        return f"NOT RUN  {result.case}{note}"
    worst = max(
        result.stages, key=lambda stage: (not stage.ok, stage.difference / (stage.tolerance or 1e-300))
    )
    verdict = "ok     " if result.ok else "DIFFERS"
    return (
        f"{verdict}  {result.case:<36} {len(result.stages):>4} stages, worst {worst.difference:.1e} of "
        f"{worst.tolerance:.1e} at {worst.stage}{note}"
    )
