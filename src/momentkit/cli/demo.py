"""`momentkit demo`: the first run; a film with planted events, questions about it, and a report."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from momentkit.predict.result import Result
    from momentkit.predict.windows import Window

HEIGHT, WIDTH, FPS = 360, 640, 24
Truth = Mapping[str, Sequence["Window"]]


def command(
    output: Path = typer.Option(
        Path("demo_out"), "-o", "--output", help="Folder for film, report and result."
    ),
    seed: int = typer.Option(0, help="Another number, another film."),
    model: str = typer.Option(
        "flashvtg", help="Bundled weights (see `momentkit models`), or others that know the synthetic world."
    ),
) -> None:
    """Render a short film with planted events, find them, and write a report. Needs no network."""
    from rich.console import Console

    from momentkit.data.synthetic.demo import demo_film
    from momentkit.data.synthetic.film import write_film
    from momentkit.predict.grounder import load
    from momentkit.predict.save import check_writable, save_results

    console = Console(highlight=False, markup=False)
    began_s = time.monotonic()
    film, report = output / "film.mp4", output / "report.html"
    check_writable(report)
    _check_world(model)
    demo = demo_film(seed)
    truth = {question.text: question.windows_s for question in demo.questions}
    with _step(console, "loading the model and its encoders"):
        grounder = load(model)
    with _step(console, f"drawing a film of {demo.film.duration_s} s"):
        write_film(demo.film, film, height=HEIGHT, width=WIDTH, fps=FPS)
    with _step(console, "watching the film, frame by frame"):
        video = grounder.encode(film)
    with _step(console, f"asking {len(truth)} questions in one pass"):
        results = grounder.find(video, list(truth), top=5)
    save_results(results, report, film=film, truth=truth)
    save_results(results, output / "result.json")
    console.print(_table(results, truth))
    console.print(f"{_summary(results, truth)} {time.monotonic() - began_s:.1f} s in all.\n")
    named = "" if model == "flashvtg" else f" --model {model}"
    suits = "(`momentkit models` says which weights suit it)"
    for line in (
        f"Watch it:  open {report} in a browser",
        f'Ask more:  momentkit find {film} "{results[0].query}"{named} -o moments.html',
        f'Your film: momentkit find YOUR.mp4 "what happens" {suits}',
    ):
        console.print(line, soft_wrap=True)


@contextmanager
def _step(console: "Console", text: str) -> Iterator[None]:
    """Say what goes on and how long it took."""
    began_s = time.monotonic()
    console.print(f"{text} ... ", end="")
    try:
        yield
    except BaseException:
        console.print()  # the error gets a line of its own
        raise
    console.print(f"{time.monotonic() - began_s:.1f} s")


def _check_world(model: str) -> None:
    """Refuse weights of footage: they have seen nothing like the film, which is drawn."""
    from momentkit.core.errors import FeatureMismatchError
    from momentkit.features.encoders import TINY_PREFIX
    from momentkit.predict.weights import read_grounder_weights

    weights = read_grounder_weights(model)
    if not weights.contract.text.encoder.startswith(TINY_PREFIX):
        raise FeatureMismatchError(
            f"the demo draws a film of the synthetic world, and {model} was trained on "
            f"{weights.card.trained_on}; ask it of footage: momentkit find VIDEO 'sentence' --model {model}"
        )


def _table(results: Sequence["Result"], truth: Truth) -> "Table":
    """Asked, true, found and how well they fit."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="\nWhat was asked, planted and found", title_justify="left")
    table.add_column("asked")
    for name in ("true", "found", "score", "IoU"):
        table.add_column(name, no_wrap=True)
    for result in results:
        windows = truth[result.query]
        table.add_row(Text(result.query), _lines(windows) or "absent", *_found(result, windows))
    return table


def _lines(windows: Sequence["Window"]) -> str:
    from momentkit.predict.render import clock

    return "\n".join(f"{clock(start_s, 1)} - {clock(end_s, 1)}" for start_s, end_s in windows)


def _found(result: "Result", windows: Sequence["Window"]) -> tuple[str, str, str]:
    """As many moments as there are true ones, and their fit; or that the film does not show it."""
    from momentkit.predict.windows import best_overlap

    chance = result.not_found_probability
    if result.absent:
        return f"absent ({chance:.0%})", "", "wrong" if windows else "right"
    moments = sorted(result.moments[: max(1, len(windows))], key=lambda moment: moment.start_s)
    unfit = "wrong" if chance is not None else "-"  # uncalibrated weights do not claim that it is there
    fits = [f"{best_overlap(moment, windows):.2f}" if windows else unfit for moment in moments]
    found = _lines([(moment.start_s, moment.end_s) for moment in moments])
    return found or "nothing", "\n".join(f"{moment.score:.2f}" for moment in moments), "\n".join(fits)


def _summary(results: Sequence["Result"], truth: Truth) -> str:
    from momentkit.predict.windows import best_overlap

    fits = [
        best_overlap(result.best, truth[result.query]) if result.best else 0.0
        for result in results
        if truth[result.query]
    ]
    good = sum(fit >= 0.5 for fit in fits)
    mean = sum(fits) / len(fits)
    line = f"{good} of {len(fits)} events found with an IoU of 0.5 or more, {mean:.2f} on average"
    said = [result for result in results if result.not_found_probability is not None]
    right = sum(result.absent != bool(truth[result.query]) for result in said)
    return f"{line}; {right} of {len(said)} right on whether it occurs." if said else f"{line}."
