"""Evaluation work shared out: in this process, or to Ray actors that pull units.

Attempts may repeat (an actor dies, a task is retried): a unit's rows are one file,
written atomically, the same whoever writes it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.plan import Unit
from rrl_dist.evaluate.robust import Evaluator, Job
from rrl_dist.training.cluster import thread_variables

Progress = Callable[[int], None]


def run_units(
    job: Job,
    units: Sequence[Unit],
    folder: Path,
    cluster: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Do those of `units` whose rows are not there yet.

    Args:
        job: see `Evaluator`.
        units: the whole plan.
        folder: receives `rows/`; all workers must be able to write it.
        cluster: `kind`, `workers`, `cpus_per_worker`, `gpu`.
        progress: told the number of samples of each finished unit, those found
            finished included.
    """
    done = [u for u in units if (folder / "rows" / u.file).is_file()]
    progress(sum(u.samples for u in done))
    todo = [u for u in units if u not in done]
    if not todo:
        return
    if cluster["kind"] == "debug":
        evaluator = Evaluator(job, folder, _own_device())
        for unit in todo:
            evaluator.run(unit)
            progress(unit.samples)
    else:
        _run_on_ray(job, todo, folder, cluster, progress)


def gallery(
    job: Job, component: str, folder: Path, cluster: Mapping[str, Any], *, count: int
) -> dict[str, np.ndarray]:
    """A few attacked images of one component, made where the evaluation runs."""
    if cluster["kind"] == "debug":
        return Evaluator(job, folder, _own_device()).gallery(component, count)
    import ray

    (actor,) = _actors(job, folder, cluster, count=1)
    found: dict[str, np.ndarray] = ray.get(actor.gallery.remote(component, count))
    ray.kill(actor)
    return found


def _own_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class RemoteEvaluator:
    """An `Evaluator` in an actor of its own, which finds its device itself."""

    def __init__(self, job: Job, folder: str) -> None:
        self._evaluator = Evaluator(job, Path(folder), _own_device())

    def run(self, unit: Unit) -> Unit:
        """See `Evaluator.run`."""
        return self._evaluator.run(unit)

    def gallery(self, component: str, count: int) -> dict[str, np.ndarray]:
        """See `Evaluator.gallery`."""
        return self._evaluator.gallery(component, count)


def _actors(
    job: Job, folder: Path, cluster: Mapping[str, Any], *, count: int
) -> list[Any]:
    import ray

    options = {
        "num_cpus": cluster["cpus_per_worker"],
        "num_gpus": 1 if cluster["gpu"] else 0,
        # A lost actor comes back on another node and its unit is tried again.
        "max_restarts": 3,
        "max_task_retries": 3,
        "runtime_env": {"env_vars": thread_variables(int(job["threads"]))},
    }
    remote = ray.remote(RemoteEvaluator).options(**options)
    return [remote.remote(dict(job), str(folder)) for _ in range(count)]


def _run_on_ray(
    job: Job,
    todo: Sequence[Unit],
    folder: Path,
    cluster: Mapping[str, Any],
    progress: Progress,
) -> None:
    import ray

    waiting = list(reversed(todo))
    actors = _actors(
        job, folder, cluster, count=min(int(cluster["workers"]), len(todo))
    )
    running = {actor.run.remote(waiting.pop()): actor for actor in actors}
    try:
        while running:
            ready, _ = ray.wait(list(running), num_returns=1)
            for reference in ready:
                actor = running.pop(reference)
                unit = _result(reference)
                progress(unit.samples)
                if waiting:
                    running[actor.run.remote(waiting.pop())] = actor
    finally:
        for actor in actors:
            ray.kill(actor)


def _result(reference: Any) -> Unit:
    """A unit, or the user's mistake as it was raised in the actor."""
    import ray

    try:
        unit: Unit = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    return unit
