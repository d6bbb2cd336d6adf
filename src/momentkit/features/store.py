"""Feature files: read, written, normalised and joined the one way that training and inference share.

Read as published: `.npz` with one array a key, a bare `.npy`, a `.pt` of one tensor (see `bare_tensor`), or
one HDF5 file of all videos, named where a folder would be (see `hdf5`). A header is believed only after it
was compared with the bytes that are there; object arrays are refused, nothing is unpickled. Other pickles are
refused by name: on hostile input they run code.

Source   normalisation, cut, time channels: Moment-DETR's dataset class (specification: `x / (||x|| + 1e-5)`
         for each stream before joining, (i/T, i/T + 1/T) appended last)
Shapes   T clips   D video channels   L words   E text channels   N rows (clips or words)
"""

import json
import math
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from momentkit.core.contract import StreamContract
from momentkit.core.errors import FeatureError, FeatureMismatchError
from momentkit.core.files import atomic_write, read_bytes
from momentkit.features.bare_tensor import read_bare_tensor
from momentkit.features.hdf5 import entry_headers, entry_names, is_inside, read_entry

MAX_ARRAY_BYTES = 256 * 1024**2  # three hours of SlowFast + CLIP at one clip a second are 116 MiB
CONTRACT_FILE = "contract.json"
NORM_EPS, UNIT_EPS = 1e-5, 1e-12
_ENDINGS = (".npz", ".pt", ".npy")  # in the order in which the published loaders look
_PICKLE = "a pickle; convert it once: numpy.save(name, torch.load(file, weights_only=True).float().numpy())"
_HDF5 = (
    "an HDF5 file of one video; one file of all videos is read, where `folder` names the file itself: "
    "convert it once: numpy.save(video_id, file[key][:]) for each video"
)
_REFUSED = {".pth": _PICKLE, ".pkl": _PICKLE, ".h5": _HDF5, ".hdf5": _HDF5}
# What numpy, zipfile and zlib raise on damaged or hostile bytes.
_DAMAGE = (
    ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError, EOFError,
    OSError, RuntimeError, NotImplementedError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def find_features(path: str | Path) -> Path:
    """The feature file of a name given with or without its ending; `file.hdf5/name` is an entry of a file.

    Raises:
        FeatureError: none there, or only one in a format that is not read (the message says what would do).
        MissingExtraError: it is HDF5 and h5py is not installed.
    """
    path = Path(path)
    if is_inside(path):
        if path.name not in entry_names(path.parent):
            raise FeatureError(f"no entry {path.name!r} in {path.parent}")
        return path
    candidates = [path] if path.suffix in {*_ENDINGS, *_REFUSED} else []
    # Not `with_suffix`: a video id may hold dots ("id_60.0_210.0").
    candidates += [Path(f"{path}{ending}") for ending in (*_ENDINGS, *_REFUSED)]
    for candidate in candidates:
        if candidate.is_file():
            if candidate.suffix in _REFUSED:
                raise FeatureError(f"{candidate} is {_REFUSED[candidate.suffix]}")
            return candidate
    raise FeatureError(f"no feature file {path}, with one of the endings {', '.join(_ENDINGS)}")


def read_video_stream(
    path: str | Path, key: str = "features", limit_bytes: int = MAX_ARRAY_BYTES
) -> NDArray[np.float32]:
    """Clip features of one video, as the file holds them.

    Args:
        path: the file, with or without its ending.
        key: array of an `.npz`; `.npy` and `.pt` have only one.
        limit_bytes: the largest array that is read.

    Returns:
        (T, D) float32, not normalised.

    Raises:
        FeatureError: missing, damaged, too large, not (T, D) numbers, empty or not finite; names the file.
    """
    found = find_features(path)
    rows_TD = _read_array(found, key, limit_bytes)
    return _checked(rows_TD, f"{found}: {key}" if found.suffix == ".npz" else str(found))


def read_text(
    path: str | Path, key: str = "last_hidden_state", limit_bytes: int = MAX_ARRAY_BYTES
) -> NDArray[np.float32]:
    """Word features of one sentence, as the file holds them.

    Args:
        path: the file, with or without its ending.
        key: "last_hidden_state" (one row a word) or "pooler_output" (one row).
        limit_bytes: the largest array that is read.

    Returns:
        (L, E) float32, not normalised; a pooled vector (E,) comes back as (1, E).

    Raises:
        FeatureError: as `read_video_stream`.
    """
    found = find_features(path)
    rows_LE = _read_array(found, key, limit_bytes)
    if rows_LE.ndim == 1 and rows_LE.size:
        rows_LE = rows_LE[None]
    return _checked(rows_LE, f"{found}: {key}" if found.suffix == ".npz" else str(found))


def _checked(rows_ND: NDArray[np.float32], where: str) -> NDArray[np.float32]:
    if rows_ND.ndim != 2 or not rows_ND.size:
        raise FeatureError(f"{where} has shape {rows_ND.shape}; (rows, channels), neither 0, is wanted")
    if not np.isfinite(rows_ND).all():
        row = int(np.flatnonzero(~np.isfinite(rows_ND).all(1))[0])
        raise FeatureError(f"{where}: row {row} holds a number that is not finite; extract this file again")
    return rows_ND


def _read_array(path: Path, key: str, limit_bytes: int) -> NDArray[np.float32]:
    if is_inside(path):
        return _float32(read_entry(path, key, limit_bytes))
    try:
        if path.stat().st_size > limit_bytes:
            raise FeatureError(f"{path} has {path.stat().st_size} bytes; at most {limit_bytes} are read")
        if path.suffix == ".npy":
            with path.open("rb") as stream:
                return _parse_npy(stream, path.stat().st_size, str(path))
        with zipfile.ZipFile(path) as archive:
            if path.suffix == ".pt":
                return _float32(read_bare_tensor(archive, str(path), limit_bytes))
            names = archive.namelist()
            if f"{key}.npy" not in names:
                kept = ", ".join(name.removesuffix(".npy") for name in names[:8])
                raise FeatureError(f"{path} holds no array {key!r}; it holds {kept or 'nothing'}")
            if names.count(f"{key}.npy") > 1:  # readers differ in which one they take
                raise FeatureError(f"{path} holds {key!r} twice; extract it again")
            entry = archive.getinfo(f"{key}.npy")
            if entry.file_size > limit_bytes:
                raise FeatureError(
                    f"{path}: {key} inflates to {entry.file_size} bytes; at most {limit_bytes} are read"
                )
            with archive.open(entry) as stream:
                return _parse_npy(stream, entry.file_size, f"{path}: {key}")
    except _DAMAGE as error:
        raise FeatureError(f"{path} is damaged: {error or type(error).__name__}") from error


def _parse_npy(stream: IO[bytes], size: int, where: str) -> NDArray[np.float32]:
    """An array whose header was compared with the bytes behind it before any memory was asked for."""
    shape, fortran, dtype = _npy_header(stream, where)
    if dtype.kind != "f" or dtype.hasobject:
        raise FeatureError(f"{where} holds {dtype}; floating-point numbers are wanted")
    wanted, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if wanted != there or min(shape, default=0) < 0:
        raise FeatureError(f"{where} claims shape {shape} of {dtype}, {wanted} bytes, and holds {there}")
    values = np.frombuffer(stream.read(wanted), dtype).reshape(shape, order="F" if fortran else "C")
    return _float32(values)


def _float32(values: NDArray[np.floating]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused as such
        return np.ascontiguousarray(values, np.float32)


def _npy_header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise FeatureError(f"{where}: version {version} of the npy format is not read")


def read_headers(path: str | Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """What a feature file says it holds: key -> (shape, dtype); the key of `.npy` and `.pt` is "".

    Raises:
        FeatureError: missing or damaged.
    """
    found = find_features(path)
    if is_inside(found):
        return entry_headers(found)
    try:
        if found.suffix == ".npy":
            with found.open("rb") as stream:
                shape, _, dtype = _npy_header(stream, str(found))
                return {"": (shape, str(dtype))}
        headers = {}
        with zipfile.ZipFile(found) as archive:
            if found.suffix == ".pt":
                tensor = read_bare_tensor(archive, str(found), MAX_ARRAY_BYTES)
                return {"": (tensor.shape, str(tensor.dtype))}
            for name in archive.namelist():
                with archive.open(name) as stream:
                    shape, _, dtype = _npy_header(stream, str(found))
                    headers[name.removesuffix(".npy")] = (shape, str(dtype))
        return headers
    except _DAMAGE as error:
        raise FeatureError(f"{found} is damaged: {error or type(error).__name__}") from error


def write_features(
    path: str | Path, rows_ND: NDArray[np.floating], contract: StreamContract, key: str = "features"
) -> Path:
    """Write one feature file, and beside it the contract of its folder.

    Args:
        path: the file; `.npz` is appended where it is missing.
        rows_ND: (rows, channels), finite; stored as `contract.dtype`.
        contract: what the features are; one folder holds features of one contract.
        key: name of the array.

    Raises:
        FeatureError: not (rows, contract.dim), or not finite in that precision.
        FeatureMismatchError: the folder holds features of another contract.
    """
    path = Path(path) if Path(path).suffix == ".npz" else Path(f"{path}.npz")
    if rows_ND.ndim != 2 or rows_ND.shape[1] != contract.dim:
        raise FeatureError(
            f"{path}: shape {rows_ND.shape} does not fit the contract's {contract.dim} channels"
        )
    if contract.dtype not in ("float16", "float32"):
        raise FeatureError(f"{path}: features are stored as float16 or float32, not {contract.dtype}")
    with np.errstate(over="ignore"):
        stored = rows_ND.astype(contract.dtype)
    _checked(stored.astype(np.float32), str(path))
    kept = read_contract(path.parent)
    if kept is None:
        atomic_write(path.parent / CONTRACT_FILE, json.dumps(contract.model_dump(), indent=1) + "\n")
    else:
        require_stream(kept, contract, str(path.parent))

    def save(temporary: Path) -> None:
        # Written out, not as **{key: ...}: a key of `savez`'s own would be taken for an option.
        with zipfile.ZipFile(temporary, "w") as archive:
            entry = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, stored, version=(1, 0), allow_pickle=False)

    return atomic_write(path, save)


def read_contract(folder: str | Path) -> StreamContract | None:
    """The contract that lies beside feature files; None where the publisher gives none.

    Raises:
        FeatureError: there is one and it cannot be read.
    """
    path = Path(folder) / CONTRACT_FILE
    if not path.exists():
        return None
    try:
        return StreamContract.model_validate_json(read_bytes(path, 1024**2))
    except ValidationError as error:
        first = error.errors()[0]
        raise FeatureError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def require_stream(wanted: StreamContract, seen: StreamContract, where: str) -> None:
    """Refuse one stream's features that are not what was declared; a revision that is not declared fits any.

    Raises:
        FeatureMismatchError: names the first field that differs.
    """
    for field, value in wanted.model_dump().items():
        other = getattr(seen, field)
        if value != other and not (field == "revision" and not value):
            raise FeatureMismatchError(
                f"{where}: {field} of the features is {other!r}, expected {value!r}; "
                "use features of one contract, or correct the one that is declared"
            )


def l2_normalise(rows_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length one; a row of zeros stays zero. A new array."""
    return rows_ND / (np.linalg.norm(rows_ND, axis=-1, keepdims=True) + np.float32(NORM_EPS))


def prepare_rows(rows_ND: NDArray[np.float32], normalisation: str) -> NDArray[np.float32]:
    """Rows as a stream's contract wants them at the model's door.

    Args:
        rows_ND: as the file holds them.
        normalisation: "l2", x / (||x|| + 1e-5); "unit", x / max(||x||, 1e-12), as 2D-TAN and MomentDiff's C3D
            sets have it; or "none".

    Raises:
        FeatureError: another normalisation.
    """
    if normalisation not in ("l2", "unit", "none"):
        raise FeatureError(f'no normalisation {normalisation!r}; there are "l2", "unit" and "none"')
    if normalisation == "unit":
        length_N1 = np.linalg.norm(rows_ND, axis=-1, keepdims=True)
        return rows_ND / np.maximum(length_N1, np.float32(UNIT_EPS))
    return l2_normalise(rows_ND) if normalisation == "l2" else rows_ND


def average_rows(rows_TD: NDArray[np.float32], count: int, *, published: bool = False) -> NDArray[np.float32]:
    """A video of any length as `count` rows: the mean of each of `count` equal parts, (count, D).

    Borders are i/count * T, rounded half to even, or down where T < count; an empty part repeats the row at
    its border. Nothing is normalised again.

    Args:
        rows_TD: at least one row.
        count: how many rows come back.
        published: as MomentDiff and MS-2D-TAN do it, where the last row is left out of the last part (all
            borders are kept below T).
    """
    rows = len(rows_TD)
    share = np.arange(count + 1, dtype=np.float32) / np.float32(count) * np.float32(rows)
    border = (np.round(share) if rows >= count else np.floor(share)).astype(np.int64)
    first = np.minimum(border[:-1], rows - 1)
    end = np.minimum(border[1:], rows - 1 if published else rows)
    return np.stack([rows_TD[a : max(b, a + 1)].mean(0) for a, b in zip(first, end, strict=True)])


def join_streams(streams: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """Streams of one video side by side, each cut to the shortest.

    Args:
        streams: (T_i, D_i) each, normalised, in the order the contract declares.

    Returns:
        (T, sum of D_i) float32, and how many rows each stream lost.
    """
    clips = min(len(stream) for stream in streams)
    cut = tuple(len(stream) - clips for stream in streams)
    return np.concatenate([stream[:clips] for stream in streams], 1), cut


def time_channels(clips: int) -> NDArray[np.float32]:
    """The time channels (i/T, i/T + 1/T) of every clip, (T, 2); the last two of a model's video input."""
    start_T = np.arange(clips, dtype=np.float32) / np.float32(clips)
    return np.stack([start_T, start_T + np.float32(1.0 / clips)], 1)
