"""Results into a file whose format its ending decides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from momentkit.core.errors import ConfigError, MomentkitError
from momentkit.core.files import atomic_write
from momentkit.predict.export import (
    EDIT_ENDINGS,
    Piece,
    Say,
    measure_source,
    pieces_of,
    require_export,
    save_cut,
    save_timeline,
)
from momentkit.predict.render import to_csv, to_json, to_vtt
from momentkit.predict.report import save_report
from momentkit.predict.timeline_svg import to_svg
from momentkit.predict.windows import Window

if TYPE_CHECKING:
    from momentkit.predict.result import Result

DOCUMENT_ENDINGS = (".json", ".csv", ".vtt", ".svg", ".html")
ENDINGS = (*DOCUMENT_ENDINGS, *EDIT_ENDINGS)


def check_ending(path: str | Path) -> str:
    """The ending of a file that results can be written to, in small letters.

    Raises:
        ConfigError: another ending; lists those there are.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        seen = f"the ending {ending!r}" if ending else "no ending"
        raise ConfigError(f"{path} has {seen}; results are written to {', '.join(ENDINGS)}")
    return ending


def check_writable(path: str | Path) -> None:
    """Find out before long work whether a result can be written there; leaves no trace.

    Raises:
        ConfigError: an ending without a format.
        MissingExtraError: a format whose writer is not installed.
        MomentkitError: the path is a folder, or its folder cannot be made or written.
    """
    require_export(check_ending(path))
    path = Path(path)
    if path.is_dir():
        raise MomentkitError(f"cannot write {path}: it is a folder; name a file in it")
    probe = path.parent / f".{path.name}.probe"
    folders = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    atomic_write(probe, b"")
    probe.unlink()
    for folder in folders:
        folder.rmdir()


def save_results(
    results: Sequence["Result"],
    path: str | Path,
    film: str | Path | None = None,
    truth: Mapping[str, Sequence[Window]] | None = None,
    *,
    exact: bool = False,
    say: Say | None = None,
) -> Path:
    """Write results of one video into one file.

    A timeline (.otio, .edl, .fcpxml) holds every moment, sentence by sentence, best first. An .mp4 holds the
    best moment of each sentence, in order of time.

    Args:
        results: at least one; all of the same video.
        path: .json (an array, also for one result), .csv, .vtt, .svg, .html, .otio, .edl, .fcpxml or .mp4.
        film: the video file, which .html plays and the formats for editors need.
        truth: sentence -> true windows in seconds, drawn beside the found ones in SVG and HTML.
        exact: encode an .mp4 again so that it is exact to the frame; else it is copied from key frames on.
        say: told how an .mp4 was cut.

    Raises:
        ConfigError: another ending, or a cut of a film that is not known.
        MissingExtraError: .otio and .edl without OpenTimelineIO.
        MomentkitError: the file cannot be written.
    """
    ending = check_ending(path)
    if ending in EDIT_ENDINGS:
        best = [piece for piece in pieces_of(results) if piece.rank == 1 or ending != ".mp4"]
        return save_pieces(best, path, film, exact=exact, say=say)
    if ending == ".html":
        return save_report(results, path, film=film, truth=truth)
    if ending == ".svg":
        return atomic_write(path, to_svg(results, truth))
    return atomic_write(path, {".json": to_json, ".csv": to_csv, ".vtt": to_vtt}[ending](results))


def save_pieces(
    pieces: Sequence[Piece],
    path: str | Path,
    film: str | Path | None,
    *,
    exact: bool = False,
    say: Say | None = None,
) -> Path:
    """Write pieces of a film for an editor: .otio, .edl, .fcpxml or .mp4; see `save_results`."""
    ending = check_ending(path)
    require_export(ending)
    if film is None:
        raise ConfigError(f"{path} is cut from the film, and which file that is is not known; give film=")
    source = measure_source(film)
    if say is not None and not source.grid.steady:
        rate = f"{float(source.grid.rate):g} frames a second"
        say(f"frames of uneven length: {Path(path).name} counts at {rate}")
    if ending != ".mp4":
        return save_timeline(pieces, source, path)
    report = save_cut(pieces, source, path, exact=exact)
    if say is not None:
        say(report.sentence)
    return report.path
