"""Which worker does what next. It holds no clock, process or file of its own.

Work is units of the fixed grid, cut when a worker asks for one: as many atoms as should
take a while, fewer towards the end, so that workers end together. What an attack of a
chain has left right is ready for the next at once, packed anew with what other units
have left. An idle worker is given a second copy of what others are slow with; the first
result counts. A lost worker's unit is cut anew.
"""

from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rrl_dist.evaluate.grid import (
    ATOM,
    Chain,
    Link,
    Unit,
    atom_count,
    atom_positions,
)

Worker = Hashable
Work = Unit | Hashable  # a task of another kind is given out as it is
# A unit counts as slow when it has taken this many times what was expected.
SLOW = 1.5
# The last units of a link have this share of what is left, over all workers.
SHARE = 2


@dataclass(frozen=True)
class Cut:
    """How large units are.

    Attributes:
        seconds: that a unit should take.
        least: samples of a unit, where there are as many for each worker.
        atoms: of every unit, in place of what its time would make it; None for that.
        call: samples of a call of the model; in smaller units it would be filled up.
    """

    seconds: float
    least: int
    atoms: int | None = None
    call: int = ATOM


@dataclass
class Pace:
    """What a link has taken so far.

    Attributes:
        samples, seconds: of all its units that have ended, each counted once.
        units: how many have ended.
    """

    samples: int = 0
    seconds: float = 0.0
    units: int = 0

    @property
    def per_sample(self) -> float | None:
        """Seconds of a worker; None before the first unit has ended."""
        return self.seconds / self.samples if self.samples else None


@dataclass
class _Running:
    began: float
    workers: set[Worker] = field(default_factory=set)


class Schedule:
    """The state of an evaluation's units.

    Attributes:
        pace: what each link has taken.
        limit: atoms from this one on are not given out.
        settled: by component, samples whose outcome is known.
        wrong: by component, [samples] bool, those that are known to be wrong.

    Args:
        chains: the components, those of several attacks in turn as chains of them. A
            chain that stands before another is begun before it.
        samples: how many there are.
        workers: how many may ask at a time; units become smaller towards the end.
        cut: how large units are.
        tasks: of other kinds, begun before all units.
    """

    def __init__(
        self,
        chains: Sequence[Chain],
        samples: int,
        *,
        workers: int,
        cut: Cut,
        tasks: Iterable[Hashable] = (),
    ) -> None:
        self.chains, self.samples = tuple(chains), samples
        self.workers, self.cut = workers, cut
        self.pace = {link: Pace() for chain in chains for link in chain}
        self._next = {
            link: following
            for chain in chains
            for link, following in zip(chain, (*chain[1:], None), strict=True)
        }
        self._ready: dict[Link, OrderedDict[int, None]] = {
            link: OrderedDict() for link in self._next
        }
        self._waiting = dict.fromkeys(self._next, 0)  # samples that are ready
        self._right: dict[tuple[Link, int], tuple[int, ...]] = {}
        self._tasks = list(reversed(list(tasks)))
        self._running: dict[Work, _Running] = {}
        self._work: dict[Worker, Work] = {}
        self.limit = atom_count(samples)
        names = [chain[0].component for chain in chains]
        self.settled = dict.fromkeys(names, 0)
        self.wrong = {name: np.zeros(samples, dtype=bool) for name in names}
        for chain in self.chains:
            for atom in range(self.limit):
                self._make_ready(chain[0], atom)

    @property
    def done(self) -> bool:
        """Whether all work has ended."""
        left = bool(self._running or self._tasks)
        return not left and all(map(self._is_dry, self._ready))

    def positions(self, link: Link, atom: int) -> Sequence[int]:
        """The samples of an atom that a link is to be asked about."""
        all_of_it = atom_positions(atom, self.samples)
        return self._right.get((link, atom), all_of_it)

    def is_ready(self, link: Link, atom: int) -> bool:
        """Whether an atom waits to be given out."""
        return atom in self._ready[link]

    def waiting(self, link: Link) -> int:
        """Samples that are ready for a link, and those of its running units."""
        units = (u for u in self._running if isinstance(u, Unit) and u.link == link)
        return self._waiting[link] + sum(unit.samples for unit in units)

    def restore(self, unit: Unit, right: Collection[int], seconds: float) -> None:
        """Note a unit that was done before this schedule was made.

        Its links' units come in the order of the chain.

        Raises:
            ValueError: its samples are not those that its atoms have left.
        """
        ready = self._ready[unit.link]
        expected = [p for a in unit.atoms for p in self.positions(unit.link, a)]
        if list(unit.positions) != expected or any(a not in ready for a in unit.atoms):
            raise ValueError(f"{unit.file} does not fit what comes before it")
        for atom in unit.atoms:
            del ready[atom]
        self._waiting[unit.link] -= unit.samples
        self._settle(unit, right, seconds)

    def next(self, worker: Worker, now: float) -> Work | None:
        """Work for a worker that has none; None if it can do nothing at present.

        Args:
            worker: who asks.
            now: seconds of any clock that does not go back.
        """
        work = self._tasks.pop() if self._tasks else self._cut_one()
        if work is None:
            work = self._second_copy(worker, now)
        if work is not None:
            running = self._running.setdefault(work, _Running(now))
            running.workers.add(worker)
            self._work[worker] = work
        return work

    def finish(self, worker: Worker, right: Collection[int], seconds: float) -> bool:
        """Note that a worker has done its work.

        Args:
            worker: who.
            right: positions that the classifier still gets right.
            seconds: that it took.

        Returns:
            whether it was the first to do that.
        """
        work = self._work.pop(worker)
        if work not in self._running:
            return False
        del self._running[work]
        if isinstance(work, Unit):
            self._settle(work, right, seconds)
        return True

    def lost(self, worker: Worker) -> Work | None:
        """Note that a worker is gone; returns what it had to do, which is given out
        anew unless another has a copy of it."""
        work = self._work.pop(worker, None)
        if work is None or work not in self._running:
            return work
        running = self._running[work]
        running.workers.discard(worker)
        if not running.workers:
            del self._running[work]
            self._give_back(work)
        return work

    def _give_back(self, work: Work) -> None:
        if not isinstance(work, Unit):
            self._tasks.append(work)
            return
        unit = work
        for atom in reversed(unit.atoms):  # to the front: others may wait for it
            self._ready[unit.link][atom] = None
            self._ready[unit.link].move_to_end(atom, last=False)
        self._waiting[unit.link] += unit.samples

    def _is_dry(self, link: Link) -> bool:
        """Whether no atom of it can be given out. The first is the lowest, but for
        those that were given back, and these are below the limit."""
        first = next(iter(self._ready[link]), self.limit)
        return first >= self.limit

    def _cut_one(self) -> Unit | None:
        link = next((link for link in self._ready if not self._is_dry(link)), None)
        if link is None:
            return None
        ready = self._ready[link]
        atoms: list[int] = []
        positions: list[int] = []
        most = self._size(link)
        while not self._is_dry(link):
            atom = next(iter(ready))
            here = self.positions(link, atom)
            if atoms and not self._fits(len(atoms), len(positions) + len(here), most):
                break
            ready.popitem(last=False)
            atoms.append(atom)
            positions.extend(here)
        self._waiting[link] -= len(positions)
        return Unit(link, tuple(sorted(atoms)), tuple(sorted(positions)))

    def _fits(self, atoms: int, samples: int, most: float) -> bool:
        """Whether a unit of that many atoms takes one more, with `samples` in all."""
        return samples <= most if self.cut.atoms is None else atoms < self.cut.atoms

    def _size(self, link: Link) -> float:
        """Samples of the next unit."""
        even = self._waiting[link] / self.workers
        least = max(self.cut.call, min(self.cut.least, even))
        each = self.pace[link].per_sample
        wanted = self.cut.seconds / each if each else 0.0
        return max(least, min(wanted, even / SHARE))

    def _second_copy(self, worker: Worker, now: float) -> Work | None:
        """Of the slowest work that one worker has alone.

        While other attacks are still to come, a copy of a unit that is on time would
        keep its worker from them.
        """
        alone = [w for w, r in self._running.items() if len(r.workers) == 1]
        alone = [w for w in alone if worker not in self._running[w].workers]
        last = all(self._is_last(work) for work in self._running)
        slow = [w for w in alone if last or self._lateness(w, now) > SLOW]
        return max(slow, key=lambda w: now - self._running[w].began, default=None)

    def _is_last(self, work: Work) -> bool:
        """Whether nothing waits for it."""
        return not isinstance(work, Unit) or self._next[work.link] is None

    def _lateness(self, work: Work, now: float) -> float:
        """Time taken, as a multiple of what was expected."""
        each = self.pace[work.link].per_sample if isinstance(work, Unit) else None
        if not isinstance(work, Unit) or not each:
            return 0.0  # nothing is known of it
        return (now - self._running[work].began) / (each * work.samples)

    def _settle(self, unit: Unit, right: Collection[int], seconds: float) -> None:
        pace = self.pace[unit.link]
        pace.samples += unit.samples
        pace.seconds += seconds
        pace.units += 1
        still = set(right)
        following, component = self._next[unit.link], unit.link.component
        wrong = [position for position in unit.positions if position not in still]
        self.wrong[component][wrong] = True
        self.settled[component] += unit.samples - (len(still) if following else 0)
        for atom in unit.atoms:
            here = tuple(p for p in self.positions(unit.link, atom) if p in still)
            self._right.pop((unit.link, atom), None)
            if following is not None and here:
                self._right[following, atom] = here
                self._make_ready(following, atom)

    def _make_ready(self, link: Link, atom: int) -> None:
        self._ready[link][atom] = None
        self._waiting[link] += len(self.positions(link, atom))
