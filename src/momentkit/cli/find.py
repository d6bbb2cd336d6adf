"""`momentkit find`: the moments of one film that answer one or more sentences."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from momentkit.core.errors import NothingFoundError

if TYPE_CHECKING:
    from momentkit.predict.grounder import EncodedVideo, Grounder
    from momentkit.predict.result import Result


def command(
    video: Path = typer.Argument(..., metavar="VIDEO", help="The film: mp4, mov, mkv, webm, avi or ts."),
    sentences: list[str] = typer.Argument(..., metavar="SENTENCE...", help="What to look for, in quotes."),
    model: str = typer.Option(
        "flashvtg",
        help="Bundled weights (see `momentkit models`), a .safetensors file, a run directory, or a hub id.",
    ),
    encoder: list[str] = typer.Option(
        [],
        help="tiny, clip, or where an encoder lies; by default what the weights need. Repeatable, for "
        "weights of several: CLIP's folder and the .safetensors of SlowFast, say.",
    ),
    top: int = typer.Option(5, help="Moments shown for each sentence."),
    min_confidence: float = typer.Option(
        0.0,
        help="0 to 1. No moment where the sentence occurs with a lower probability; of weights that are not "
        "calibrated to say so (`momentkit eval --calibrate`): no moment with a lower score.",
    ),
    steps: int | None = typer.Option(
        None, help="Denoising steps, of models that have them; by default what the weights say."
    ),
    proposals: int | None = typer.Option(
        None, help="Spans denoised together, of models that take any number; by default what the weights say."
    ),
    trace: bool = typer.Option(
        False, "--trace", help="Keep the spans of every denoising step: in JSON, and as a picture in reports."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print JSON, and nothing else, on standard output."),
    output: list[Path] = typer.Option(
        [],
        "-o",
        "--output",
        help="Also write this file: .json, .csv, .vtt, .svg or .html; editors: .otio, .edl, .fcpxml, .mp4; "
        "repeatable.",
    ),
    exact: bool = typer.Option(
        False, "--exact", help="Encode an .mp4 again, exact to the frame; else it is copied from key frames."
    ),
) -> None:
    """Find moments in a film. Exit code 3 when no sentence has a moment that clears the threshold."""
    from momentkit.predict.grounder import load
    from momentkit.predict.questions import check_thresholds, checked_sentences
    from momentkit.predict.render import to_json
    from momentkit.predict.sampling import check_sampling
    from momentkit.predict.save import DOCUMENT_ENDINGS, check_writable, save_results
    from momentkit.video.probe import probe

    # Everything a typing error can break is checked before the film is read.
    checked_sentences(sentences)
    check_thresholds(top, min_confidence)
    check_sampling(steps, proposals)
    for path in output:
        check_writable(path)
    info = probe(video)
    for warning in info.warnings:
        note(warning)
    grounder = load(model, encoder=encoder).sampled(steps=steps, proposals=proposals)
    if trace:
        grounder.check_trace()
    encoded = encode_with_bar(grounder, video)
    results = grounder.find(encoded, sentences, top=top, min_confidence=min_confidence, trace=trace)
    if as_json:
        print(to_json(results), end="")
    else:
        _show(results, f"weights {grounder.name}, trained on {grounder.card.trained_on or 'unnamed data'}")
    found = any(result.moments for result in results)
    for path in output:
        if found or path.suffix.lower() in DOCUMENT_ENDINGS:  # there is no cut of nothing
            save_results(results, path, film=video, exact=exact, say=note)
    if not found:
        raise NothingFoundError(f"nothing in {video} is found with a confidence of {min_confidence} or more")


def note(sentence: str) -> None:
    """Say something a person should know where it does not mix with the answer.

    Args:
        sentence: goes to standard error.
    """
    print(f"momentkit: note: {sentence}", file=sys.stderr)


def encode_with_bar(grounder: "Grounder", video: Path) -> "EncodedVideo":
    """Encode a film, with a progress bar on standard error where that is a terminal.

    Args:
        grounder: whose encoder is used.
        video: the film.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("reading the film", total=None)
        return grounder.encode(
            video, progress=lambda done, clips: bar.update(task, completed=done, total=clips)
        )


def _show(results: list["Result"], origin: str) -> None:
    from rich.console import Console
    from rich.text import Text

    from momentkit.predict.render import remarks, to_table

    console = Console()
    for index, result in enumerate(results):
        if index:
            console.print()
        console.print(to_table(result))
        for line in remarks(result):
            console.print(Text(line))
    console.print(Text(f"\n{origin}", style="dim"))
