"""Workers that come, go and are lost, and what is made of it."""

import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rrl_dist.attacks.passes import Passes
from rrl_dist.core.errors import UserError
from rrl_dist.core.store import open_store
from rrl_dist.evaluate.crew import Event, Worker, drive
from rrl_dist.evaluate.grid import ATOM, Link, Unit
from rrl_dist.evaluate.ledger import MANIFEST
from rrl_dist.evaluate.pool import RayCrew, RemoteEvaluator
from rrl_dist.evaluate.robust import Done
from rrl_dist.evaluate.schedule import Cut, Schedule, Work
from rrl_dist.evaluate.surrogates import load_models
from tests.evaluate.jobs import Job

LINK = Link("pgd")
EACH = 0.1  # seconds of a sample
Dies = Callable[[Worker, Work], bool]


class Fake:
    """See `Crew`: all do their work in no time, or are lost and replaced.

    Args:
        joining: workers that come one after another, one at each look.
        dies: whether a worker is lost at some work.
        unborn: how many are lost as they start, before the first that is not.
    """

    def __init__(
        self,
        joining: Iterable[Worker],
        *,
        dies: Dies = lambda worker, work: False,
        unborn: int = 0,
    ) -> None:
        self._joining, self._dies, self._unborn = list(joining), dies, unborn
        self._idle: list[Worker] = [] if unborn else [self._joining.pop(0)]
        self._doing: dict[Worker, Work] = {}
        self.given: list[Work] = []
        self._now, self._born = 0.0, len(self._joining)

    def idle(self) -> Sequence[Worker]:
        return list(self._idle)

    def give(self, worker: Worker, work: Work) -> None:
        self._idle.remove(worker)
        self._doing[worker] = work
        self.given.append(work)

    def events(self) -> Sequence[Event]:
        if self._unborn:
            self._unborn -= 1
            return [Event(f"unborn {self._unborn}", why="no torch there")]
        self._now += 1.0
        found = [self._news(*pair) for pair in self._doing.items()]
        self._doing.clear()
        if self._joining:
            self._idle.append(self._joining.pop(0))
        return found

    def _news(self, worker: Worker, work: Work) -> Event:
        if self._dies(worker, work):
            self._born += 1
            self._idle.append(f"new {self._born}")
            return Event(worker, why="it was killed")
        self._idle.append(worker)
        samples = work.samples if isinstance(work, Unit) else 0
        return Event(worker, Done((), EACH * samples, Passes()))

    def now(self) -> float:
        return self._now


def a_schedule(samples: int = 1280, **changes: Any) -> Schedule:
    settings = {"workers": 1, "cut": Cut(seconds=1e9, least=ATOM), **changes}
    return Schedule([(LINK,)], samples, **settings)


def driven(schedule: Schedule, crew: Fake, *, patience: int = 3) -> int:
    """Returns how many workers were lost."""
    heard: list[Work] = []
    counts = drive(
        schedule, crew, heard=lambda work, done: heard.append(work), patience=patience
    )
    units = [work for work in heard if isinstance(work, Unit)]
    positions = [position for unit in units for position in unit.positions]
    assert sorted(positions) == list(range(schedule.samples))
    return counts["lost"]


def test_units_are_cut_for_the_workers_that_there_are() -> None:
    """Each takes half of a fair share of what is left, whoever is there by then."""
    schedule, told = a_schedule(), []

    class Watched(Fake):
        def give(self, worker: Worker, work: Work) -> None:
            assert isinstance(work, Unit)
            told.append((schedule.workers, work.samples))
            super().give(worker, work)

    driven(schedule, Watched("abcd"))
    # 64 to see how long it takes, by the first; then 1,216 are left for two.
    assert told[:3] == [(1, 64), (2, 256), (2, 192)]
    # 768 are left for three.
    assert told[3:6] == [(3, 128), (3, 64), (3, 64)]
    assert {workers for workers, _ in told[6:]} == {4}


def test_those_that_are_still_to_come_at_the_start_count() -> None:
    schedule, told = a_schedule(workers=3), []

    class Watched(Fake):
        def give(self, worker: Worker, work: Work) -> None:
            told.append(schedule.workers)
            super().give(worker, work)

    lost: list[Worker] = []

    def dies(worker: Worker, work: Work) -> bool:
        if len(told) < 8 or lost:
            return False
        lost.append(worker)
        return True

    class WithoutHeirs(Watched):
        def _news(self, worker: Worker, work: Work) -> Event:
            event = super()._news(worker, work)
            if event.done is None:
                self._idle.pop()
            return event

    driven(schedule, WithoutHeirs("abc", dies=dies))
    assert set(told[:8]) == {3}
    assert told[-1] == 2


def test_losses_that_are_spread_over_units_do_not_end_it() -> None:
    """A single worker that lives for two units, as where machines are cheap."""
    lives: dict[Worker, int] = {}

    def dies(worker: Worker, work: Work) -> bool:
        lives[worker] = lives.get(worker, 0) + 1
        return lives[worker] == 3

    schedule = a_schedule(64 * 40, cut=Cut(30.0, ATOM, atoms=1))
    assert driven(schedule, Fake("a", dies=dies), patience=1) > 10


def test_each_unit_may_cost_some_workers() -> None:
    seen: dict[Work, int] = {}

    def dies(worker: Worker, work: Work) -> bool:
        seen[work] = seen.get(work, 0) + 1
        return seen[work] <= 2

    schedule = a_schedule(64 * 8, cut=Cut(30.0, ATOM, atoms=1))
    assert driven(schedule, Fake("ab", dies=dies), patience=2) >= 16


@pytest.mark.parametrize("workers", ["a", "abc"])
@pytest.mark.parametrize("atoms", [None, 3])
def test_a_unit_that_no_worker_survives_ends_it(
    workers: str, atoms: int | None
) -> None:
    """Whatever its images are cut together with, and whatever others have done."""
    lost = 0

    def dies(worker: Worker, work: Work) -> bool:
        nonlocal lost
        hit = isinstance(work, Unit) and 640 in work.positions
        lost += hit
        return hit

    schedule = a_schedule(cut=Cut(1e9, ATOM, atoms=atoms))
    with pytest.raises(UserError) as refusal:
        driven(schedule, Fake(workers, dies=dies), patience=3)
    assert lost in (4, 5)  # two at a time, where one had a second copy
    assert str(refusal.value) == (
        "4 workers were lost at the same images of pgd (it was killed); give workers "
        "more memory (suite.micro_batch, cluster.workers) or shorter units "
        "(evaluate.unit_seconds), and the same command goes on"
    )


def test_a_task_that_no_worker_survives_ends_it() -> None:
    schedule = a_schedule(tasks=["survey"])
    with pytest.raises(UserError, match="2 workers were lost at the same work"):
        driven(schedule, Fake("a", dies=lambda _, w: w == "survey"), patience=1)


def test_workers_that_never_start_end_it() -> None:
    assert driven(a_schedule(), Fake("a", unborn=3)) == 3
    with pytest.raises(UserError) as refusal:
        driven(a_schedule(), Fake("a", unborn=4))
    assert str(refusal.value) == (
        "4 workers in a row were lost as they started (no torch there); see that one "
        "starts on each node, and the same command goes on"
    )


class Growing(RayCrew):
    """Whose actors are nothing, on a clock that is set."""

    def __init__(self, workers: int, most: int, **needs: float) -> None:
        self.clock, self._looked = 0.0, 0.0
        self._least, self._most = workers, most
        self._options = {"num_cpus": 1, "num_gpus": 0, **needs}
        self._actors, self._pending = {}, {}
        for _ in range(workers):
            self._hire()

    def _hire(self) -> None:
        worker = len(self._actors)
        self._actors[worker] = self._pending[worker] = worker

    def look(self) -> int:
        """Three seconds later."""
        self.clock += 3.0
        self._grow()
        return len(self._actors)

    def start(self) -> None:
        self._pending.clear()

    def now(self) -> float:
        return self.clock


def test_as_many_are_hired_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = {"CPU": 0.0, "memory": 1e9}
    monkeypatch.setattr("ray.available_resources", lambda: free)
    crew = Growing(2, 5)
    assert crew.look() == 2, "there is no room"
    free["CPU"] = 2.0
    assert crew.look() == 2, "it is for those that have not started"
    crew.start()
    assert crew.look() == 4
    assert crew.look() == 4, "it is for those two"
    crew.start()
    assert crew.look() == 5, "no more than was said"
    free["CPU"] = 8.0
    assert Growing(2, 2).look() == 2


def test_of_gpus_each_has_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": 8.0, "GPU": 1.0})
    crew = Growing(1, 8, num_gpus=0.5)
    crew.start()
    assert crew.look() == 3


def test_a_node_that_sees_another_folder_is_told_of(tmp_path: Path) -> None:
    settings = {"path": [], "store": open_store(tmp_path / "run")}
    with pytest.raises(UserError, match="is not the folder that the command writes to"):
        RemoteEvaluator(settings).run(b"", Unit(LINK, (0,), (0,)))


def test_a_node_that_has_other_images_is_told_of(job: Job, tmp_path: Path) -> None:
    store, cpu = open_store(tmp_path), torch.device("cpu")
    store.write_json(MANIFEST, {})
    settings = {"path": [], "store": store, "device": cpu, "generation": 0}
    models = load_models(job["classifier"], {})
    payload = pickle.dumps(({**job, "read": "those of the driver"}, models))
    with pytest.raises(UserError, match="reads other images than the driver"):
        RemoteEvaluator(settings).run(payload, Unit(LINK, (0,), (0,)))
