"""An evaluation whose actors, second node and driver may be killed, and what of it was
done twice."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from tests.evaluate.nodes import PATIENCE, Nodes
from tests.evaluate.witness import Execution, drive, executions_in

T = TypeVar("T")
KINDS = ("actor", "node", "driver")
WORKERS = 3
# Each node has room for two actors, so both are needed, whatever is placed where.
CLUSTER = {
    "kind": "auto",
    "workers": WORKERS,
    "threads": 1,
    "gpu": False,
    "max_failures": 3 * WORKERS,
}
PAUSE = (0.1, 1.0)  # seconds of work between two kills, and until a node comes again


@dataclass(frozen=True)
class Kill:
    """What was killed when: `kind`, and an execution that this should have ended."""

    kind: str
    victim: Execution
    at: float
    seconds: float = 0.0  # until work went on

    def hits(self, execution: Execution) -> bool:
        """Whether an execution was in what was killed, if it was still going on."""
        if self.kind == "actor":
            return execution.process == self.victim.process
        key = "node" if self.kind == "node" else "attempt"
        return bool(getattr(execution, key) == getattr(self.victim, key))

    def loses(self, execution: Execution) -> bool:
        """Whether it may have been in vain: what a driver has not heard of, or what a
        driver's successor finds no file of."""
        known = execution.end if self.kind == "driver" else execution.heard
        return self.hits(execution) and known >= self.at


class Run:
    """An evaluation and its driver, which is started again when it is gone.

    Attributes:
        attempt: number of its present driver.
        kills: so far.
    """

    def __init__(
        self, nodes: Nodes, folder: Path, cluster: Mapping[str, Any] = CLUSTER
    ) -> None:
        self.nodes, self.folder, self.log = nodes, folder, Path(f"{folder}.log")
        self.cluster, self.attempt = cluster, 0
        self.kills: list[Kill] = []
        self.log.touch()
        # Drivers are forked by a process that has imported everything but Ray.
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload([drive.__module__])
        self._start()

    def _start(self) -> None:
        self.attempt += 1
        about = (self.folder, self.attempt, self.cluster)
        where = (self.nodes.environment, self._printed)
        self.driver = self._forks.Process(target=drive, args=(*about, *where))
        self.driver.start()

    @property
    def _printed(self) -> Path:
        return Path(f"{self.folder}.driver-{self.attempt}.out")

    @property
    def printed(self) -> str:
        """What the present driver has told."""
        return self._printed.read_text() if self._printed.exists() else ""

    @property
    def executions(self) -> list[Execution]:
        return executions_in(self.log)

    def ended(self) -> bool:
        """Whether the evaluation has."""
        status = self.driver.exitcode
        assert status in (None, 0), f"driver {self.attempt}: {status} {self.printed}"
        return status == 0

    def until(self, condition: Callable[[], T | None], what: str) -> T | None:
        """What becomes of a condition; None if the evaluation ends before."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            if self.ended():
                return None
            assert time.monotonic() < deadline, f"no {what}: {self.printed}"
            self.nodes.mend()
            time.sleep(0.1)
        return found

    def to_its_end(self) -> None:
        self.until(lambda: None, "end of the evaluation")

    def close(self) -> None:
        self.driver.kill()
        self.driver.join()

    def _victims(self, kind: str) -> list[Execution]:
        """What goes on at present in what may be killed.

        A second node is not killed before it has work, so each that was started in
        place of a lost one is found to be used.
        """
        going = [
            one
            for one in self.executions
            if one.end == inf and one.attempt == self.attempt
            if kind != "node" or one.node == self.nodes.name
            if not any(kill.hits(one) for kill in self.kills)
        ]
        alive = self.nodes.processes() if going else set()
        return [one for one in going if one.pid in alive]  # others were dismissed

    def kill(self, kind: str, draw: random.Random) -> Kill | None:
        """After a while of work; None if the evaluation ends before."""
        victims, what = partial(self._victims, kind), f"unit to kill a {kind} at"
        if self.until(victims, what) is None:
            return None
        time.sleep(draw.uniform(*PAUSE))
        found = self.until(victims, what)
        if found is None:
            return None
        victim = draw.choice(found)
        made = Kill(kind, victim, time.monotonic())
        self.kills.append(made)
        if kind == "actor":
            with suppress(ProcessLookupError):  # dismissed in this moment
                os.kill(victim.pid, signal.SIGKILL)
        elif kind == "node":
            self.nodes.kill_second()
            time.sleep(draw.uniform(*PAUSE))
            self.nodes.start_second()
        else:
            self.close()
            self._start()
        self.kills[-1] = replace(made, seconds=self._went_on(made) - made.at)
        return self.kills[-1]

    def _went_on(self, kill: Kill) -> float:
        """When the next unit was done, or the evaluation, if there was no other."""

        def next_end() -> float | None:
            ends = [e.end for e in self.executions if not kill.hits(e)]
            return min((end for end in ends if kill.at < end < inf), default=None)

        return self.until(next_end, "unit that ends") or time.monotonic()


@dataclass(frozen=True)
class Tally:
    """What was done in a run.

    Attributes:
        units: there are.
        executions: of them that were begun.
        in_flight: of these, as something was killed.
        again: executions of a unit that was in flight so.
        copies: executions beside another by the same driver.
    """

    units: int
    executions: int
    in_flight: int
    again: int
    copies: int


def tally(executions: Sequence[Execution], kills: Sequence[Kill]) -> Tally:
    """Counts executions, and raises AssertionError if one was without a reason."""

    def over(one: Execution) -> float:
        """When it ended or was ended."""
        by = [kill.at for kill in kills if kill.hits(one) and kill.at >= one.begin]
        return min([one.end, *by])

    last = {one.process: one for one in executions}.values()
    in_flight = {one for one in last for kill in kills if kill.loses(one)}
    lost = {one.file for one in in_flight}
    seen: list[Execution] = []
    again = copies = 0
    for one in executions:
        others = [other for other in seen if other.file == one.file]
        seen.append(one)
        beside = [o for o in others if o.attempt == one.attempt and over(o) > one.begin]
        assert len(beside) < 2, f"{one} was done beside two others: {beside}"
        if beside:
            copies += 1
        elif others:
            again += 1
            assert one.file in lost, f"{one} was done, and nobody was killed at it"
    units = len({one.file for one in executions})
    return Tally(units, len(executions), len(in_flight), again, copies)
