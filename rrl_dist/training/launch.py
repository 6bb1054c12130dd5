"""A training stage from its start to its end, in this process or in workers of Ray that
come and go."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from rrl_dist.core.interrupts import StoppedError, noted
from rrl_dist.core.storage import read_json, write_json
from rrl_dist.training.anomaly import anomaly_mode
from rrl_dist.training.attempts import Attempts, newest_step
from rrl_dist.training.checkpoint import Checkpoints
from rrl_dist.training.cluster import check_places
from rrl_dist.training.devices import own_device
from rrl_dist.training.precision import check_precision
from rrl_dist.training.room import least_workers
from rrl_dist.training.stage import train_stage
from rrl_dist.training.wishes import Request
from rrl_dist.training.worker import NOTES, ended_file

Config = Mapping[str, Any]
Notify = Callable[[str], None]

_DEVICES = "devices.json"  # what a stage has begun on


def launch(stage: Config, folder: Path, cluster: Config, notify: Notify) -> None:
    """Run one training stage to its end, going on where an earlier attempt stopped.

    Args:
        stage: plain configuration, see `train_stage`.
        folder: the stage's run directory, which every worker can read and write.
        cluster: as `session` yields it.
        notify: told single lines about what happens.

    Raises:
        UserError: for mistakes in the configuration.
        TrainingDivergedError: naming step and term.
        StoppedError: after Ctrl-C or SIGTERM, with the step in hand done and saved.
    """
    cluster = {**cluster, "gpu": on_gpus(cluster, folder, notify)}
    check_precision(stage["strategy"]["precision"], gpu=cluster["gpu"])
    if (step := newest_step(folder)) is not None:
        notify(f"going on from step {step}")
    with noted() as asked:
        if cluster["kind"] == "debug":
            with anomaly_mode(cluster):
                _launch_here(stage, folder, own_device(cluster), notify, asked)
        else:
            _launch_on_ray(stage, folder, cluster, notify, asked)
        if asked():
            raise StoppedError("stopped after the last step")


def _launch_here(
    stage: Config,
    folder: Path,
    device: torch.device,
    notify: Notify,
    asked: Callable[[], bool],
) -> None:
    train_stage(
        stage,
        folder,
        device=device,
        after_epoch=_nothing,
        notify=notify,
        wishes=Request(asked),
    )


def _nothing(told: Any) -> None:
    """Under debug nobody waits for a report."""


def _launch_on_ray(
    stage: Config,
    folder: Path,
    cluster: Config,
    notify: Notify,
    asked: Callable[[], bool],
) -> None:
    if newest_step(folder) is None:  # a run that has begun may wait for its nodes
        check_places({**cluster, "workers": least_workers(cluster)})
    write_json(folder / _DEVICES, {"gpu": cluster["gpu"]})
    # A checkpoint that no worker could go on from is told before they start; those that
    # are passed over, by the worker.
    Checkpoints(folder / "checkpoints", _nothing).load()
    for left in (folder / NOTES, *folder.glob(ended_file(folder, "*").name)):
        left.unlink(missing_ok=True)
    attempts = Attempts(stage, folder, cluster, notify, asked)
    while not attempts.one():
        pass


def on_gpus(cluster: Config, folder: Path, notify: Notify) -> bool:
    """Whether a stage's workers have GPUs: where nobody says so, as when it began.

    Nodes with GPUs may be gone when a driver is started again, and will be waited for.

    Args:
        cluster, folder, notify: as of `launch`.
    """
    gpu, file = bool(cluster["gpu"]), folder / _DEVICES
    if cluster.get("asked_gpu") != "auto" or newest_step(folder) is None:
        return gpu
    if not file.is_file() or (before := bool(read_json(file)["gpu"])) == gpu:
        return gpu
    kind, other = ("GPUs", "CPUs") if before else ("CPUs", "GPUs")
    notify(
        f"this stage began on {kind} and goes on on {kind}; to go on on {other} set "
        f"cluster.gpu={str(gpu).lower()}"
    )
    return before
