"""Files written whole or not at all, read with a limit, known by their checksum.

The only place in `core` that opens a file. Standard library only.
"""

import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from momentkit.core.errors import DataError, MomentkitError, NotFiniteError

MAX_TEXT_BYTES = 2 * 1024**3  # an annotation file above this is a mistake, not a data set
MAX_LINE_BYTES = 64 * 1024**2


def atomic_write(path: str | Path, write: bytes | str | Callable[[Path], object]) -> Path:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: the target; its folder is made if missing.
        write: the content, or a function that writes it to the temporary path it is given.

    Returns:
        The target as a `Path`.

    Raises:
        MomentkitError: the folder cannot be written, or the disk is full; the old file is left as it was.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name keeps the ending: writers such as PyAV choose the format by it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}")
        os.close(handle)
        temporary = Path(name)
        if callable(write):
            write(temporary)
        else:
            temporary.write_bytes(write.encode() if isinstance(write, str) else write)
        temporary.chmod(0o644)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise MomentkitError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def _sync_folder(folder: Path) -> None:
    """A rename is atomic but durable only once its folder reached the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: str | Path) -> str:
    """Checksum of a file, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(path: str | Path, limit_bytes: int) -> bytes:
    """Read a whole file that must not exceed a size.

    Raises:
        DataError: missing, a folder, unreadable, or larger than `limit_bytes`.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise DataError(f"{path} is not a file")
        if size > limit_bytes:
            raise DataError(f"{path} has {size} bytes; at most {limit_bytes} are read")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def read_json_lines(
    path: str | Path, on_error: Callable[[int, DataError], None] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a JSON-lines file, with 1-based line numbers.

    Plain or gzip, LF or CRLF, final newline optional. NaN and Infinity, which are not JSON, are
    refused. Blank lines are passed over.

    Args:
        path: the file.
        on_error: called with line number and error for a line that is no row; reading goes on behind it.
            None: the error is raised.

    Raises:
        DataError: unreadable, not UTF-8, not JSON, not an object; names file and line.
    """
    for number, line in read_lines(path):
        try:
            row = _parse_row(line, f"{path}:{number}")
        except DataError as error:
            if on_error is None:
                raise
            on_error(number, error)
        else:
            yield number, row


def read_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Lines of a text file, plain or gzip, with 1-based numbers; blank lines are passed over.

    Raises:
        DataError: unreadable, too large, or a line too long.
    """
    path = Path(path)
    number = 0
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise DataError(f"{path} has {path.stat().st_size} bytes; at most {MAX_TEXT_BYTES} are read")
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise DataError(f"{path}:{number}: the line is longer than {MAX_LINE_BYTES} bytes")
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _parse_row(line: bytes, where: str) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise NotFiniteError(f"{where}: {constant} is not a number that can be used")

    try:
        row = json.loads(line.decode("utf-8-sig"), parse_constant=refuse)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise DataError(f"{where}: not a row: nested too deeply") from error
    except ValueError as error:  # an integer of more digits than Python converts
        raise DataError(f"{where}: not a number that can be used: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row must be an object {{...}}, got {type(row).__name__}")
    return row
