"""Moments for an editor: pieces of a film, counted in frames, as OTIO, EDL, FCPXML or a cut mp4.

Every format holds the pieces behind each other on one track, in the order given. In and out come from one
frame grid (see `momentkit.video.grid`), so all of them name the same frames.

OTIO and EDL go through OpenTimelineIO and its adapter; FCPXML is written here, since the adapter for it does
not load on any Python we support.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momentkit.core.errors import ConfigError, MissingExtraError
from momentkit.core.files import atomic_write
from momentkit.predict.fcpxml import to_fcpxml
from momentkit.predict.render import clock, one_line
from momentkit.video.cut import CutReport, cut_film
from momentkit.video.grid import FrameGrid, frame_grid
from momentkit.video.limits import DEFAULT_LIMITS, VideoLimits
from momentkit.video.probe import VideoInfo, probe

if TYPE_CHECKING:
    from momentkit.predict.result import Result

TIMELINE_ENDINGS = (".otio", ".edl", ".fcpxml")
EDIT_ENDINGS = (*TIMELINE_ENDINGS, ".mp4")
_EDL_EVENTS = 999  # the format counts its events with three digits
_EDL_RATES = tuple(Fraction(rate) for rate in ("24000/1001", 24, 25, "30000/1001", 30))

Say = Callable[[str], object]
"""Told a sentence on how a film was cut."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of a film for an editor.

    Attributes:
        name: what it shows.
        start_s, end_s: seconds.
        score: of the moment.
        rank: 1 is the best of its sentence.
    """

    name: str
    start_s: float
    end_s: float
    score: float
    rank: int = 1


@dataclass(frozen=True, kw_only=True)
class Source:
    """The film that pieces are cut from.

    Attributes:
        path: absolute.
        info: as measured.
        grid: its frames.
    """

    path: Path
    info: VideoInfo
    grid: FrameGrid


def pieces_of(results: Sequence["Result"]) -> list[Piece]:
    """Every moment, sentence by sentence, best first."""
    return [
        Piece(name=one_line(result.query), rank=rank, **moment.model_dump())
        for result in results
        for rank, moment in enumerate(result.moments, 1)
    ]


def measure_source(film: str | Path, limits: VideoLimits = DEFAULT_LIMITS) -> Source:
    """Measure the film that is cut.

    Raises:
        VideoError: it cannot be read.
    """
    info = probe(film, limits)
    return Source(path=Path(film).absolute(), info=info, grid=frame_grid(film, limits, info))


def require_export(ending: str) -> None:
    """Refuse an ending whose writer is not installed, before any work is done for it.

    Raises:
        MissingExtraError: names the extra.
    """
    if ending in (".otio", ".edl"):
        _otio(ending)


def _otio(ending: str) -> Any:
    try:
        import opentimelineio
        import otio_cmx3600_adapter  # noqa: F401  the adapter that OpenTimelineIO finds by its entry point
    except ImportError as error:
        raise MissingExtraError(
            f"{ending} files are written by OpenTimelineIO, which is not installed: "
            f"pip install 'momentkit[export]'"
        ) from error
    return opentimelineio


def save_timeline(pieces: Sequence[Piece], source: Source, path: str | Path) -> Path:
    """Write pieces as a timeline in the format of the ending: .otio, .edl or .fcpxml.

    Raises:
        ConfigError: no piece, or a rate or number of pieces that the format has no place for.
        MissingExtraError: OpenTimelineIO is not installed.
        MomentkitError: the file cannot be written.
    """
    path = Path(path)
    if not pieces:
        raise ConfigError(f"{path.name} would hold no moment; write .json for an empty answer")
    ending = path.suffix.lower()
    if ending == ".fcpxml":
        frames = [source.grid.stretch(piece.start_s, piece.end_s) for piece in pieces]
        names = [(piece.name, _note(piece)) for piece in pieces]
        info = source.info
        text = to_fcpxml(source.path, source.grid, (info.height, info.width), info.has_audio, frames, names)
        return atomic_write(path, text)
    if ending == ".edl":
        return atomic_write(path, _edl(pieces, source, path.name))
    return atomic_write(path, _timeline(pieces, source).to_json_string(indent=2) + "\n")


def save_cut(pieces: Sequence[Piece], source: Source, path: str | Path, *, exact: bool = False) -> CutReport:
    """Cut pieces into an mp4 in order of time; what overlaps is shown once.

    Raises:
        MomentkitError: no piece, a codec that cannot be copied, or a file that cannot be written.
    """
    stretches = joined([source.grid.stretch(piece.start_s, piece.end_s) for piece in pieces])
    return cut_film(source.path, stretches, path, exact=exact, grid=source.grid)


def joined(stretches: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Stretches in order, those that overlap or touch made one.

    >>> joined([(50, 60), (0, 10), (5, 20), (20, 25)])
    [(0, 25), (50, 60)]
    """
    result: list[tuple[int, int]] = []
    for first, end in sorted(stretches):
        if result and first <= result[-1][1]:
            result[-1] = result[-1][0], max(end, result[-1][1])
        else:
            result.append((first, end))
    return result


def _note(piece: Piece) -> str:
    return (
        f"moment {piece.rank}, score {piece.score:.2f}, {clock(piece.start_s, 1)} to {clock(piece.end_s, 1)}"
    )


def _timeline(pieces: Sequence[Piece], source: Source) -> Any:
    otio = _otio(".otio")
    grid = source.grid

    def time(frame: int) -> Any:
        return otio.opentime.RationalTime(frame, float(grid.rate))

    def stretch(first: int, end: int) -> Any:
        return otio.opentime.TimeRange(time(grid.first_frame + first), time(end - first))

    track = otio.schema.Track(name="moments", kind=otio.schema.TrackKind.Video)
    for piece in pieces:
        media = otio.schema.ExternalReference(source.path.as_uri(), stretch(0, grid.frames))
        media.name = source.path.name
        clip = otio.schema.Clip(
            name=piece.name,
            media_reference=media,
            source_range=stretch(*grid.stretch(piece.start_s, piece.end_s)),
            metadata={
                "momentkit": {
                    "rank": piece.rank,
                    "score": piece.score,
                    "start_s": piece.start_s,
                    "end_s": piece.end_s,
                },
                "cmx_3600": {"reel": _reel(source.path), "comments": [_note(piece)]},
            },
        )
        track.append(clip)
    timeline = otio.schema.Timeline(name=f"moments of {one_line(source.path.name)}")
    timeline.tracks.append(track)
    return timeline


def _reel(path: Path) -> str:
    """Eight letters or digits, as the oldest readers of the format ask."""
    letters = "".join(letter for letter in path.stem if letter.isascii() and letter.isalnum())
    return (letters or "AX")[:8].ljust(8)


def _edl(pieces: Sequence[Piece], source: Source, name: str) -> str:
    grid = source.grid
    if grid.rate not in _EDL_RATES:
        raise ConfigError(
            f"{name}: an EDL counts at 23.976, 24, 25, 29.97 or 30 frames a second, the film has "
            f"{float(grid.rate):g}; write .otio or .fcpxml"
        )
    if len(pieces) > _EDL_EVENTS:
        raise ConfigError(
            f"{name}: an EDL holds {_EDL_EVENTS} moments, there are {len(pieces)}; write .otio or take fewer"
        )
    otio = _otio(".edl")
    text = str(otio.adapters.write_to_string(_timeline(pieces, source), "cmx_3600", rate=float(grid.rate)))
    title, rest = text.split("\n", 1)
    # The adapter counts 29.97 with dropped numbers always, and writes no line that says so.
    mode = "DROP FRAME" if grid.rate == Fraction(30000, 1001) else "NON-DROP FRAME"
    return f"{title}\nFCM: {mode}\n{rest}"
