"""One HDF5 file of many videos, read as if it were a folder: `features.hdf5/<video id>`.

2D-TAN, MS-2D-TAN and the ActivityNet C3D release are such files: a data set for each video, or a group of
them. HDF5 is read by a native library that is no match for hostile files, and a file can name other files
by links: links are refused, as is what is no floating-point array. Read files of a publisher you trust.

Needs h5py: the extra `hdf5`.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import FeatureError, MissingExtraError

ENDINGS = (".hdf5", ".h5")


def is_inside(path: Path) -> bool:
    """Whether a path is that of an entry of an HDF5 file."""
    return path.parent.suffix in ENDINGS and path.parent.is_file()


def entry_names(file: Path) -> frozenset[str]:
    """Names of the videos of a file.

    Raises:
        MissingExtraError: h5py is not installed.
        FeatureError: the file is damaged.
    """
    return _names(str(file), file.stat().st_mtime_ns)


def read_entry(path: Path, key: str, limit_bytes: int) -> NDArray[np.floating]:
    """The array of one video.

    Args:
        path: file and name.
        key: array of a video that has several; unused where the video is one array.
        limit_bytes: the largest array that is read.

    Raises:
        FeatureError: no such array, too large, a link, or no floating-point numbers; names file and video.
        MissingExtraError: h5py is not installed.
    """
    h5py = _h5py()
    with _opened(path.parent) as file:
        found = _linked(file, path.name, path)
        if isinstance(found, h5py.Group):
            if key not in found:
                kept = ", ".join(list(found)[:8]) or "nothing"
                raise FeatureError(f"{path} holds no array {key!r}; it holds {kept}")
            found = _linked(found, key, path)
        if not isinstance(found, h5py.Dataset) or found.dtype.kind != "f":
            raise FeatureError(f"{path} is no array of floating-point numbers")
        if found.is_virtual or found.external:
            raise FeatureError(f"{path} takes its numbers from other files, which is not followed")
        if found.nbytes > limit_bytes:
            raise FeatureError(f"{path} has {found.nbytes} bytes; at most {limit_bytes} are read")
        rows: NDArray[np.floating] = found[()]
    return rows


def entry_headers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of each array of one video; the key is "" where there is but one array."""
    h5py = _h5py()
    with _opened(path.parent) as file:
        found = _linked(file, path.name, path)
        arrays = {"": found} if isinstance(found, h5py.Dataset) else dict(found.items())
        return {
            name: (tuple(array.shape), str(array.dtype))
            for name, array in arrays.items()
            if isinstance(array, h5py.Dataset)
        }


def _linked(group: Any, name: str, path: Path) -> Any:
    if not isinstance(group.get(name, getlink=True), _h5py().HardLink):
        raise FeatureError(f"{path} is a link to another place, which is not followed; copy the array there")
    return group[name]


@lru_cache(maxsize=16)
def _names(file: str, _modified: int) -> frozenset[str]:
    with _opened(Path(file)) as opened:
        return frozenset(opened)


def _opened(file: Path) -> Any:
    try:
        return _h5py().File(file, "r")
    except OSError as error:
        raise FeatureError(f"{file} is damaged, or no HDF5 file: {error}") from error


def _h5py() -> Any:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "HDF5 feature files need h5py, which is not installed: pip install 'momentkit[hdf5]'"
        ) from error
    return h5py
