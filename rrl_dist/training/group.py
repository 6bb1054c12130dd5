"""One group of Ray Train's workers, from its start to its end or loss."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json, write_json
from rrl_dist.training.cluster import worker_variables
from rrl_dist.training.wishes import Wish
from rrl_dist.training.worker import (
    FINAL,
    LOOK_SECONDS,
    ORDERS,
    ended_file,
    ray_worker,
)

# Until a placement group is there and its processes have begun; what they load is their
# own time.
START_SECONDS = 120
_STORED = "ray"  # the folder of Ray's own records, which nobody reads


@dataclass(frozen=True)
class Group:
    """Workers that train together.

    Attributes:
        folder: the stage's run directory, which every worker can read and write.
        driver: whose they are; no other driver has this name.
        number: of the group, from 1 on.
        size: how many workers.
    """

    folder: Path
    driver: str
    number: int
    size: int

    @property
    def name(self) -> str:
        """That no other group has."""
        return f"{self.driver}-{self.number}"

    def order(self, wish: Wish) -> None:
        """Write down what its workers are to hear.

        The first word of a driver's first group takes the run over: workers of other
        drivers leave.

        Raises:
            UserError: another driver has taken it over since.
        """
        takes_over = self.number == 1 and wish is Wish.GO_ON
        if not takes_over and not self._is_drivers():
            raise superseded(self.folder)
        orders = {"group": self.name, "wish": wish.name}
        write_json(self.folder / ORDERS, orders)

    def _is_drivers(self) -> bool:
        try:
            named = str(read_json(self.folder / ORDERS)["group"])
        except (OSError, ValueError):  # a file system that is away for a moment
            return True
        return named.startswith(f"{self.driver}-")


def superseded(folder: Path) -> UserError:
    """What a driver ends with whose run another one has taken over."""
    return UserError(
        f"the same run was begun again elsewhere, and goes on there; if it does not, "
        f"give the same command again ({folder})"
    )


@dataclass(frozen=True)
class Ended:
    """How a group ended.

    Attributes:
        size: how many workers it had.
        told: `kind` and `why`, written by a worker; empty where it was lost.
        lost: the first cause, where workers or their controller were lost.
        crowded: none was lost: they did not find the room that there had been.
    """

    size: int
    told: Mapping[str, str] = field(default_factory=dict)
    lost: BaseException | None = None
    crowded: bool = False


def run_group(
    group: Group,
    stage: Mapping[str, Any],
    cluster: Mapping[str, Any],
    wished: Callable[[], Wish],
    unfit: Sequence[str] = (),
) -> Ended:
    """Train until the last step, a wish, or a loss.

    Args:
        group: whose workers are started.
        stage: plain configuration, see `train_stage`.
        cluster: as `session` yields it.
        wished: asked a few times a second for what workers are to hear.
        unfit: ids of nodes where none is to be.

    Raises:
        UserError: another driver has taken the run over.
    """
    group.order(Wish.GO_ON)
    folder, said = group.folder, Wish.GO_ON
    trainer = trainer_of(stage, folder, cluster, group.size, group.name, unfit)
    ended = _started(trainer)
    while wait([ended], timeout=LOOK_SECONDS).not_done:
        wish = wished() if said is not Wish.STOP else said
        if wish not in (said, Wish.GO_ON):
            group.order(wish)
            said = wish
    shutil.rmtree(folder / _STORED / group.name, ignore_errors=True)
    error = ended.exception()
    if error is not None and not isinstance(error, _of_loss()):
        raise error
    return how_ended(group, error)


def how_ended(group: Group, error: BaseException | None) -> Ended:
    """What a group's end means.

    Args:
        group: that has ended.
        error: what Ray Train raised, if it did.
    """
    told = ended_file(group.folder, group.name)
    if told.is_file():
        return Ended(group.size, told=read_json(told))
    if error is None:
        silent = RuntimeError("they ended without a word")
        return Ended(group.size, lost=silent)
    return Ended(group.size, lost=first_cause(error), crowded=_is_crowded(error))


def trainer_of(
    stage: Mapping[str, Any],
    folder: Path,
    cluster: Mapping[str, Any],
    workers: int,
    group: str,
    unfit: Sequence[str] = (),
) -> Any:
    """Ray Train's trainer of the group of this name; see `run_group`."""
    # Ray Train reads these when it is imported; a report waits for the next poll.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", f"{START_SECONDS}")
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import FailureConfig, RunConfig

    from rrl_dist.training.ray_backend import ProcessGroup

    gpu, threads = bool(cluster["gpu"]), int(cluster["threads"])
    # Typed Any: signatures still name the classes of before V2.
    run_config: Any = RunConfig(
        # A name of its own: Ray would go on from its own records of an earlier
        # attempt, and ours are in the run directory.
        name=group,
        storage_path=str(folder / _STORED),
        # Who goes on, and with how many, is decided by `launch`.
        failure_config=FailureConfig(
            max_failures=0, controller_failure_limit=0, max_preemption_failures=0
        ),
        worker_runtime_env={"env_vars": worker_variables(threads=threads, gpu=gpu)},
    )
    return TorchTrainer(
        ray_worker,
        train_loop_config={
            "stage": dict(stage),
            "folder": str(folder),
            "group": group,
        },
        torch_config=ProcessGroup(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(**_scaling(cluster, workers, unfit)),
        run_config=run_config,
    )


def _scaling(
    cluster: Mapping[str, Any], workers: int, unfit: Sequence[str]
) -> dict[str, Any]:
    """How many workers, with what each, and where."""
    gpu = bool(cluster["gpu"])
    gpus = {"GPU": cluster.get("gpus_per_worker", 1)} if gpu else {}
    elsewhere = {"ray.io/node-id": f"!in({','.join(unfit)})"} if unfit else None
    return {
        "num_workers": workers,
        "use_gpu": gpu,
        "resources_per_worker": {"CPU": cluster["cpus_per_worker"], **gpus},
        "label_selector": elsewhere,
    }


def _started(trainer: Any) -> Future[None]:
    """Train in a thread of its own: in the main one Ray puts its own handler of Ctrl-C
    in the place of ours, and aborts."""
    ended: Future[None] = Future()

    def fit() -> None:
        try:
            trainer.fit()
            ended.set_result(None)
        except BaseException as error:
            ended.set_exception(error)

    Thread(target=fit, daemon=True).start()
    return ended


def _of_loss() -> tuple[type[BaseException], ...]:
    """What Ray raises where workers, their node or their controller are lost, or do not
    come together."""
    from ray.exceptions import RayError
    from ray.train.v2.api.exceptions import TrainingFailedError

    return (TrainingFailedError, RayError)


def _is_crowded(error: BaseException) -> bool:
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    failure = getattr(error, "controller_failure", None)
    return isinstance(failure, WorkerGroupStartupTimeoutError)


def first_cause(error: BaseException) -> BaseException:
    """Out of Ray's wrapping, the one of its causes that tells most.

    Where one worker fails the others lose their connection to it.

    Args:
        error: what Ray Train raised.
    """
    own = getattr(error, "controller_failure", error)
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {0: own})
    causes: list[BaseException] = [
        getattr(failure, "cause", None) or failure for failure in failures.values()
    ]
    told = [cause for cause in causes if isinstance(cause, tuple(FINAL.values()))]
    return [*told, *causes, error][0]
