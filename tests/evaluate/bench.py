"""What the distributed evaluator takes: workers, units, memory, and what it predicts.

    python -m tests.evaluate.bench docs/evaluator.md

Each part is measured alone, one after another; nothing else should use the machine.
Names of parts after the page, such as `units memory`, print these and write nothing.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pyarrow as pa
import torch
from omegaconf import OmegaConf
from torch import nn

from rrl_dist.attacks.passes import Passes
from rrl_dist.core.store import open_store
from rrl_dist.evaluate import pool
from rrl_dist.evaluate.costs import Costs
from rrl_dist.evaluate.crew import Worker, drive
from rrl_dist.evaluate.evaluation import Evaluation
from rrl_dist.evaluate.grid import ATOM, Link
from rrl_dist.evaluate.images import GivenImages, given_images
from rrl_dist.evaluate.plan import Suite
from rrl_dist.evaluate.robust import Done
from rrl_dist.evaluate.schedule import Cut, Schedule, Work
from rrl_dist.evaluate.status import Status, status_of
from rrl_dist.evaluate.subject import Models
from rrl_dist.evaluate.suites import CONFIGS, suite_config
from rrl_dist.training.cluster import session
from tests.evaluate.bench_machine import Machine, fixture, machine
from tests.evaluate.bench_memory import Job, job_of, memory
from tests.evaluate.simulation import write_between
from tests.evaluate.virtual import BALL

START, END = "<!-- bench -->", "<!-- /bench -->"
LOCAL = {"kind": "local", "threads": 1, "gpu": False, "max_failures": 3}
UNITS = 5000
# AutoAttack's attacks with fewer steps: a minute or two of a worker on the fixture.
STEPS = {
    "apgd_ce": {"steps": 50},
    "apgd_t": {"steps": 50},
    "fab_t": {"steps": 30},
    "square": {"queries": 1500},
}


def in_turn(steps: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """A suite of one component, AutoAttack's attacks in turn with other settings."""
    parts: dict[str, Any] = {}
    for name, changes in steps.items():
        config = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"attack/{name}.yaml"))
        assert isinstance(config, dict)
        parts[name] = {**config, "_partial_": True, **changes}
    cascade = "rrl_dist.attacks.cascade.Cascade"
    made = {"_target_": cascade, "label": "in-turn", "attacks": parts}
    return {**suite_config("autoattack"), "attacks": {"in_turn": made}}


class Timed(pool.RayCrew):
    """Gives nothing out before all its workers are there.

    Attributes:
        began: when the first unit was given out.
    """

    began = 0.0

    def idle(self) -> Sequence[Worker]:
        """See `Crew`."""
        return [] if self._pending and not self.began else super().idle()

    def give(self, worker: Worker, work: Work) -> None:
        """See `Crew`."""
        self.began = self.began or time.monotonic()
        super().give(worker, work)


class Observed(Evaluation):
    """Whose workers are `Timed`."""

    @cached_property
    def _crew(self) -> Timed:
        options = {"generation": self.generation}
        crew = Timed(self.job, self.models, self.store, self.cluster, **options)
        self._stack.callback(crew.close)
        return crew


@dataclass(frozen=True)
class Look:
    """After a unit: what is said to be left in all, by link what is left and what was
    spent, in seconds of a worker; and when."""

    left: float | None
    by_link: Mapping[Link, float | None]
    spent: Mapping[Link, float]
    at: float


def attacked(
    model: nn.Module,
    images: GivenImages,
    suite: Mapping[str, Any],
    workers: int,
    *,
    ball: Mapping[str, Any] = BALL,
) -> tuple[list[Look], float, dict[str, Any]]:
    """Evaluate over Ray, a thread each.

    Returns:
        looks, at the start and after each unit; seconds from the first unit given out
        to the last one's end; results.
    """
    job: Job = {**job_of(images), "suite": dict(suite), "ball": dict(ball)}
    looks: list[Look] = []
    with TemporaryDirectory() as folder, session({**LOCAL, "workers": workers}) as at:
        made = partial(Models, deepcopy(model), {})
        evaluation = Observed(job, open_store(folder), at, models=made)

        def watch(_: Status) -> None:
            left = evaluation.costs.left(evaluation.schedule)
            spent = {n: p.seconds for n, p in evaluation.schedule.pace.items()}
            looks.append(Look(left.total, left.seconds, spent, time.monotonic()))

        results = evaluation.run(watch, print)
        return looks, looks[-1].at - evaluation._crew.began, results


@dataclass(frozen=True)
class Foreseen:
    """Seconds of a worker that were predicted and those that were taken, at the start
    and after the first attack of the cascade."""

    at_start: tuple[float, float]
    after_first: tuple[float, float]


def foreseen(looks: Sequence[Look]) -> Foreseen:
    """Of one worker's looks."""
    first = next(link for link in looks[0].spent if link.attack not in (None, "clean"))
    total = sum(looks[-1].spent.values())
    later = next(o for o in looks if o.spent[first] and not o.by_link[first])
    pairs = [
        (look.left, total - sum(look.spent.values())) for look in (looks[0], later)
    ]
    at_start, after_first = ((left or 0.0, took) for left, took in pairs)
    return Foreseen(at_start, after_first)


def workers_and_prediction() -> list[tuple[str, str, str]]:
    model, items = fixture()
    images = given_images(items, classes=10)
    suite = in_turn(STEPS)
    one, alone, results = attacked(model, images, suite, 1)
    _, shared, again = attacked(model, images, suite, 2)
    assert results == again
    return [*_ratios(alone, shared, machine()), *_predictions(foreseen(one))]


def _ratios(alone: float, shared: float, here: Machine) -> list[tuple[str, str, str]]:
    return [
        (
            "AutoAttack with fewer steps on the 256 images, one worker and two of one "
            "thread each, from the first unit to the end, all workers being there",
            f"{alone:.1f} s, {shared:.1f} s: **{shared / alone:.2f}**",
            "0.56",
        ),
        (
            "what the machine allows: gradient calls of the same network in two "
            "processes without a scheduler, one after the other and at once",
            f"{here.in_turn:.1f} s, {here.at_once:.1f} s: {here.ratio:.2f}",
            "",
        ),
        (
            "the first of these ratios over the second",
            f"{shared / alone / here.ratio:.2f}",
            "",
        ),
    ]


def _predictions(found: Foreseen) -> list[tuple[str, str, str]]:
    def off(pair: tuple[float, float]) -> str:
        return f"{pair[0]:.0f} s, {pair[1]:.0f} s: {pair[0] / pair[1]:.2f}"

    return [
        (
            "one worker's seconds in that as predicted and as taken, from the start",
            off(found.at_start),
            "",
        ),
        ("the same, from the end of APGD-CE", off(found.after_first), "1.5 or 1 / 1.5"),
    ]


def per_unit(units: int, workers: int = 2) -> tuple[float, float]:
    """Seconds, and CPU seconds of the driver, for each of some units whose work is
    nothing."""

    class Empty(pool.RemoteEvaluator):
        def run(self, payload: bytes, work: Any) -> Done:
            return Done(work.positions, 0.0, Passes())

    link = Link("nothing")
    suite = Suite({link.name: None}, (link.name,), (), (), None, link.name)
    cut = Cut(seconds=30.0, least=ATOM, atoms=1)
    schedule = Schedule([(link,)], units * ATOM, workers=workers, cut=cut)
    costs = Costs(suite, suite.chains, classes=10)
    told: list[Status] = []
    models = Models(nn.Identity(), {})
    with (
        mock.patch.object(pool, "RemoteEvaluator", Empty),
        session({**LOCAL, "workers": workers}) as at,
        TemporaryDirectory() as folder,
    ):
        store = open_store(folder)
        crew = Timed({"threads": 1}, models, store, at, generation=0)
        begin = time.process_time()
        drive(
            schedule,
            crew,
            heard=lambda work, done: told.append(status_of(schedule, costs)),
            patience=0,
        )
        wall, own = time.monotonic() - crew.began, time.process_time() - begin
        crew.close()
    assert len(told) == units
    assert told[-1].settled == units * ATOM
    return wall / units, own / units


def overhead() -> list[tuple[str, str, str]]:
    wall, own = per_unit(UNITS)
    what = f"{UNITS:,} units whose work is nothing, two workers, each"
    told = f"**{1000 * wall:.2f} ms**, of these {1000 * own:.2f} ms CPU of the driver"
    return [(what, told, "3 ms")]


PARTS: Mapping[str, Callable[[], list[tuple[str, str, str]]]] = {
    "workers": workers_and_prediction,
    "units": overhead,
    "memory": memory,
}


def table(parts: Sequence[str]) -> str:
    """As Markdown."""
    lines = ["| what | measured | aim |", "| :-- | :-- | :-- |"]
    for part in parts:
        for row in PARTS[part]():
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    import ray

    told = (
        f"`python -m tests.evaluate.bench docs/evaluator.md`, {date.today()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, torch "
        f"{torch.__version__}, Ray {ray.__version__}, pyarrow {pa.__version__}."
    )
    return "\n".join([told, "", *lines])


def main(first: str, *rest: str) -> None:
    """See the head of this file."""
    found = table(rest or list(PARTS))
    if not rest:
        write_between(Path(first), found, START, END)


if __name__ == "__main__":
    main(*sys.argv[1:])
