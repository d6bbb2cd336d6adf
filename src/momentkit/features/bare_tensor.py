"""A file of `torch.save(tensor, path)`, read without unpickling (InternVideo2 and LLaMA features are such).

Such a file is a zip of a short pickle program that names a storage, and of the storage's bytes. The program
is never run. It is disassembled and compared, instruction by instruction, with the one that `torch.save`
writes for a single contiguous tensor; shape and type are read off. Anything else in it is refused.
"""

import math
import pickletools
import re
import zipfile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from momentkit.core.errors import FeatureError

MAX_PROGRAM_BYTES = 4096  # torch writes about 150
# bfloat16 is not known to numpy: its bits are the upper half of a float32.
_STORAGES = {"HalfStorage": "<f2", "FloatStorage": "<f4", "DoubleStorage": "<f8", "BFloat16Storage": "<u2"}
_SILENT = {"PROTO", "BINPUT", "LONG_BINPUT", "MEMOIZE", "FRAME"}  # they build nothing
_INTEGERS = {"BININT", "BININT1", "BININT2", "LONG1"}
_SIZES = r"((?:\d+ )+)TUPLE[123] "
_PROGRAM = re.compile(
    r"GLOBAL=torch\._utils\._rebuild_tensor_v2 MARK MARK 'storage' GLOBAL=torch\.(\w+) '(\w+)' '[\w:]+' "
    rf"(\d+) TUPLE BINPERSID (\d+) {_SIZES}{_SIZES}"
    r"NEW(?:TRUE|FALSE) GLOBAL=collections\.OrderedDict EMPTY_TUPLE REDUCE TUPLE REDUCE STOP"
)


class _Tensor(NamedTuple):
    storage: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_bare_tensor(archive: zipfile.ZipFile, where: str, limit_bytes: int) -> NDArray[np.floating]:
    """The one tensor of a file.

    Args:
        archive: the opened file.
        where: what messages call it.
        limit_bytes: the largest storage that is read.

    Raises:
        FeatureError: it holds something else than one contiguous floating-point tensor.
    """
    names = archive.namelist()
    programs = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(programs) != 1 or archive.getinfo(programs[0]).file_size > MAX_PROGRAM_BYTES:
        raise FeatureError(f"{where} is no file of one tensor; save its features with numpy.save")
    folder = programs[0].partition("/")[0]
    tensor = _disassembled(archive.read(programs[0]), where)
    storage = archive.getinfo(f"{folder}/data/{tensor.storage}")
    order = f"{folder}/byteorder"
    if order in names and archive.read(order) != b"little":
        raise FeatureError(f"{where} was written on a big-endian machine; save its features with numpy.save")
    count, width = math.prod(tensor.shape), np.dtype(tensor.dtype).itemsize
    if storage.file_size > limit_bytes:
        raise FeatureError(f"{where} inflates to {storage.file_size} bytes; at most {limit_bytes} are read")
    if (tensor.offset + count) * width > storage.file_size:
        raise FeatureError(f"{where} claims shape {tensor.shape}, its storage has {storage.file_size} bytes")
    values = np.frombuffer(archive.read(storage), tensor.dtype)[tensor.offset : tensor.offset + count]
    if tensor.dtype == "<u2":
        values = (values.astype("<u4") << 16).view("<f4")
    return values.reshape(tensor.shape)


def _disassembled(program: bytes, where: str) -> _Tensor:
    words = []
    for instruction, argument, _ in pickletools.genops(program):
        if instruction.name in _INTEGERS:
            words.append(str(argument))
        elif instruction.name in ("BINUNICODE", "SHORT_BINUNICODE"):
            words.append(f"'{argument}'")
        elif instruction.name == "GLOBAL":
            words.append(f"GLOBAL={str(argument).replace(' ', '.')}")
        elif instruction.name not in _SILENT:
            words.append(instruction.name)
    match = _PROGRAM.fullmatch(" ".join(words))
    if match is None or match[1] not in _STORAGES:
        raise FeatureError(
            f"{where} holds something else than one floating-point tensor; save its features with numpy.save"
        )
    shape, strides = (tuple(map(int, match[group].split())) for group in (5, 6))
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    if len(strides) != len(shape) or any(
        size > 1 and stride != step for size, stride, step in zip(shape, strides, steps, strict=True)
    ):
        raise FeatureError(
            f"{where} holds a tensor that is not contiguous; save its features with numpy.save"
        )
    return _Tensor(match[2], _STORAGES[match[1]], int(match[4]), shape, strides)
