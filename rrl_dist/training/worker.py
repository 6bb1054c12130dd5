"""What runs in each worker of Ray Train, and what it hears from its driver."""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rrl_dist.core.collectives import any_worker, rank, world_size
from rrl_dist.core.errors import UserError
from rrl_dist.core.interrupts import StoppedError
from rrl_dist.core.storage import read_json, write_json, writing
from rrl_dist.training.journal import TrainingDivergedError
from rrl_dist.training.stage import train_stage
from rrl_dist.training.wishes import LeftError, Wish

NOTES = "notes.txt"
# The driver's word to its workers: which of all groups is to train, and its wish.
ORDERS = "orders.json"
# How workers ended that came to the last step, beside `FINAL` and `LeftError`.
DONE = "done"
# Errors that another attempt would not mend.
FINAL: dict[str, type[BaseException]] = {
    error.__name__: error for error in (UserError, TrainingDivergedError, StoppedError)
}
LOOK_SECONDS = 0.3
# Between two looks at whether a node is about to be taken away. Clouds give notice of
# 30 seconds and more; Ray asks every 5 itself.
_PREEMPTION_SECONDS = 5.0


def ended_file(folder: Path, group: str) -> Path:
    """Where workers tell how they ended: each group has a file of its own, so that none
    that is late is taken for another."""
    return folder / f"ended-{group}.json"


def ray_worker(config: dict[str, Any]) -> None:
    """What Ray Train runs in each worker.

    It restores from the run directory; what it reports to Ray carries no checkpoint: a
    report may be lost with the controller, a file on the disk is not.
    """
    import ray.train
    from ray.train.torch import get_device

    folder, group = Path(config["folder"]), str(config["group"])
    orders = Orders(folder / ORDERS, group, ray.train.get_preemption_info)

    def train() -> None:
        if orders.heard() is Wish.SUPERSEDED:  # while this worker was starting
            raise LeftError(Wish.SUPERSEDED)
        train_stage(
            config["stage"],
            folder,
            device=get_device(),
            after_epoch=_Reports(ray.train.report),
            notify=partial(_note, folder),
            wishes=orders,
        )

    tell_end(ended_file(folder, group), train)


def tell_end(file: Path, train: Callable[[], None]) -> None:
    """Train, and write down how that ended, unless this worker or its disk is lost.

    What another attempt would not mend ends a worker alone as if all were well: raised,
    Ray would tell of lost workers. Several raise, since one of them may be the only one
    to know, and the others wait for it in a collective. A request to leave, and the
    last step, all of them know, and the first tells.

    Args:
        file: see `ended_file`.
        train: until the end, or an error.
    """
    try:
        train()
        if rank() == 0:
            _tell(file, DONE, "")
    except LeftError as left:
        if rank() == 0:
            _tell(file, LeftError.__name__, str(left))
    except tuple(FINAL.values()) as error:
        try:
            _tell(file, type(error).__name__, str(error))
        except UserError:  # on a full disk: then Ray has to carry it
            raise error from None
        if world_size() > 1 and not isinstance(error, StoppedError):
            raise


def _tell(file: Path, kind: str, why: str) -> None:
    write_json(file, {"kind": kind, "why": why})


class Orders:
    """What the driver wishes, read from a file a few times a second at most: steps may
    be shorter than a look at a file system of the network.

    Args:
        path: of the file.
        group: whose worker this is.
        notice: `ray.train.get_preemption_info`.
        clock: of seconds.
    """

    def __init__(
        self,
        path: Path,
        group: str,
        notice: Callable[[], Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path, self.group, self.notice, self.clock = path, group, notice, clock
        self._read, self._looked = -math.inf, clock()

    def heard(self) -> Wish:
        """See `Wishes`."""
        now = self.clock()
        if now - self._read < LOOK_SECONDS:
            return Wish.GO_ON
        self._read = now
        try:
            orders: Mapping[str, str] = read_json(self.path)
        except (OSError, ValueError):  # a file system that is away for a moment
            return Wish.GO_ON
        if orders["group"] != self.group:
            return Wish.SUPERSEDED
        wish = Wish[orders["wish"]]
        if wish is Wish.GO_ON and now - self._looked > _PREEMPTION_SECONDS:
            self._looked = now
            return Wish.LOOK
        return wish

    def preempted(self) -> bool:
        """See `Wishes`."""
        return self.notice() is not None


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
