"""A crew of workers on a clock that is only counted.

It has no processes and does not sleep: it knows beforehand how long each sample takes,
whose units hang, and who is lost when.
"""

import heapq
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl_dist.attacks.cascade import Cascade
from rrl_dist.attacks.passes import Passes
from rrl_dist.attacks.result import Attack
from rrl_dist.core.randomness import stream
from rrl_dist.evaluate.crew import Event, Worker
from rrl_dist.evaluate.grid import CLEAN, Chain, Link, Unit
from rrl_dist.evaluate.order import work_of
from rrl_dist.evaluate.plan import Suite, build_suite
from rrl_dist.evaluate.robust import Done
from rrl_dist.evaluate.schedule import Work
from rrl_dist.evaluate.suites import suite_config

BALL = {"_target_": "rrl_dist.attacks.balls.Linf", "eps": 8 / 255}
PASS = 2e-4  # seconds of a forward pass of one image
# Of the samples that are asked about, those that stay right: the small network of
# docs/attacks.md on CIFAR-10, Linf 8/255.
STAY = {CLEAN: 0.54, "apgd-ce": 0.52, "apgd-t": 0.83, "fab-t": 0.99, "square": 0.99}
ALONE = 0.28  # after an attack that is a component of its own
CALL = 32  # images of every call of the model, filled up where there are fewer
ROWS = {"apgd-t": 9, "fab-t": 9}  # that a sample has in a call: targets share calls
SPREAD = 0.5  # standard deviation of the logarithm of a sample's seconds
SLOWER, HANGS = 3.0, 10.0  # times as long: a slow worker, a unit that hangs
REPLACED, JOINED, LOOK = 30.0, 60.0, 1.0  # seconds


@dataclass(frozen=True)
class Setting:
    """What is simulated.

    Attributes:
        samples: of every component.
        workers: how many there are to be.
        failures: of each worker, in an hour.
        late: share of the workers that join within the first minute only.
        slow: share of the workers that take three times as long.
        hang: share of the units that take ten times as long.
        seed: of all draws.
    """

    samples: int = 10_000
    workers: int = 8
    failures: float = 0.0
    late: float = 0.1
    slow: float = 0.05
    hang: float = 0.005
    seed: int = 0


@lru_cache
def plan() -> Suite:
    """AutoAttack, and PGD-20 and APGD-CE as components of their own."""
    names = ("autoattack", "pgd_apgd")
    attacks = {k: v for n in names for k, v in suite_config(n)["attacks"].items()}
    config = {**suite_config("autoattack"), "attacks": attacks}
    return build_suite(config, BALL, seed=0)


def ordered(suite: Suite) -> list[Chain]:
    """As `Evaluation` has them."""
    return sorted(suite.chains, key=len, reverse=True)


class Truth:
    """What every link takes of and does to every sample, whoever asks.

    Attributes:
        seconds: by link, [samples] of a worker that is not slow, in full calls.
        right: by link, [samples] bool, whether it stays right.
    """

    def __init__(self, suite: Suite, samples: int, seed: int) -> None:
        self.seconds: dict[Link, NDArray[np.float64]] = {}
        self.right: dict[Link, NDArray[np.bool_]] = {}
        for link in (link for chain in ordered(suite) for link in chain):
            draws = stream(seed, "truth", link.name)
            attack = _attack(suite, link)
            stays = ALONE if link.attack is None else STAY[link.attack]
            stays = STAY[CLEAN] if attack is None else stays
            right = draws.random(samples) < stays
            spread = draws.lognormal(-(SPREAD**2) / 2, SPREAD, samples)
            # What is broken costs no more from there on.
            until = np.where(right, 1.0, draws.random(samples))
            work = 1.0 if attack is None else work_of(attack, 10)
            assert work is not None, "AutoAttack's parts say what they cost"
            self.seconds[link] = PASS * work * spread * (until if attack else 1.0)
            self.right[link] = right

    def of(self, unit: Unit) -> tuple[float, float, tuple[int, ...]]:
        """Seconds of a unit in full calls, and with its calls filled up; what it leaves
        right."""
        places = np.asarray(unit.positions)
        useful = float(self.seconds[unit.link][places].sum())
        rows = len(places) * ROWS.get(unit.link.attack or "", 1)
        filled = useful * math.ceil(rows / CALL) * CALL / rows
        return useful, filled, tuple(places[self.right[unit.link][places]].tolist())


@lru_cache(maxsize=8)
def truth(samples: int, seed: int) -> Truth:
    """Of `plan`."""
    return Truth(plan(), samples, seed)


def _attack(suite: Suite, link: Link) -> Attack | None:
    attack = suite.attacks[link.component]
    if isinstance(attack, Cascade):
        return next((a for a in attack.attacks if a.name == link.attack), None)
    return attack


@dataclass
class _Copy:
    """A unit in a worker's hands: when it began, what it would take of this worker if
    all went well, what it takes, and what it leaves right."""

    unit: Unit
    began: float
    useful: float
    takes: float
    right: tuple[int, ...]


@dataclass(frozen=True, order=True)
class _Planned:
    """Something that will happen."""

    at: float
    number: int
    what: str = field(compare=False)
    worker: int = field(compare=False)
    copy: _Copy | None = field(compare=False, default=None)


class VirtualCrew:
    """See `Crew`.

    Attributes:
        useful, spent: seconds of workers; of what counted, and of everything.
        counted: seconds of the workers whose units counted, stalls included.
        lengths: seconds of each unit that counted.
        own: CPU seconds of this class, which are not the driver's.
    """

    def __init__(self, setting: Setting, known: Truth) -> None:
        self.setting, self.truth = setting, known
        self.useful = self.spent = self.counted = self.own = self._now = 0.0
        self.lengths: list[float] = []
        # Apart from one another: with and without failures the same workers are slow.
        self._joins, self._slow, self._lives, self._hangs = (
            stream(setting.seed, "crew", what, setting.workers)
            for what in ("joins", "slow", "lives", "hangs")
        )
        self._numbers, self._places = itertools.count(), itertools.count()
        self._planned: list[_Planned] = []
        self._idle: dict[int, None] = {}
        self._factor: dict[int, float] = {}
        self._doing: dict[int, _Copy] = {}
        self._finished: set[Unit] = set()
        for place in range(setting.workers):
            late = place >= round((1 - setting.late) * setting.workers)
            self._hire(self._joins.random() * JOINED if late else 0.0)

    def _plan(self, at: float, what: str, worker: int, copy: Any = None) -> None:
        number = next(self._numbers)
        heapq.heappush(self._planned, _Planned(at, number, what, worker, copy))

    def _hire(self, after: float) -> None:
        worker, begin = next(self._places), self._now + after
        is_slow = self._slow.random() < self.setting.slow
        self._factor[worker] = SLOWER if is_slow else 1.0
        self._plan(begin, "joins", worker)
        if self.setting.failures:
            life = self._lives.exponential(3600 / self.setting.failures)
            self._plan(begin + life, "is lost", worker)

    @contextmanager
    def _own_time(self) -> Iterator[None]:
        begin = time.process_time()
        yield
        self.own += time.process_time() - begin

    def idle(self) -> Sequence[Worker]:
        """See `Crew`."""
        return list(self._idle)

    def give(self, worker: Worker, work: Work) -> None:
        """See `Crew`."""
        assert isinstance(worker, int)
        assert isinstance(work, Unit)
        with self._own_time():
            del self._idle[worker]
            useful, filled, right = self.truth.of(work)
            factor = self._factor[worker]
            takes = filled * factor
            if self._hangs.random() < self.setting.hang:
                takes *= HANGS
            copy = _Copy(work, self._now, useful * factor, takes, right)
            self._doing[worker] = copy
            self._plan(self._now + takes, "is done", worker, copy)

    def events(self) -> Sequence[Event]:
        """See `Crew`; as `RayCrew` it waits for a second at most."""
        with self._own_time():
            assert self._planned, "nobody works, nobody comes, and it is not done"
            first = self._planned[0].at
            if first > self._now + LOOK:
                self._now += LOOK
                return []
            self._now = max(first, self._now)
            found: list[Event] = []
            while self._planned and self._planned[0].at <= self._now:
                found += self._news(heapq.heappop(self._planned))
            return found

    def _news(self, news: _Planned) -> list[Event]:
        worker = news.worker
        if news.what == "joins":
            self._idle[worker] = None
            return []
        if news.what == "is lost":
            self._idle.pop(worker, None)
            lost = self._doing.pop(worker, None)
            self.spent += 0.0 if lost is None else self._now - lost.began
            del self._factor[worker]
            self._hire(REPLACED)
            return [Event(worker, why="lost")]
        copy = news.copy
        if copy is None or self._doing.get(worker) is not copy:
            return []  # it was lost before
        del self._doing[worker]
        self._idle[worker] = None
        self.spent += copy.takes
        if copy.unit not in self._finished:
            self._finished.add(copy.unit)
            self.useful += copy.useful
            self.counted += copy.takes
            self.lengths.append(copy.takes)
        return [Event(worker, Done(copy.right, copy.takes, Passes()))]

    def close(self) -> None:
        """What still runs at the end was in vain."""
        for copy in self._doing.values():
            self.spent += self._now - copy.began

    def now(self) -> float:
        """See `Crew`."""
        return self._now
