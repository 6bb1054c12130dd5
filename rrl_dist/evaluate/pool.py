"""Evaluation work shared out: in this process, or to Ray actors that pull tasks.

Attempts may repeat (an actor dies, a task is tried again): what a task leaves is one
file, written atomically, the same whoever writes it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.plan import Task
from rrl_dist.evaluate.robust import Evaluator, Job
from rrl_dist.training.cluster import worker_variables
from rrl_dist.training.devices import own_device

Progress = Callable[[int], None]


def run_tasks(
    job: Job,
    tasks: Sequence[Task],
    folder: Path,
    cluster: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Do those of `tasks` whose files are not there yet.

    Args:
        job: see `Evaluator`.
        tasks: the whole plan.
        folder: receives their files; all workers must be able to write it.
        cluster: `kind`, `workers`, `cpus_per_worker`, `gpu`.
        progress: told the number of samples of each finished task, those found
            finished included.
    """
    todo = [task for task in tasks if not (folder / task.file).is_file()]
    progress(sum(t.samples for t in tasks) - sum(t.samples for t in todo))
    if not todo:
        return
    if cluster["kind"] == "debug":
        evaluator = Evaluator(job, folder, own_device(cluster))
        for task in todo:
            evaluator.run(task)
            progress(task.samples)
    else:
        _run_on_ray(job, todo, folder, cluster, progress)


class RemoteEvaluator:
    """An `Evaluator` in an actor of its own.

    It is made with the first task: raised while an actor starts, the user's mistake
    would reach the driver as the actor's death.
    """

    def __init__(self, job: Job, folder: str, device: torch.device) -> None:
        self._make = partial(Evaluator, job, Path(folder), device)
        self._evaluator: Evaluator | None = None

    def run(self, task: Task) -> Task:
        """See `Evaluator.run`."""
        if self._evaluator is None:
            self._evaluator = self._make()
        return self._evaluator.run(task)


def _actors(
    job: Job, folder: Path, cluster: Mapping[str, Any], *, count: int
) -> list[Any]:
    import ray

    gpu = bool(cluster["gpu"])
    variables = worker_variables(threads=int(job["threads"]), gpu=gpu)
    options = {
        "num_cpus": cluster["cpus_per_worker"],
        "num_gpus": 1 if gpu else 0,
        # A lost actor comes back on another node and its task is tried again.
        "max_restarts": 3,
        "max_task_retries": 3,
        "runtime_env": {"env_vars": variables},
    }
    remote = ray.remote(RemoteEvaluator).options(**options)
    arguments = (dict(job), str(folder), own_device(cluster))
    return [remote.remote(*arguments) for _ in range(count)]


def _run_on_ray(
    job: Job,
    todo: Sequence[Task],
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
                task = _result(reference)
                progress(task.samples)
                if waiting:
                    running[actor.run.remote(waiting.pop())] = actor
    finally:
        for actor in actors:
            ray.kill(actor)


def _result(reference: Any) -> Task:
    """A task, or the user's mistake as it was raised in the actor."""
    import ray

    try:
        task: Task = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    return task
