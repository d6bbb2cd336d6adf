"""Results into a file whose format its ending decides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from momentkit.core.errors import ConfigError, MomentkitError
from momentkit.core.files import atomic_write
from momentkit.predict.render import to_csv, to_json, to_vtt
from momentkit.predict.report import save_report
from momentkit.predict.timeline_svg import to_svg
from momentkit.predict.windows import Window

if TYPE_CHECKING:
    from momentkit.predict.result import Result

ENDINGS = (".json", ".csv", ".vtt", ".svg", ".html")


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
        MomentkitError: the path is a folder, or its folder cannot be made or written.
    """
    check_ending(path)
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
) -> Path:
    """Write results of one video into one file.

    Args:
        results: at least one; all of the same video.
        path: .json (an array, also for one result), .csv, .vtt, .svg or .html.
        film: the video file, for the player of the HTML report.
        truth: sentence -> true windows in seconds, drawn beside the found ones in SVG and HTML.

    Raises:
        ConfigError: another ending; lists those there are.
        MomentkitError: the file cannot be written.
    """
    ending = check_ending(path)
    if ending == ".html":
        return save_report(results, path, film=film, truth=truth)
    if ending == ".svg":
        return atomic_write(path, to_svg(results, truth))
    return atomic_write(path, {".json": to_json, ".csv": to_csv, ".vtt": to_vtt}[ending](results))
