"""Units of a schedule: each sample and component once, whoever comes or goes."""

from collections import Counter
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrl_dist.evaluate.grid import ATOM, Link, Unit, atom_count, atoms_of
from rrl_dist.evaluate.schedule import Cut, Schedule

CHAINS = (
    (Link("aa", "clean"), Link("aa", "first"), Link("aa", "second")),
    (Link("clean"),),
    (Link("pgd"),),
)
CUT = Cut(seconds=30.0, least=ATOM)


def is_right(link: Link, position: int) -> bool:
    """Sample and attack decide it; each link breaks about half."""
    return crc32(f"{link.name} {position}".encode()) % 2 == 0


def right_of(unit: Unit) -> list[int]:
    return [p for p in unit.positions if is_right(unit.link, p)]


def asked_by_hand(samples: int) -> Counter[tuple[Link, int]]:
    """What is to be asked, link by link."""
    found: Counter[tuple[Link, int]] = Counter()
    for chain in CHAINS:
        left = list(range(samples))
        for link in chain:
            found.update((link, position) for position in left)
            left = [position for position in left if is_right(link, position)]
    return found


@settings(deadline=None, max_examples=150)
@given(
    samples=st.integers(0, 700),
    workers=st.integers(1, 5),
    atoms=st.none() | st.integers(1, 4),
    tasks=st.integers(0, 2),
    draws=st.randoms(use_true_random=False),
)
def test_every_pair_is_asked_and_settled_once_whatever_happens(
    samples: int, workers: int, atoms: int | None, tasks: int, draws: Any
) -> None:
    """Workers ask, end and die in any order; second copies come in late."""
    cut = Cut(seconds=30.0, least=ATOM, atoms=atoms)
    names = [f"task {i}" for i in range(tasks)]
    schedule = Schedule(CHAINS, samples, workers=workers, cut=cut, tasks=names)
    asked: Counter[tuple[Link, int]] = Counter()
    done: list[object] = []
    busy: dict[int, Any] = {}
    now, newest = 0.0, workers
    idle = list(range(workers))
    while not schedule.done:
        now += draws.random() * 50
        draws.shuffle(idle)
        for worker in list(idle):
            work = schedule.next(worker, now)
            if work is not None:
                busy[worker] = work
                idle.remove(worker)
        assert busy, "nobody has anything to do, and it is not done"
        worker = draws.choice(sorted(busy))
        work = busy.pop(worker)
        if draws.random() < 0.2:
            assert schedule.lost(worker) == work
            idle.append(newest)
            newest += 1
            continue
        idle.append(worker)
        right = right_of(work) if isinstance(work, Unit) else []
        if schedule.finish(worker, right, seconds=1 + draws.random()):
            if isinstance(work, Unit):
                assert work.atoms == atoms_of(work.positions)
                asked.update((work.link, position) for position in work.positions)
            else:
                done.append(work)
    assert asked == asked_by_hand(samples)
    assert sorted(map(str, done)) == names
    for chain in CHAINS:
        component = chain[0].component
        wrong = [
            not all(is_right(link, position) for link in chain)
            for position in range(samples)
        ]
        assert schedule.wrong[component].tolist() == wrong
        assert schedule.settled[component] == samples


@settings(deadline=None, max_examples=60)
@given(
    samples=st.integers(1, 500),
    draws=st.randoms(use_true_random=False),
)
def test_what_was_done_before_is_not_given_out_again(samples: int, draws: Any) -> None:
    first = Schedule(CHAINS, samples, workers=1, cut=CUT)
    units: list[Unit] = []
    while not first.done:
        unit = first.next(0, 0.0)
        assert isinstance(unit, Unit)
        first.finish(0, right_of(unit), seconds=1.0)
        units.append(unit)
    kept = units[: draws.randrange(len(units) + 1)]
    second = Schedule(CHAINS, samples, workers=1, cut=Cut(30.0, ATOM, atoms=3))
    for unit in kept:
        second.restore(unit, right_of(unit), 1.0)
    before = {(unit.link, atom) for unit in kept for atom in unit.atoms}
    while not second.done:
        again = second.next(0, 0.0)
        assert isinstance(again, Unit)
        assert not before & {(again.link, atom) for atom in again.atoms}
        second.finish(0, right_of(again), seconds=1.0)
    for name, flags in first.wrong.items():
        np.testing.assert_array_equal(second.wrong[name], flags)
    assert second.settled == first.settled


def test_a_unit_that_does_not_fit_is_refused() -> None:
    schedule = Schedule(CHAINS, 100, workers=1, cut=CUT)
    for positions in ((0, 1), tuple(range(65))):
        with pytest.raises(ValueError, match="does not fit"):
            schedule.restore(Unit(Link("clean"), (0,), positions), [], 1.0)


def alone(**changes: Any) -> Schedule:
    """1,280 samples of one attack."""
    settings: dict[str, Any] = {"workers": 2, "cut": CUT, **changes}
    return Schedule([(Link("pgd"),)], 1280, **settings)


def test_units_take_as_long_as_they_should_and_less_at_the_end() -> None:
    schedule, sizes = alone(cut=Cut(seconds=30.0, least=ATOM)), []
    now = 0.0
    while not schedule.done:
        unit = schedule.next("a", now)
        assert isinstance(unit, Unit)
        sizes.append(unit.samples)
        now += 0.1 * unit.samples
        schedule.finish("a", [], seconds=0.1 * unit.samples)
    # One atom to see how long it takes; then 30 s, as 300 samples are; then a quarter
    # of what is left, in whole atoms; never less than one.
    assert sizes[:3] == [64, 256, 192]
    assert sizes[-3:] == [64, 64, 64]
    assert sum(sizes) == 1280


@given(
    waiting=st.integers(1, 3000),
    workers=st.integers(1, 600),
    each=st.none() | st.floats(1e-4, 100.0),
)
def test_a_unit_fills_a_call_and_leaves_as_much_to_the_others(
    waiting: int, workers: int, each: float | None
) -> None:
    """One survivor an atom, so that units may be of any size."""
    call, least = 16, 64
    cut = Cut(seconds=30.0, least=least, call=call)
    first, second = (Link("aa", name) for name in ("clean", "first"))
    schedule = Schedule([(first, second)], waiting * ATOM, workers=workers, cut=cut)
    for atom in range(waiting):
        positions = tuple(range(atom * ATOM, (atom + 1) * ATOM))
        schedule.restore(Unit(first, (atom,), positions), positions[:1], 1.0)
    if each is not None:
        schedule.pace[second].samples = 1
        schedule.pace[second].seconds = each
    unit = schedule.next(0, 0.0)
    assert isinstance(unit, Unit)
    assert unit.link == second
    assert unit.samples >= min(waiting, call), "a call is not filled"
    assert unit.samples <= max(waiting / workers, call), "others have nothing"
    if waiting >= workers * least:
        assert unit.samples >= least
    if each is not None and unit.samples > least:
        assert unit.samples * each <= 30.0


def test_survivors_of_several_atoms_are_packed_together() -> None:
    schedule = Schedule(CHAINS[:1], 640, workers=1, cut=Cut(1e9, 64, atoms=None))
    while True:
        unit = schedule.next(0, 0.0)
        assert isinstance(unit, Unit)
        if unit.link.attack == "second":
            break
        few = [p for p in unit.positions if p % 16 == 0]
        schedule.finish(0, few, seconds=0.01)
    # Four of each atom are left.
    assert unit.samples == 40
    assert len(unit.atoms) == atom_count(640)


def test_a_second_copy_is_given_to_who_is_idle_and_the_first_result_counts() -> None:
    schedule = alone(cut=Cut(30.0, ATOM, atoms=10))
    slow, quick = schedule.next("slow", 0.0), schedule.next("quick", 0.0)
    assert schedule.finish("quick", [], seconds=1.0)
    copy = schedule.next("quick", 1.0)
    assert copy == slow != quick
    assert schedule.next("third", 1.0) is None, "two copies are enough"
    assert schedule.finish("quick", [], seconds=1.0)
    assert schedule.done
    assert not schedule.finish("slow", [], seconds=9.0)
    assert schedule.pace[Link("pgd")].samples == 1280


def test_while_other_attacks_are_to_come_only_what_is_late_is_copied() -> None:
    schedule = Schedule(CHAINS[:1], 128, workers=2, cut=Cut(30.0, ATOM, atoms=1))
    late, other = schedule.next("a", 0.0), schedule.next("b", 0.0)
    assert isinstance(late, Unit)
    assert isinstance(other, Unit)
    schedule.finish("b", [], seconds=2.0)
    assert schedule.next("b", 2.9) is None
    assert schedule.next("b", 3.1) == late


def test_a_lost_worker_with_a_second_copy_costs_nothing() -> None:
    schedule = alone(cut=Cut(30.0, ATOM, atoms=20))
    unit = schedule.next("a", 0.0)
    assert schedule.next("b", 0.0) == unit
    schedule.lost("a")
    assert schedule.next("c", 0.0) == unit, "of the one that is left"
    assert schedule.finish("b", [], seconds=1.0)
    assert schedule.done


def test_nothing_beyond_the_limit_is_given_out() -> None:
    schedule = Schedule(CHAINS, 640, workers=1, cut=CUT)
    asked: Counter[tuple[Link, int]] = Counter()
    for limit in (2, 3, 10):
        schedule.limit = limit
        while not schedule.done:
            unit = schedule.next(0, 0.0)
            assert isinstance(unit, Unit)
            assert max(unit.atoms) < limit
            asked.update((unit.link, position) for position in unit.positions)
            schedule.finish(0, right_of(unit), seconds=1.0)
        assert asked == asked_by_hand(min(limit * ATOM, 640))
