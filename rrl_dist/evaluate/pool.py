"""Workers of an evaluation as Ray actors.

The model travels once, through the object store. Actors ask for nothing: the driver
gives each its next unit. One that is lost is replaced; one for which there is no room
yet waits for a node to come. Beyond those that were asked for, more are hired where
there is room.
"""

import itertools
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.store import Store
from rrl_dist.evaluate.corruption_files import files_of
from rrl_dist.evaluate.crew import Event, Worker
from rrl_dist.evaluate.grid import Unit
from rrl_dist.evaluate.ledger import MANIFEST
from rrl_dist.evaluate.plan import Task
from rrl_dist.evaluate.robust import Done, Evaluator, Job
from rrl_dist.evaluate.schedule import Work
from rrl_dist.evaluate.subject import Models
from rrl_dist.training.cluster import worker_variables
from rrl_dist.training.devices import own_device

# Seconds that the driver sleeps at most: slow units are looked for that often.
_LOOK = 1.0
# Seconds between two looks at whether there is room for more workers.
_GROWTH = 3.0


class RemoteEvaluator:
    """An `Evaluator` in an actor of its own.

    It is made with the first work: raised while an actor starts, the user's mistake
    would reach the driver as the actor's death.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        self._evaluator: Evaluator | None = None

    def ready(self) -> None:
        """Returns when the actor has a place to be in."""

    def run(self, payload: bytes, work: Unit | Task) -> Done:
        """See `Evaluator.run`; `payload` is what `RayCrew` packed."""
        if self._evaluator is None:
            import ray.cloudpickle

            # Where the driver finds the modules of a classifier, workers do too.
            sys.path += [p for p in self._settings["path"] if p not in sys.path]
            _check_shared(self._settings["store"])
            job, models = ray.cloudpickle.loads(payload)
            evaluator = Evaluator(
                job,
                models,
                self._settings["store"],
                self._settings["device"],
                generation=self._settings["generation"],
            )
            _check_images(evaluator, job.get("read"))
            _check_files(job)
            self._evaluator = evaluator
        return self._evaluator.run(work)


class RayCrew:
    """Actors: as many as are asked for, and more where a node brings room for them.

    Args:
        job, models, store, generation: see `Evaluator`; of the job perhaps `read`, the
            fingerprint of its images, and `files`, that of its corruptions' files.
        cluster: `workers`, `cpus_per_worker`, `gpu`, perhaps `max_workers`, those that
            there may be, and `gpus_per_worker`, a share of one.
    """

    def __init__(
        self,
        job: Job,
        models: Models,
        store: Store,
        cluster: Mapping[str, Any],
        *,
        generation: int,
    ) -> None:
        import ray
        import ray.cloudpickle

        payload = ray.cloudpickle.dumps((dict(job), models))  # type: ignore[no-untyped-call]
        self._payload = ray.put(payload)
        self._settings = {
            "path": list(sys.path),
            "store": store,
            "device": own_device(cluster),
            "generation": generation,
        }
        self._options = _options(cluster, threads=int(job["threads"]))
        self._numbers = itertools.count()
        self._actors: dict[Worker, Any] = {}
        self._pending: dict[Any, Worker] = {}  # by what they will answer
        self._working: dict[Any, Worker] = {}
        self._least = int(cluster["workers"])
        self._most = int(cluster.get("max_workers") or self._least)
        self._looked = self.now()
        for _ in range(self._least):
            self._hire()

    def _hire(self) -> None:
        import ray

        worker = next(self._numbers)
        actor = ray.remote(RemoteEvaluator).options(**self._options)
        made: Any = actor.remote(self._settings)
        self._actors[worker] = made
        self._pending[made.ready.remote()] = worker

    def _grow(self) -> None:
        """Hire for room that has come up; nobody waits for room that has not."""
        import ray

        if len(self._actors) >= self._most or self.now() < self._looked + _GROWTH:
            return
        self._looked = self.now()
        free = ray.available_resources()  # type: ignore[no-untyped-call]
        needs = {"CPU": self._options["num_cpus"], "GPU": self._options["num_gpus"]}
        room = min(int(free.get(k, 0) / need) for k, need in needs.items() if need)
        # Those that are starting may not have taken theirs yet.
        more = min(room - len(self._pending), self._most - len(self._actors))
        for _ in range(more):
            self._hire()

    def idle(self) -> Sequence[Worker]:
        """See `Crew`."""
        busy = {*self._pending.values(), *self._working.values()}
        return [worker for worker in self._actors if worker not in busy]

    def give(self, worker: Worker, work: Work) -> None:
        """See `Crew`."""
        reference = self._actors[worker].run.remote(self._payload, work)
        self._working[reference] = worker

    def events(self) -> Sequence[Event]:
        """See `Crew`.

        Raises:
            UserError: the user's mistake, as it was raised in the actor.
        """
        import ray

        self._grow()
        asked = [*self._pending, *self._working]
        ready, _ = ray.wait(asked, num_returns=1, timeout=_LOOK)
        if ready:  # what else is there already
            ready, _ = ray.wait(asked, num_returns=len(asked), timeout=0)
        return [event for r in ready for event in self._news(r)]

    def _news(self, reference: Any) -> list[Event]:
        import ray

        starting = reference in self._pending
        known = self._pending if starting else self._working
        worker = known.pop(reference)
        try:
            done = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            self._dismiss(worker)
            if len(self._actors) < self._least:
                self._hire()
            return [Event(worker, why=str(error).strip().splitlines()[0])]
        return [] if starting else [Event(worker, done)]

    def _dismiss(self, worker: Worker) -> None:
        import ray

        ray.kill(self._actors.pop(worker))

    def close(self) -> None:
        """End all actors, those too that are busy with what is no longer needed."""
        for worker in list(self._actors):
            self._dismiss(worker)

    def now(self) -> float:
        """See `Crew`."""
        return time.monotonic()


def _check_shared(store: Store) -> None:
    """A node that has joined may have another folder of that name, or none.

    Raises:
        UserError: what the driver has left there is not there.
    """
    if not store.exists(MANIFEST):
        raise UserError(
            f"{store.address} on node {platform.node()} is not the folder that the "
            "command writes to; set storage= to one that all nodes share, or mount it"
        )


def _check_images(evaluator: Evaluator, read: str | None) -> None:
    """A node that has joined may have other images.

    Raises:
        UserError: they are not those of which the driver has the fingerprint.
    """
    if read is not None and evaluator.images.fingerprint != read:
        raise UserError(
            f"node {platform.node()} reads other images than the driver; set data.root "
            "to a folder that all nodes share, or copy the driver's there"
        )


def _check_files(job: Job) -> None:
    """Likewise of files of corrupted images.

    Raises:
        UserError: they are not those of which the driver has the fingerprint.
    """
    if job.get("files") is not None and files_of(job["suite"]) != job["files"]:
        raise UserError(
            f"node {platform.node()} reads other files of corruptions than the driver; "
            "set suite.corruptions.folder (or frost) to a folder that all nodes share"
        )


def _options(cluster: Mapping[str, Any], *, threads: int) -> dict[str, Any]:
    gpu = bool(cluster["gpu"])
    variables = worker_variables(threads=threads, gpu=gpu)
    return {
        "num_cpus": cluster["cpus_per_worker"],
        "num_gpus": cluster.get("gpus_per_worker", 1) if gpu else 0,
        "max_restarts": 0,  # the driver hires another
        # Not inside what a trial of a sweep has reserved for its own process.
        "scheduling_strategy": "DEFAULT",
        "runtime_env": {"env_vars": variables},
    }
