import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrl_dist.core.errors import UserError
from rrl_dist.data.order import steps_per_epoch, worker_positions

sizes = st.tuples(st.integers(8, 200), st.sampled_from([4, 8]), st.integers(0, 3))


def whole_epoch(count, batch_size, workers, start=0, epoch=0, seed=0):
    """[steps, workers, share] positions of all workers."""
    shares = [
        worker_positions(
            count=count,
            seed=seed,
            epoch=epoch,
            batch_size=batch_size,
            rank=rank,
            workers=workers,
            start=start,
        ).reshape(-1, batch_size // workers)
        for rank in range(workers)
    ]
    return np.stack(shares, axis=1)


@given(sizes)
def test_a_global_batch_is_the_same_for_any_number_of_workers(size):
    count, batch_size, epoch = size
    alone = whole_epoch(count, batch_size, 1, epoch=epoch).reshape(-1, batch_size)
    for workers in (2, 4):
        shared = whole_epoch(count, batch_size, workers, epoch=epoch)
        np.testing.assert_array_equal(shared.reshape(-1, batch_size), alone)


@given(sizes)
def test_an_epoch_visits_no_sample_twice(size):
    count, batch_size, epoch = size
    seen = whole_epoch(count, batch_size, 2, epoch=epoch).ravel()
    assert len(set(seen.tolist())) == len(seen) == count // batch_size * batch_size
    assert seen.min() >= 0
    assert seen.max() < count


@given(sizes, st.integers(0, 60))
def test_a_resumed_epoch_is_the_tail_of_the_whole(size, start):
    count, batch_size, epoch = size
    whole = whole_epoch(count, batch_size, 2, epoch=epoch)
    tail = whole_epoch(count, batch_size, 2, start=start, epoch=epoch)
    np.testing.assert_array_equal(tail, whole[start:])


# Workers, and how many steps they train before others go on.
changes = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), max_size=5)


@given(st.integers(12, 200), st.sampled_from([12, 24]), changes, st.integers(1, 4))
def test_no_change_of_workers_in_mid_epoch_loses_or_repeats_a_sample(
    count, share, changes, last
):
    batch_size = min(share, count // 12 * 12)
    alone = whole_epoch(count, batch_size, 1).reshape(-1, batch_size)
    seen = []
    for workers, steps in [*changes, (last, len(alone))]:
        rest = whole_epoch(count, batch_size, workers, start=len(seen))
        seen += rest.reshape(-1, batch_size)[:steps].tolist()
    np.testing.assert_array_equal(seen, alone)
    assert len({place for batch in seen for place in batch}) == alone.size


def test_epochs_and_seeds_differ():
    first = whole_epoch(100, 10, 1)
    assert (first != whole_epoch(100, 10, 1, epoch=1)).any()
    assert (first != whole_epoch(100, 10, 1, seed=1)).any()


def test_a_batch_larger_than_the_set_is_refused_with_the_size_that_fits():
    with pytest.raises(UserError, match=r"set train\.batch_size=7"):
        steps_per_epoch(count=7, batch_size=8)
    with pytest.raises(UserError, match="1 or more"):
        steps_per_epoch(count=7, batch_size=0)


def test_a_batch_that_does_not_split_is_refused_with_the_size_that_fits():
    with pytest.raises(UserError, match=r"set train\.batch_size=9 "):
        whole_epoch(100, 10, 3)
