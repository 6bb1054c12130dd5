"""Groups of Ray Train's workers, one after another, until one trains to the end."""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rrl_dist.core.interrupts import StoppedError
from rrl_dist.training.checkpoint import step_of
from rrl_dist.training.group import (
    START_SECONDS,
    Ended,
    Group,
    run_group,
    superseded,
)
from rrl_dist.training.node_data import Readers
from rrl_dist.training.room import Sizes, Waiting, group_size, room_now
from rrl_dist.training.wishes import Wish
from rrl_dist.training.worker import DONE, FINAL

Config = Mapping[str, Any]
Notify = Callable[[str], None]

_LEFT = {
    Wish.RESIZE.name: "there is room for more workers",
    Wish.PREEMPTED.name: "a node is about to be taken away",
}


def newest_step(folder: Path) -> int | None:
    """Of the checkpoints in a stage's folder."""
    steps = (step_of(file.name) for file in (folder / "checkpoints").glob("step-*"))
    return max((step for step in steps if step is not None), default=None)


@dataclass
class Attempts:
    """The groups of one driver.

    Args:
        stage: plain configuration, see `train_stage`.
        folder: the stage's run directory, which every worker can read and write.
        cluster: as `session` yields it.
        notify: told single lines.
        asked: whether somebody wants the run to stop.
    """

    stage: Config
    folder: Path
    cluster: Config
    notify: Notify
    asked: Callable[[], bool]
    driver: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)
    begun: int = field(default=0, init=False)  # groups
    losses: int = field(default=0, init=False)  # at the same place, in a row
    reached: int | None = field(default=None, init=False)

    @cached_property
    def batch_size(self) -> int:
        """Of the global batch."""
        return int(self.stage["train"]["batch_size"])

    @cached_property
    def readers(self) -> Readers:
        """Nodes that workers may be on."""
        return Readers(self.stage, self.cluster, self.notify)

    @cached_property
    def sizes(self) -> Sizes:
        """What earlier groups have found."""
        return Sizes(self.cluster, self.batch_size)

    def one(self) -> bool:
        """Run one group; returns whether the stage has come to its end.

        Raises:
            UserError: a mistake, or another driver has taken the run over.
            StoppedError: having been asked to stop.
        """
        most = {**self.cluster, "workers": self.sizes.most}
        look = partial(room_now, self.cluster, held=0, fit=self.readers.fit)
        size = Waiting(most, self.batch_size, look, self.notify).until(self.asked)
        if not size:
            raise StoppedError("stopped while waiting for room")
        self.begun += 1
        group = Group(self.folder, self.driver, self.begun, size)
        wished, unfit = _Growth(self, size), self.readers.unfit()
        return self.judge(run_group(group, self.stage, self.cluster, wished, unfit))

    def judge(self, ended: Ended) -> bool:
        """Whether that was the end of the stage; raises what no attempt would mend."""
        if ended.crowded:
            self._missed(ended.size)
            return False
        self.sizes.found(ended.size)
        if ended.lost is not None:
            self._count(ended.lost)
            return False
        kind, why = ended.told["kind"], ended.told["why"]
        if kind in FINAL:
            raise FINAL[kind](why)
        if kind == DONE:
            return self._has_model()
        if why == Wish.SUPERSEDED.name:
            raise superseded(self.folder)
        if why == Wish.RESIZE.name:
            self.sizes.lift()
        step = newest_step(self.folder) or 0
        self.notify(f"{_LEFT[why]}; going on from step {step}")
        return False

    def _has_model(self) -> bool:
        model = self.folder / "model.safetensors"
        if not model.is_file():
            self._count(RuntimeError(f"{model} is not seen here"))
            return False
        return True

    def _missed(self, size: int) -> None:
        self.sizes.missed(size)
        self.notify(
            f"{size} workers did not find their places within {START_SECONDS} s, "
            f"though there seemed to be room; trying again with {self.sizes.most}"
        )

    def _count(self, lost: BaseException) -> None:
        """Raises the cause, after more losses than `max_failures` allows with nothing
        saved between them."""
        step = newest_step(self.folder)
        self.losses = self.losses + 1 if step == self.reached else 1
        self.reached = step
        if self.losses > int(self.cluster["max_failures"]):
            raise lost
        cause = f"{lost}".strip().partition("\n")[0] or type(lost).__name__
        self.notify(f"workers were lost ({cause}); going on from step {step or 0}")


@dataclass
class _Growth:
    """What a running group hears: to stop, or to make room for a larger one."""

    attempts: Attempts
    size: int
    looked: float = field(default_factory=time.monotonic)

    def __call__(self) -> Wish:
        run, now = self.attempts, time.monotonic()
        if run.asked():
            return Wish.STOP
        most = int(run.cluster["workers"])
        if self.size == most or now - self.looked < run.sizes.pause:
            return Wish.GO_ON
        self.looked = now
        room = room_now(run.cluster, held=self.size, fit=run.readers.fit)
        larger = group_size(
            run.batch_size, least=self.size + 1, most=most, room=room.free
        )
        return Wish.RESIZE if larger else Wish.GO_ON
