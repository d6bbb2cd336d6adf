"""The order of samples: a pure function of (seed, epoch), whatever the number of processes.

Shapes   N rows   b rows of one batch
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def epoch_order(size: int, seed: int, epoch: int, *, shuffle: bool = True) -> NDArray[np.int64]:
    """Row numbers in the order an epoch visits them.

    Args:
        size: N.
        seed, epoch: not negative; the same pair gives the same order on every machine.
        shuffle: False gives 0..N-1.
    """
    if not shuffle:
        return np.arange(size)
    return np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(size)


def batches(
    order_N: NDArray[np.int64],
    batch_size: int,
    *,
    drop_last: bool = False,
    lengths_N: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """An order cut into batches.

    Args:
        order_N: row numbers.
        batch_size: rows a batch, positive.
        drop_last: leave out a last batch that is not full.
        lengths_N: clips of each row (indexed by row number). Given, rows are first sorted by it, so that a
            batch holds videos of nearly one length and little padding; for evaluation, where the order
            changes no answer. Rows of one length keep their order.
    """
    if not batch_size > 0:
        raise ValueError(f"a batch holds at least one row, got {batch_size}")
    if lengths_N is not None:
        order_N = order_N[np.argsort(lengths_N[order_N], kind="stable")]
    stop = len(order_N) - len(order_N) % batch_size if drop_last else len(order_N)
    return [order_N[start : min(start + batch_size, stop)] for start in range(0, stop, batch_size)]


def distinct_batches(
    order_N: NDArray[np.int64], batch_size: int, videos_N: NDArray[np.int64], *, drop_last: bool = False
) -> list[NDArray[np.int64]]:
    """An order cut into batches without two rows of one video; BM-DETR's rule.

    A row whose video is already in the batch that is being filled is passed over, and lost for the epoch.

    Args:
        order_N: row numbers.
        batch_size: rows a batch, positive.
        videos_N: number of each row's video (indexed by row number).
        drop_last: leave out a last batch that is not full.
    """
    made: list[NDArray[np.int64]] = []
    rows: dict[int, int] = {}  # video -> row
    for row in order_N.tolist():
        rows.setdefault(int(videos_N[row]), row)
        if len(rows) == batch_size:
            made.append(np.array(list(rows.values()), np.int64))
            rows = {}
    if rows and not drop_last:
        made.append(np.array(list(rows.values()), np.int64))
    return made


def shard(whole: Sequence[NDArray[np.int64]], rank: int, world: int) -> list[NDArray[np.int64]]:
    """One process's part of every batch: rows rank, rank + world, ...

    All processes together see each batch once and whole, and each has the same number of batches, so that
    collective calls meet. A part is empty where a batch has fewer rows than there are processes.

    Args:
        whole: the batches of all processes, from `batches`.
        rank, world: number of this process, 0..world-1, and of processes.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world} processes")
    return [batch[rank::world] for batch in whole]
