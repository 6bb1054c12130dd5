"""How large the next group of workers is, as nodes come and go."""

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrl_dist.core.errors import UserError
from rrl_dist.training.room import Room, Sizes, Waiting, group_size, room_in

THREE = {"workers": 3, "min_workers": None, "wait": 100}
ELASTIC = {**THREE, "min_workers": 1}


@given(
    batch=st.integers(1, 64),
    least=st.integers(1, 8),
    more=st.integers(0, 8),
    room=st.integers(0, 20),
)
def test_a_group_is_the_largest_that_shares_the_batch(
    batch: int, least: int, more: int, room: int
) -> None:
    size = group_size(batch, least=least, most=least + more, room=room)
    allowed = [
        n for n in range(least, least + more + 1) if n <= room and batch % n == 0
    ]
    assert size == max(allowed, default=0)


class Seen:
    """A wait on a clock of its own."""

    def __init__(self, cluster: dict[str, Any], rooms: list[Room]) -> None:
        self.now, self.lines = 0.0, list[str]()
        later: Iterator[Room] = chain(rooms, repeat(rooms[-1]))
        self.waiting = Waiting(
            cluster,
            192,
            look=lambda: next(later),
            notify=self.lines.append,
            clock=lambda: self.now,
            pause=self.pause,
        )

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def size(self, stopped_at: float = 1e9) -> int:
        return self.waiting.until(lambda: self.now >= stopped_at)


@pytest.mark.parametrize("cluster", [THREE, ELASTIC])
def test_where_all_fit_nobody_waits(cluster: dict[str, Any]) -> None:
    seen = Seen(cluster, [Room(3, 3)])
    assert (seen.size(), seen.now, seen.lines) == (3, 0.0, [])


def test_fewer_begin_at_once_when_a_node_is_gone() -> None:
    seen = Seen(ELASTIC, [Room(2, 2)])
    assert (seen.size(), seen.now) == (2, 0.0)


def test_what_the_last_group_held_is_waited_for() -> None:
    seen = Seen(ELASTIC, [Room(3, 0), Room(3, 1), Room(3, 3)])
    assert (seen.size(), seen.now) == (3, 1.0)


def test_what_others_hold_is_not_waited_for_where_fewer_will_do() -> None:
    seen = Seen(ELASTIC, [Room(3, 2)])
    assert seen.size() == 2
    assert 5 <= seen.now < 7


def test_what_others_hold_is_waited_for_where_all_are_needed() -> None:
    seen = Seen(THREE, [*[Room(3, 2)] * 1000, Room(3, 3)])
    assert seen.size() == 3
    assert seen.now == 500
    assert seen.lines == ["waiting for room for 3 workers, that others hold"]


def test_nodes_that_are_gone_are_waited_for_and_then_given_up() -> None:
    back = Seen(THREE, [*[Room(2, 2)] * 100, Room(3, 3)])
    assert back.size() == 3
    assert back.lines == ["waiting for room for 3 workers, on nodes that are gone"]
    gone = Seen(THREE, [Room(2, 2)])
    with pytest.raises(UserError, match=r"did not come within cluster\.wait=100 s"):
        gone.size()
    assert 100 < gone.now < 102


def test_who_waits_can_be_stopped() -> None:
    assert Seen(THREE, [Room(0, 0)]).size(stopped_at=3) == 0


CPU = {"cpus_per_worker": 1, "gpu": False}
GPU = {"cpus_per_worker": 1, "gpu": True, "gpus_per_worker": 1}


def test_a_worker_has_all_that_it_needs_on_one_node() -> None:
    whole = {"a": {"CPU": 4.0, "GPU": 2.0}, "b": {"CPU": 8.0}}
    free = {"a": {"GPU": 1.0}, "b": {"CPU": 8.0}}
    assert room_in(whole, free, GPU, held=0) == Room(2, 0)
    assert room_in(whole, whole, GPU, held=0) == Room(2, 2)
    assert room_in(whole, free, CPU, held=4) == Room(12, 12)


def test_what_is_free_on_nodes_that_leave_is_no_room() -> None:
    stays, leaves = {"a": {"CPU": 2.0}}, {"b": {"CPU": 2.0}}
    assert room_in(stays, stays | leaves, CPU, held=0) == Room(2, 2)
    assert room_in(stays, leaves, CPU, held=1) == Room(2, 1)


def test_a_group_that_finds_no_places_is_followed_by_one_that_did() -> None:
    sizes = Sizes(ELASTIC, 192)
    sizes.found(2)
    assert (sizes.most, sizes.pause) == (3, 5)
    sizes.missed(3)
    assert sizes.most == 2
    sizes.found(2)
    assert (sizes.most, sizes.pause) == (2, 300)
    sizes.lift()
    sizes.missed(3)
    sizes.found(2)
    assert (sizes.most, sizes.pause) == (2, 600)
    sizes.lift()
    sizes.found(3)
    assert (sizes.most, sizes.pause) == (3, 5)


def test_where_none_has_found_places_each_is_smaller_than_the_last() -> None:
    sizes = Sizes(ELASTIC, 192)
    tried = []
    for _ in range(4):
        tried.append(sizes.most)
        sizes.missed(sizes.most)
    assert tried == [3, 2, 1, 3]
    all_or_none = Sizes(THREE, 192)
    all_or_none.missed(3)
    assert all_or_none.most == 3
