"""A folder held against what a published data set should hold: counts, missing files, missing features."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from momentkit.core.errors import DataError, FeatureError, MomentkitError
from momentkit.core.types import Query
from momentkit.data.annotations import AnnotationReport
from momentkit.data.catalog import Part, Published
from momentkit.data.forms import load_form
from momentkit.data.info import look_into
from momentkit.features.hdf5 import ENDINGS as HDF5_ENDINGS
from momentkit.features.hdf5 import entry_names

_PATTERNS = ("{vid}", "{vid}_rgb", "{vid}_opt", "qid{qid}", "{qid}")
_DEEPEST = 4
_SHOWN = 5


@dataclass
class PartFindings:
    """One annotation file of a data set.

    Attributes:
        part: what was looked for.
        path: where it was found; None where it was not.
        differs: a sentence for each count that is not the expected one, or for a file that cannot be read.
        notes: what was mended.
        queries: the rows.
    """

    part: Part
    path: Path | None = None
    differs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    queries: tuple[Query, ...] = ()


@dataclass(frozen=True)
class Coverage:
    """One folder of features, or HDF5 file, and the rows it has files for.

    Attributes:
        folder: where.
        pattern: how its files are named.
        of: split -> (names that are there, names that are wanted).
        lacking: the first names that are not there.
    """

    folder: Path
    pattern: str
    of: dict[str, tuple[int, int]]
    lacking: tuple[str, ...]


def hold_against(published: Published, root: Path) -> list[PartFindings]:
    """Find and count each annotation file.

    Raises:
        DataError: none of them is below the folder.
    """
    lengths = next((path for name in published.lengths if (path := _find(root, name))), None)
    found = [_part(part, published, root, lengths) for part in published.parts]
    if not any(one.path for one in found):
        names = ", ".join(part.files[0] for part in published.parts)
        raise DataError(f"{root} holds no annotation file of {published.title}; wanted are {names}")
    return found


def covered(findings: Sequence[PartFindings], root: Path) -> list[Coverage]:
    """Feature folders and files below a folder that belong to these rows."""
    result = []
    for place in _feature_places(root):
        names = _names(place)
        whole = {one.part.name: _wanted(one.queries) for one in findings if one.queries}
        hits = {
            pattern: sum(len(names & wanted[pattern]) for wanted in whole.values()) for pattern in _PATTERNS
        }
        pattern = max(hits, key=lambda each: hits[each])
        if not hits[pattern]:
            continue
        lacking = sorted(set().union(*(wanted[pattern] for wanted in whole.values())) - names)
        counts = {
            name: (len(names & wanted[pattern]), len(wanted[pattern])) for name, wanted in whole.items()
        }
        result.append(Coverage(place, pattern, counts, tuple(lacking[:_SHOWN])))
    return result


def _part(part: Part, published: Published, root: Path, lengths: Path | None) -> PartFindings:
    found = PartFindings(part, next((path for name in part.files if (path := _find(root, name))), None))
    if found.path is None:
        return found
    try:
        report = load_form(found.path, published.layout, published.rules, lengths)
    except MomentkitError as error:
        found.differs.append(str(error))
        return found
    found.queries = report.queries
    found.notes = [sentence.removeprefix(f"{found.path}: ") for sentence in report.mended()]
    found.differs = [
        f"{what}: {seen}, expected {wanted}"
        for what, seen, wanted in _counts(part, report)
        if wanted and seen != wanted
    ]
    return found


def _counts(part: Part, report: AnnotationReport) -> Iterable[tuple[str, int, int]]:
    queries = report.queries
    windows = sum(len(query.windows_s or ()) for query in queries)
    return (
        ("rows", report.rows, part.rows),
        ("rows kept", len(queries), part.kept or part.rows),
        ("videos", len({query.vid for query in queries}), part.videos),
        ("windows", windows, part.windows),
        ("different qids", len({query.qid for query in queries}), part.qids or part.kept or part.rows),
    )


def _find(root: Path, name: str) -> Path | None:
    for depth in range(_DEEPEST + 1):
        for ending in ("", ".gz"):
            if found := sorted(root.glob("*/" * depth + name + ending)):
                return found[0]
    return None


def _feature_places(root: Path) -> list[Path]:
    try:
        folders = look_into(root).features
    except DataError:
        folders = ()
    files = [path for depth in range(_DEEPEST + 1) for path in sorted(root.glob("*/" * depth + "*"))]
    return [*folders, *(path for path in files if path.suffix in HDF5_ENDINGS and path.is_file())]


def _names(place: Path) -> frozenset[str]:
    if place.is_file():
        try:
            return entry_names(place)
        except FeatureError:
            return frozenset()
    return frozenset(path.name.removesuffix(path.suffix) for path in place.iterdir())


def _wanted(queries: Sequence[Query]) -> dict[str, frozenset[str]]:
    return {
        pattern: frozenset(pattern.format(vid=query.vid, qid=query.qid) for query in queries)
        for pattern in _PATTERNS
    }
