"""Where training runs: in this process, or in the workers of Ray Train."""

import math
import os
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from rrl_dist.core.collectives import any_worker, rank, world_size
from rrl_dist.core.errors import UserError
from rrl_dist.core.interrupts import StoppedError, noted
from rrl_dist.core.storage import read_json, write_json, writing
from rrl_dist.training.checkpoint import Checkpoints
from rrl_dist.training.cluster import worker_variables
from rrl_dist.training.devices import own_device
from rrl_dist.training.journal import TrainingDivergedError
from rrl_dist.training.precision import check_precision
from rrl_dist.training.stage import train_stage

Stage = Mapping[str, Any]

NOTES = "notes.txt"
FAILURE = "failure.json"
_LOOK_SECONDS = 0.3
STOP = "stop"  # the driver's wish, which rank 0 looks for
# Errors that another attempt would not mend.
_FINAL: dict[str, type[BaseException]] = {
    error.__name__: error for error in (UserError, TrainingDivergedError, StoppedError)
}


def launch(
    stage: Stage,
    folder: Path,
    cluster: Mapping[str, Any],
    notify: Callable[[str], None],
) -> None:
    """Run one training stage to its end, going on where an earlier attempt stopped.

    Args:
        stage: plain configuration, see `train_stage`.
        folder: the stage's run directory, which every worker can read and write.
        cluster: `kind` (debug, local or auto), `workers`, `threads`.
        notify: told single lines about what happens.

    Raises:
        UserError: for mistakes in the configuration.
        TrainingDivergedError: naming step and term.
        StoppedError: after Ctrl-C or SIGTERM, with the step in hand done and saved.
    """
    check_precision(stage["strategy"]["precision"], gpu=bool(cluster["gpu"]))
    with noted() as asked:
        if cluster["kind"] == "debug":
            _launch_here(stage, folder, own_device(cluster), notify, asked)
        else:
            _launch_on_ray(stage, folder, cluster, asked)
        if asked():
            raise StoppedError("stopped after the last step")


def _launch_here(
    stage: Stage,
    folder: Path,
    device: torch.device,
    notify: Callable[[str], None],
    asked: Callable[[], bool],
) -> None:
    train_stage(
        stage,
        folder,
        device=device,
        after_epoch=_nothing,
        notify=notify,
        stop=asked,
    )


def _nothing(told: Any) -> None:
    """Under debug nobody waits for a report."""


def _launch_on_ray(
    stage: Stage,
    folder: Path,
    cluster: Mapping[str, Any],
    asked: Callable[[], bool],
) -> None:
    # A checkpoint that no worker could go on from is told before they start; those that
    # are passed over, by the worker.
    Checkpoints(folder / "checkpoints", _nothing).load()
    trainer = _ray_trainer(stage, folder, cluster)
    failure = folder / FAILURE
    for left_over in (failure, folder / NOTES, folder / STOP):
        left_over.unlink(missing_ok=True)
    lost = _fit(trainer, folder / STOP, asked)
    if failure.is_file():
        told = read_json(failure)
        raise _FINAL[told["kind"]](told["message"])
    if lost is not None:
        raise _first_cause(lost)


def _ray_trainer(stage: Stage, folder: Path, cluster: Mapping[str, Any]) -> Any:
    # Ray Train reads these when it is imported; a report waits for the next poll.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    from ray.train import ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig, RunConfig

    gpu, threads = bool(cluster["gpu"]), int(cluster["threads"])
    # Typed Any: the trainer's signature still names the class of before V2.
    run_config: Any = RunConfig(
        # A name of its own: Ray would go on from its own records of an earlier
        # attempt, and ours are in the run directory.
        name=uuid.uuid4().hex,
        storage_path=str(folder / "ray"),
        failure_config=FailureConfig(max_failures=int(cluster["max_failures"])),
        worker_runtime_env={"env_vars": worker_variables(threads=threads, gpu=gpu)},
    )
    return TorchTrainer(
        ray_worker,
        train_loop_config={"stage": dict(stage), "folder": str(folder)},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=int(cluster["workers"]),
            use_gpu=gpu,
            resources_per_worker={"CPU": cluster["cpus_per_worker"]}
            | ({"GPU": 1} if gpu else {}),
        ),
        run_config=run_config,
    )


def _fit(trainer: Any, stop: Path, asked: Callable[[], bool]) -> BaseException | None:
    """Train to the end; returns the error of workers that were lost for good.

    In a thread of its own: in the main one Ray puts its own handler of Ctrl-C in the
    place of ours, and aborts.
    """
    from ray.train.v2.api.exceptions import TrainingFailedError

    ended: Future[None] = Future()

    def fit() -> None:
        try:
            trainer.fit()
            ended.set_result(None)
        except BaseException as error:
            ended.set_exception(error)

    Thread(target=fit, daemon=True).start()
    while wait([ended], timeout=_LOOK_SECONDS).not_done:
        if asked():
            stop.touch()
    error = ended.exception()
    if error is not None and not isinstance(error, TrainingFailedError):
        raise error
    return error


def _first_cause(error: BaseException) -> BaseException:
    """Of the workers' exceptions, out of Ray's wrapping, the one that tells most.

    Where one worker fails the others lose their connection to it.
    """
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    causes: list[BaseException] = [
        getattr(failure, "cause", None) or failure for failure in failures.values()
    ]
    told = [cause for cause in causes if isinstance(cause, tuple(_FINAL.values()))]
    return [*told, *causes, error][0]


def ray_worker(config: dict[str, Any]) -> None:
    """What Ray Train runs in each worker.

    It restores from the run directory; what it reports to Ray carries no checkpoint: a
    report may be lost with the controller, a file on the disk is not.

    What another attempt would not mend is written down, and a worker alone ends as if
    all were well: raised, Ray would start it again and again for it. Several raise,
    since one of them may be the only one to know, and the others wait for it in a
    collective; started again they find what is written and end. A request to stop all
    of them know.
    """
    import ray.train
    from ray.train.torch import get_device

    folder = Path(config["folder"])
    if (folder / FAILURE).is_file():
        return
    try:
        train_stage(
            config["stage"],
            folder,
            device=get_device(),
            after_epoch=_Reports(ray.train.report),
            notify=partial(_note, folder),
            stop=_StopFile(folder / STOP),
        )
    except tuple(_FINAL.values()) as error:
        told = {"kind": type(error).__name__, "message": str(error)}
        try:
            write_json(folder / FAILURE, told)
        except UserError:  # on a full disk: then Ray has to carry it
            raise error from None
        if world_size() > 1 and not isinstance(error, StoppedError):
            raise


class _StopFile:
    """Whether the file is there, looked for a few times a second at most.

    Steps may be shorter than a look at a file system of the network.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = -math.inf

    def __call__(self) -> bool:
        if time.monotonic() - self.last < _LOOK_SECONDS:
            return False
        self.last = time.monotonic()
        return self.path.exists()


class _Reports:
    """Tells Ray Train after an epoch how far it is, at most every 10 seconds.

    A report waits for the controller's next look, about half a second, which a short
    epoch would notice. All workers must report equally often, so they agree on it.
    """

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        self.report = report
        self.last = time.monotonic()

    def __call__(self, epoch: int) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if any_worker(time.monotonic() - self.last > 10, device):
            self.report({"epoch": epoch})
            self.last = time.monotonic()


def _note(folder: Path, line: str) -> None:
    """Rank 0's news, which the driver reads; workers have no terminal."""
    if rank() == 0:
        notes = folder / NOTES
        with writing(notes), notes.open("a") as file:
            file.write(line + "\n")
