"""The order of samples: a function of (seed, epoch), cut over workers."""

import numpy as np
from numpy.typing import NDArray

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import stream


def steps_per_epoch(*, count: int, batch_size: int) -> int:
    """Whole global batches in `count` samples; the rest of an epoch is dropped.

    Raises:
        UserError: if there is not one whole batch.
    """
    if batch_size <= 0:
        raise UserError(f"batch_size={batch_size}; set train.batch_size to 1 or more")
    if count < batch_size:
        raise UserError(
            f"batch_size={batch_size} is more than the {count} training images; "
            f"set train.batch_size={count} or less"
        )
    return count // batch_size


def worker_positions(
    *,
    count: int,
    seed: int,
    epoch: int,
    batch_size: int,
    rank: int,
    workers: int,
    start: int,
) -> NDArray[np.int64]:
    """What one worker reads in one epoch, from global batch `start` on.

    Global batch b holds places b * batch_size to (b + 1) * batch_size of the
    permutation of (seed, epoch), whatever the number of workers; each worker has a
    contiguous share of it, in rank order.

    Args:
        count: samples in the set.
        batch_size: global batch size.
        rank: this worker, in [0, workers).
        start: first global batch; that of a resumed run. At or beyond the end of the
            epoch nothing is left.

    Returns:
        [(steps - start) * batch_size / workers] int64 positions in the set.

    Raises:
        UserError: if the batch does not split over the workers, or is larger than
            the set.
    """
    if batch_size % workers:
        fit = workers * max(1, batch_size // workers)
        raise UserError(
            f"batch_size={batch_size} does not split over {workers} workers; "
            f"set train.batch_size={fit} or change cluster.workers"
        )
    steps = steps_per_epoch(count=count, batch_size=batch_size)
    order = stream(seed, "order", epoch).permutation(count).astype(np.int64)
    batches = order[: steps * batch_size].reshape(steps, workers, -1)
    return np.ascontiguousarray(batches[start:, rank].reshape(-1))
