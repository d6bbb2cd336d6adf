"""Which samples make which batch of an epoch: a pure function of (seed, epoch)."""

import numpy as np
from numpy.typing import NDArray

from momentkit.data.sampler import batches, distinct_batches, epoch_order
from momentkit.train.options import TrainConfig


def epoch_batches(
    size: int,
    epoch: int,
    options: TrainConfig,
    lengths_N: NDArray[np.int64] | None = None,
    videos_N: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """The batches of an epoch, in order.

    With `bucket_batches` above 1, the samples of so many batches at a time are dealt out by length, and the
    batches shuffled again: less padding, the same samples, the same number of batches.

    With `distinct_videos`, see `distinct_batches`: some samples are lost, and epochs may differ by a batch.

    Args:
        size: samples there are.
        epoch: from 0.
        options: seed, batch_size, drop_last, bucket_batches, distinct_videos.
        lengths_N: clips of each sample; None = not known, so nothing is dealt by length.
        videos_N: number of each sample's video; None = all differ.
    """
    order_N = epoch_order(size, options.seed, epoch)
    if options.distinct_videos and videos_N is not None:
        return distinct_batches(order_N, options.batch_size, videos_N, drop_last=options.drop_last)
    if options.bucket_batches == 1 or lengths_N is None:
        return batches(order_N, options.batch_size, drop_last=options.drop_last)
    pools = batches(order_N, options.batch_size * options.bucket_batches)
    dealt = [batch for pool in pools for batch in batches(pool, options.batch_size, lengths_N=lengths_N)]
    if options.drop_last:
        dealt = [batch for batch in dealt if len(batch) == options.batch_size]
    shuffled = np.random.default_rng([options.seed, epoch, 1]).permutation(len(dealt))
    return [dealt[index] for index in shuffled]
