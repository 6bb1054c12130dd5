"""What the workers of a run read together, one after another in this process."""

from collections.abc import Callable, Sequence
from itertools import chain, islice

from rrl_dist.data.loader import Loader
from rrl_dist.data.order import worker_positions


def global_batches(
    load: Callable[[int], Loader],
    shares: Sequence[tuple[int, int]],
    *,
    count: int,
    batch_size: int,
    start: int = 0,
) -> list[list[int]]:
    """The samples of each global batch of an epoch, by their index, in rank order.

    Args:
        load: opens a loader of batches of a size.
        shares: numbers of workers, and steps that each of them trains.
        count: of the set.
        start: the first global batch.
    """
    found: list[list[int]] = []
    for workers, steps in shares:
        loader = load(batch_size // workers)
        parts = []
        for rank in range(workers):
            positions = worker_positions(
                count=count,
                seed=0,
                epoch=0,
                batch_size=batch_size,
                rank=rank,
                workers=workers,
                start=start + len(found),
            )
            batches = islice(loader.batches(positions), steps)
            parts.append([batch.index.tolist() for batch in batches])
        loader.close()
        found += [list(chain(*batch)) for batch in zip(*parts, strict=True)]
    return found
