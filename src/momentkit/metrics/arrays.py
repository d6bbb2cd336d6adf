"""Lists of unequal length as padded arrays, and the one rounding rule of the printed figures.

Shapes   Q queries   N entries of the longest query   W entries of all queries, in the order of the queries
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_ENTRIES = 2**20  # entries an intermediate array may have: keeps the work in the cache and memory flat


def pad(
    values: NDArray[Any], lengths: Sequence[int] | NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Ragged rows -> one padded array.

    Args:
        values: (W, ...) the rows one after the other.
        lengths: (Q,) entries of each row; their sum is W.

    Returns:
        (Q, N, ...) the rows, zero where padded, and (Q, N) bool, True = real.
    """
    lengths_Q = np.asarray(lengths, dtype=np.int64)
    mask_QN = np.arange(lengths_Q.max(initial=0)) < lengths_Q[:, None]
    padded = np.zeros(mask_QN.shape + values.shape[1:], dtype=values.dtype)
    padded[mask_QN] = values
    return padded, mask_QN


def pad_rows(rows: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A list of at least one array (n_i, ...) -> padded (Q, N, ...) and mask (Q, N)."""
    return pad(np.concatenate(rows), [len(row) for row in rows])


def blocks(rows: int, entries_per_row: int) -> Iterator[slice]:
    """Slices that cut `rows` so that no block has more than `BLOCK_ENTRIES` entries (or one row)."""
    step = max(1, BLOCK_ENTRIES // max(1, entries_per_row))
    for first in range(0, rows, step):
        yield slice(first, min(rows, first + step))


def size_buckets(sizes_Q: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Indices of rows of like size, ascending in each bucket: one long row must not pad all the others.

    Args:
        sizes_Q: entries of each row. Up to 16 share a bucket, then up to 32, 64 and so on.
    """
    exponent_Q = np.ceil(np.log2(np.maximum(sizes_Q, 16)))
    for exponent in np.unique(exponent_Q):
        yield np.flatnonzero(exponent_Q == exponent)


def percent(fraction: float) -> float:
    """A fraction as the official programs print it: 100 * value with two decimals, half to even.

    >>> percent(0.03125), percent(0.09375)
    (3.12, 9.38)
    """
    return float(f"{100 * fraction:.2f}")
