"""An evaluation over Ray that notes beside its store what its workers do when."""

import os
import pickle
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import torch

from rrl_dist.core.errors import UserError
from rrl_dist.core.store import Store, open_store
from rrl_dist.evaluate import evaluation, pool
from rrl_dist.evaluate.crew import Event
from rrl_dist.evaluate.grid import Unit
from rrl_dist.evaluate.plan import Task
from rrl_dist.evaluate.robust import Done
from rrl_dist.evaluate.surrogates import load_models
from rrl_dist.training.cluster import session
from tests.evaluate.nodes import NODE

# Workers import this module: tests.evaluate.jobs, which takes a second, comes in where
# it is needed.

SAMPLES = 512


@dataclass(frozen=True)
class Told(Done):
    """Says of whom it is, for the driver to note that it has heard it."""

    about: str


def note(store: Store, event: str, about: str) -> None:
    with Path(f"{store.address}.log").open("ab") as log:
        # In one piece, as it is closed.
        log.write(f"{event} {time.monotonic()} {about}\n".encode())


class Witness(pool.RemoteEvaluator):
    """Notes when it begins a unit and when it has done it."""

    def run(self, payload: bytes, work: Unit | Task) -> Done:
        store, attempt = self._settings["store"], self._settings["generation"]
        about = f"{os.getpid()} {os.environ[NODE]} {attempt} {work.file}"
        note(store, "begin", about)
        done = super().run(payload, work)
        note(store, "end", about)
        return Told(**vars(done), about=about)


class Listener(pool.RayCrew):
    """Notes what it hears of workers."""

    def events(self) -> Sequence[Event]:
        found = super().events()
        for event in found:
            if isinstance(event.done, Told):
                note(self._settings["store"], "heard", event.done.about)
        return found


@dataclass(frozen=True)
class Execution:
    """A unit in the hands of a worker; `end` is infinite if it never came to that, and
    `heard` if the driver never heard of it."""

    file: str
    pid: int
    node: str
    attempt: int
    begin: float
    end: float = inf
    heard: float = inf

    @property
    def process(self) -> tuple[str, int]:
        return self.node, self.pid


def executions_in(log: Path) -> list[Execution]:
    """By their begin."""
    found: list[Execution] = []
    last: dict[tuple[str, int], int] = {}
    for line in log.read_text().splitlines():
        event, at, pid, node, attempt, file = line.split(" ", 5)
        one = Execution(file, int(pid), node, int(attempt), float(at))
        if event == "begin":
            last[one.process] = len(found)
            found.append(one)
            continue
        place = last[one.process]
        found[place] = replace(found[place], **{event: one.begin})
    return sorted(found, key=lambda one: one.begin)


def drive(
    folder: Path,
    attempt: int,
    cluster: Mapping[str, Any],
    environment: Mapping[str, str],
    printed: Path,
) -> None:
    """All that a driver does, in a process of its own that knows Ray not yet."""
    os.setsid()
    with printed.open("wb") as out:
        for stream in (1, 2):
            os.dup2(out.fileno(), stream)
    os.environ.update(environment)
    torch.set_num_threads(1)
    pool.RemoteEvaluator = Witness  # type: ignore[misc]
    evaluation.RayCrew = Listener  # type: ignore[misc]
    job = pickle.loads((folder.parent / "job.pickle").read_bytes())
    models = partial(load_models, job["classifier"], {})
    store, say = open_store(folder), partial(print, flush=True)
    try:
        with session(cluster) as where:
            made = evaluation.Evaluation(
                job, store, where, models=models, generation=attempt
            )
            made.run(lambda status: None, say)
    except UserError as error:
        say(error)
        sys.exit(2)


def small_job(folder: Path) -> dict[str, Any]:
    """Units of a quarter of a second, of a component that is three attacks in turn and
    of some that are one."""
    from rrl_dist.training.build import build
    from tests.evaluate.jobs import job_of, write_classifier
    from tests.evaluate.test_pool import from_file

    write_classifier(folder / "classifier")
    in_turn = {
        "_target_": "rrl_dist.attacks.cascade.Cascade",
        "label": "in-turn",
        "attacks": {
            "apgd_ce": from_file("apgd_ce", steps=75),
            "apgd_t": from_file("apgd_t", steps=40, targets=3),
            "square": from_file("square", queries=400),
        },
    }
    own = (f"evaluate.limit={SAMPLES}", "ball.eps=0.012")
    job = job_of(folder / "classifier", *own)
    one = {"pgd": {**job["suite"]["attacks"]["pgd20"], "steps": 80}}
    one["dlr"] = {**from_file("apgd_dlr", steps=90), "_partial_": False}
    suite = {**job["suite"], "attacks": {"in_turn": in_turn, **one}, "curve": None}
    job |= {"suite": suite, "unit_atoms": 1, "gallery": 0}
    # As they are: reading the data set takes each worker most of a second.
    job["images"] = build(job["data"]).split("train")
    (folder / "job.pickle").write_bytes(pickle.dumps(job))
    return job
