"""Who does the work of an evaluation: this process, or actors that come and go."""

import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.grid import Unit
from rrl_dist.evaluate.plan import Task
from rrl_dist.evaluate.robust import Done, Evaluator
from rrl_dist.evaluate.schedule import Schedule, Work

Worker = Hashable


@dataclass(frozen=True)
class Event:
    """News of a worker.

    Attributes:
        worker: which.
        done: what it has done; None if it is gone.
        why: it is gone, in a few words.
    """

    worker: Worker
    done: Done | None = None
    why: str = ""


class Crew(Protocol):
    """Workers that may come and go."""

    def idle(self) -> Sequence[Worker]:
        """Those that can be given work."""

    def give(self, worker: Worker, work: Work) -> None:
        """Let an idle worker begin."""

    def events(self) -> Sequence[Event]:
        """What has happened since; waits for a while if nothing has."""

    def now(self) -> float:
        """Seconds, of a clock that does not go back."""


class ThisProcess:
    """A crew of one, which works while it is asked for news."""

    def __init__(self, make: Callable[[], Evaluator]) -> None:
        self._make = make
        self._evaluator: Evaluator | None = None
        self._work: Unit | Task | None = None

    def idle(self) -> Sequence[Worker]:
        """See `Crew`."""
        return [] if self._work is not None else [0]

    def give(self, worker: Worker, work: Work) -> None:
        """See `Crew`."""
        assert isinstance(work, Unit | Task)
        self._work = work

    def events(self) -> Sequence[Event]:
        """See `Crew`."""
        if self._work is None:
            return []
        if self._evaluator is None:
            self._evaluator = self._make()
        work, self._work = self._work, None
        return [Event(0, self._evaluator.run(work))]

    def now(self) -> float:
        """See `Crew`."""
        return time.monotonic()


Heard = Callable[[Work, Done], None]


def drive(
    schedule: Schedule, crew: Crew, *, heard: Heard, patience: int
) -> Mapping[str, int]:
    """Let a crew do all the work of a schedule.

    Args:
        schedule: says what is to be done; its `workers` are those that are to come at
            first, and then those that there are.
        crew: does it.
        heard: told of each work that is done, once.
        patience: how many workers may be lost at one and the same work, and how many in
            a row before they have begun any.

    Returns:
        counts: of workers "lost", and of second copies, whose results were "late".

    Raises:
        UserError: the same work, or starting, has cost too many workers.
    """
    has: dict[Worker, Work] = {}
    losses, late, expected = _Losses(patience), 0, schedule.workers
    while not schedule.done:
        idle = crew.idle()
        present = len(idle) + len(has)
        if present >= expected:
            expected = 1  # once all have been there, they come and go
        schedule.workers = max(present, expected)
        for worker in idle:
            work = schedule.next(worker, crew.now())
            if work is None:
                break  # what is nothing for one that is idle is nothing for all
            has[worker] = work
            crew.give(worker, work)
        for event in crew.events():
            work = has.pop(event.worker, None)
            if work is None or event.done is None:
                schedule.lost(event.worker)
                losses.add(work, event.why)
                continue
            losses.forget(work)
            if schedule.finish(event.worker, event.done.right, event.done.seconds):
                heard(work, event.done)
            else:
                late += 1
    return {"lost": losses.total, "late": late}


class _Losses:
    """Tells what costs worker after worker from workers that are lost by chance.

    Units are cut anew, so losses are counted for each atom: one that no worker survives
    is in all of them, whatever it is cut together with.
    """

    def __init__(self, patience: int) -> None:
        self.total, self._patience, self._starting = 0, patience, 0
        self._at: Counter[Hashable] = Counter()

    def add(self, work: Work | None, why: str) -> None:
        """Raises `UserError` if these are too many."""
        self.total += 1
        if work is None:
            self._starting += 1
            if self._starting > self._patience:
                raise UserError(
                    f"{self._starting} workers in a row were lost as they started "
                    f"({why}); see that one starts on each node, and the same command "
                    "goes on"
                )
            return
        self._starting = 0
        parts = _parts(work)
        self._at.update(parts)
        most = max(self._at[part] for part in parts)
        if most > self._patience:
            what = "at the same work"
            if isinstance(work, Unit):
                what = f"at the same images of {work.link.name}"
            raise UserError(
                f"{most} workers were lost {what} ({why}); give workers more memory "
                "(suite.micro_batch, cluster.workers) or shorter units "
                "(evaluate.unit_seconds), and the same command goes on"
            )

    def forget(self, work: Work) -> None:
        """It has been done."""
        self._starting = 0
        for part in _parts(work):
            self._at.pop(part, None)


def _parts(work: Work) -> Sequence[Hashable]:
    if not isinstance(work, Unit):
        return [work]
    return [(work.link, atom) for atom in work.atoms]
