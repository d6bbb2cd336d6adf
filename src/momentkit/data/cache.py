"""Decoded features, each file read once: in memory, or in one memory-mapped file beside an index.

Shapes   N rows (clips or words)   D channels
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import DataError
from momentkit.core.files import atomic_write, read_bytes
from momentkit.features.store import is_inside

MAX_INDEX_BYTES = 256 * 1024**2


class Entry(NamedTuple):
    """Features of one video or sentence.

    Attributes:
        rows_ND: (N, D) float32, read-only.
        lost: how many rows each cut took; what the numbers stand for is the reader's.
    """

    rows_ND: NDArray[np.float32]
    lost: tuple[int, ...]


def load_entries(
    names: Sequence[str], read: Callable[[str], Entry], map_to: Path | None = None
) -> dict[str, Entry]:
    """Read every name once.

    Args:
        names: what to read, without repeats.
        read: name -> entry.
        map_to: file, without ending, that keeps the arrays between runs instead of memory. A map that is
            there is used, so its name must change with whatever decides the content (see `fingerprint`).

    Raises:
        DataError: the memory map is damaged.
    """
    if map_to is None:
        entries = {name: read(name) for name in names}
        for entry in entries.values():
            entry.rows_ND.flags.writeable = False
        return entries
    data, index = Path(f"{map_to}.f32"), Path(f"{map_to}.json")
    if not (data.exists() and index.exists()):
        _write_map(data, index, names, read)
    return _open_map(data, index)


def fingerprint(settings: str, files: Sequence[Path]) -> str:
    """A short name that changes with the settings and with path, size or time of any file."""
    digest = hashlib.sha256(settings.encode())
    for file in files:
        status = (file.parent if is_inside(file) else file).stat()
        digest.update(f"\n{file}|{status.st_size}|{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _write_map(data: Path, index: Path, names: Sequence[str], read: Callable[[str], Entry]) -> None:
    listed: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for name in names:
                entry = read(name)
                listed[name] = entry.rows_ND.shape, entry.lost
                file.write(np.ascontiguousarray(entry.rows_ND).data)

    atomic_write(data, save)
    atomic_write(index, json.dumps(listed))  # last: an index means that the data is whole


def _open_map(data: Path, index: Path) -> dict[str, Entry]:
    listed = json.loads(read_bytes(index, MAX_INDEX_BYTES))
    sizes = [rows * dim for (rows, dim), _ in listed.values()]
    flat = np.memmap(data, np.float32, "r")
    if len(flat) != sum(sizes):
        raise DataError(f"{data} does not fit {index.name}; delete both, they are made again")
    entries, start = {}, 0
    for (name, (shape, lost)), size in zip(listed.items(), sizes, strict=True):
        # A plain view: numpy's memmap class costs microseconds at every slice.
        rows_ND = np.asarray(flat[start : start + size]).reshape(shape)
        entries[name] = Entry(rows_ND, tuple(lost))
        start += size
    return entries
