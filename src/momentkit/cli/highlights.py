"""`momentkit highlights`: a reel of one film, with or without a sentence that says what it is about."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from momentkit.cli.find import encode_with_bar, note

if TYPE_CHECKING:
    from momentkit.predict.result import Result


def command(
    video: Path = typer.Argument(..., metavar="VIDEO", help="The film: mp4, mov, mkv, webm, avi or ts."),
    sentence: str | None = typer.Argument(
        None,
        metavar="[SENTENCE]",
        help="What the reel is about, in quotes; without it: what is rare here.",
    ),
    length: str = typer.Option("30s", help="Length of the reel at most: 30s, 1m30s, 90."),
    model: str = typer.Option("flashvtg", help="Weights, as for `momentkit find`."),
    encoder: list[str] = typer.Option([], help="As for `momentkit find`."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON, and nothing else, on standard output."),
    output: list[Path] = typer.Option(
        [],
        "-o",
        "--output",
        help="Write the reel: .mp4, .otio, .edl or .fcpxml; or what was taken: .json, .csv, .vtt, .svg or "
        ".html; repeatable.",
    ),
    exact: bool = typer.Option(
        False, "--exact", help="Encode an .mp4 again, exact to the frame; else it is copied from key frames."
    ),
) -> None:
    """Make a reel from the most salient stretches of a film, in order of time."""
    from momentkit.predict.export import EDIT_ENDINGS, Piece
    from momentkit.predict.grounder import load
    from momentkit.predict.highlights import in_time, make_reel, parse_length
    from momentkit.predict.questions import checked_sentences
    from momentkit.predict.render import one_line, to_json
    from momentkit.predict.save import check_writable, save_pieces, save_results
    from momentkit.video.probe import probe

    # Everything a typing error can break is checked before the film is read.
    length_s = parse_length(length)
    if sentence is not None:
        checked_sentences(sentence)
    for path in output:
        check_writable(path)
    for warning in probe(video).warnings:
        note(warning)
    grounder = load(model, encoder=encoder)
    encoded = encode_with_bar(grounder, video)
    result = make_reel(grounder, encoded, sentence, length_s=length_s)
    if as_json:
        print(to_json(result), end="")
    else:
        _show(result, length_s)
    ranks = {moment: rank for rank, moment in enumerate(result.moments, 1)}
    pieces = [
        Piece(name=one_line(result.query), rank=ranks[moment], **moment.model_dump())
        for moment in in_time(result.moments)
    ]
    for path in output:
        if path.suffix.lower() in EDIT_ENDINGS:
            save_pieces(pieces, path, video, exact=exact, say=note)
        else:
            save_results([result], path, film=video)


def _show(result: "Result", length_s: float) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from momentkit.predict.highlights import UNASKED, in_time
    from momentkit.predict.render import clock, one_line, remarks

    console = Console()
    table = Table("start", "end", "seconds", "saliency", title=Text(one_line(result.query), style="bold"))
    table.title_justify = "left"
    for moment in in_time(result.moments):
        seconds = f"{moment.end_s - moment.start_s:.1f}"
        table.add_row(clock(moment.start_s, 1), clock(moment.end_s, 1), seconds, f"{moment.score:.2f}")
    console.print(table)
    count, total_s = len(result.moments), sum(moment.end_s - moment.start_s for moment in result.moments)
    took = f"took {count} {'stretch' if count == 1 else 'stretches'}, {total_s:.1f} s of {length_s:g} s"
    console.print(Text(f"{took}, from a film of {clock(result.duration_s)}"))
    if result.query == UNASKED and result.model == "rarity":
        console.print(Text("without a sentence: the clips that look least like the rest of the film"))
    for line in remarks(result):
        console.print(Text(line))
