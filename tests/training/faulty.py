"""A worker of a run whose steps cost nothing, with the project's own checkpoints.

It is forked, and killed; what it has seen it tells through a pipe.
"""

import errno
import mmap
import os
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from rrl_dist.core.errors import UserError
from rrl_dist.core.store import open_store
from rrl_dist.training.checkpoint import Checkpoints
from rrl_dist.training.checkpoint_claim import check_owner
from rrl_dist.training.checkpoint_copy import CheckpointCopy
from rrl_dist.training.checkpoint_parts import Part, piece
from rrl_dist.training.checkpoint_policy import Kept
from rrl_dist.training.checkpoint_writer import CheckpointWriter
from rrl_dist.training.wishes import LeftError

EVERY, KEPT = 3, 2
ELEMENTS = 12  # shared evenly by 1, 2 and 3 workers
STEP_SECONDS = 0.001
NAME = "run/stage"
FULL = "as the disk is full"
# What a worker was at, by the innermost of these functions.
PLACES = {
    "CheckpointWriter._write_part": "while a part is written",
    "Checkpoints.write": "while it is committed",
    "Checkpoints.keep_only": "while older ones are removed",
    "CheckpointCopy.update": "while it is copied",
    "CheckpointWriter.recover": "while the next attempt begins",
}


@dataclass(frozen=True)
class Plan:
    """How an attempt goes.

    Attributes:
        folder: of the checkpoints.
        store: address of their copy, or None.
        best: the metric whose best checkpoint stays, or None.
        workers: how many.
        victim: which of them ends itself, or -1.
        calls: after how many calls in its writing thread.
        beginning: whether they are counted as it begins instead.
        copying: or in the thread that copies.
        full: after how many calls the disk takes no more from the victim instead, or 0.
        stops: whether it stands still (SIGSTOP) instead of ending (SIGKILL).
    """

    folder: Path
    store: str | None
    best: str | None
    workers: int
    victim: int
    calls: int
    beginning: bool
    copying: bool
    full: int
    stops: bool


class Shared:
    """Memory of all workers, and what collectives do among them.

    Where one is gone the others wait until they are killed, as in a collective.
    """

    def __init__(self, workers: int) -> None:
        self.workers, self.parent = workers, os.getpid()
        self.memory = mmap.mmap(-1, 8 * (3 * workers + 1))

    def _get(self, place: int) -> int:
        return int(struct.unpack_from("q", self.memory, 8 * place)[0])

    def _set(self, place: int, value: int) -> None:
        struct.pack_into("q", self.memory, 8 * place, value)

    def barrier(self, number: int) -> None:
        come = self._get(number) + 1
        self._set(number, come)
        while any(self._get(other) < come for other in range(self.workers)):
            time.sleep(0.0002)
            if os.getppid() != self.parent:
                os._exit(1)

    def any(self, number: int, flag: bool) -> bool:
        """`any_worker`; two rounds of flags, so that a fast worker changes none that
        a slow one has not read."""
        first = self.workers * (1 + self._get(number) % 2)
        self._set(first + number, int(flag))
        self.barrier(number)
        return any(self._get(first + other) for other in range(self.workers))

    @property
    def attempt(self) -> int:
        return self._get(3 * self.workers)

    @attempt.setter
    def attempt(self, value: int) -> None:
        self._set(3 * self.workers, value)


class Teller:
    """Lines for the parent; one write each, so that those of workers do not mix."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __call__(self, *words: object) -> None:
        os.write(self.descriptor, (" ".join(map(str, words)) + "\n").encode())


def part_of(step: int, number: int, workers: int) -> Part:
    """A worker's, of a state that is a function of the step."""
    each = ELEMENTS // workers
    own = content(step)[number * each : (number + 1) * each]
    weight = piece(own, number * each, (ELEMENTS,))
    about = {"identity": "x", "step": step, "workers": workers}
    state = {**about, "objective": {"w": weight}, "optimizer": {0: {"m": weight}}}
    return Part(state, number, workers)


def content(step: int) -> torch.Tensor:
    return torch.arange(ELEMENTS) * 1000.0 + step


def step_in(state: dict[str, Any] | None) -> int:
    """The step of a state that is whole and of one step."""
    if state is None:
        return 0
    step = int(state["step"])
    for found in (state["objective"]["w"], state["optimizer"][0]["m"]):
        assert torch.equal(found, content(step)), (step, found)
    return step


def killer(
    calls: int, tell: Teller, *, stops: bool
) -> Callable[[FrameType, str, Any], None]:
    """A profile function that ends this process after so many calls, or stops it."""
    left = [calls]

    def count(frame: FrameType, event: str, argument: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            tell("ended", *_place(frame).split())
            os.kill(os.getpid(), signal.SIGSTOP if stops else signal.SIGKILL)

    return count


def watched(work: Callable[[], None], hook: Any) -> Callable[[], None]:
    """Work whose calls a profile function counts."""

    def counted() -> None:
        sys.setprofile(hook)
        try:
            work()
        finally:
            sys.setprofile(None)

    return counted


def fill_disk(calls: int) -> None:
    """Let the disk be full after so many files were forced to it."""
    left, fsync = [calls], os.fsync

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    os.fsync = full


def measured(step: int) -> dict[str, float]:
    """What a probe finds, which has no order."""
    return {"knn_acc": step * 37 % 101 / 101, "robust_acc": step * 53 % 103 / 103}


def _place(frame: FrameType | None) -> str:
    while frame is not None:
        if frame.f_code.co_qualname in PLACES:
            return PLACES[frame.f_code.co_qualname]
        frame = frame.f_back
    return "between these"


def run(plan: Plan, number: int, shared: Shared, tell: Teller) -> None:
    """A worker's life; only the end of its process ends it."""
    try:
        _train(plan, number, shared, tell)
    except LeftError:
        tell("left", number)
    except UserError as error:
        full = "no space left" in str(error)
        tell("ended" if full else "error", *(FULL if full else repr(error)).split())
    except BaseException as error:
        if "another worker could not write" in str(error):
            os._exit(1)
        tell("error", repr(traceback.format_exc()))
    finally:
        os._exit(1)


def _fault(
    plan: Plan, number: int, tell: Teller
) -> Callable[[FrameType, str, Any], None] | None:
    """Of the victim, as a profile function if it comes at a call."""
    if number != plan.victim:
        return None
    if plan.full:
        fill_disk(plan.full)
        return None
    return killer(plan.calls, tell, stops=plan.stops)


def _train(plan: Plan, number: int, shared: Shared, tell: Teller) -> None:
    copy = None
    if plan.store is not None:
        copy = CheckpointCopy(open_store(plan.store), NAME)
        if number == 0:
            tell("there", *{n.partition("-part")[0] for n in copy._names()})
    hook = _fault(plan, number, tell)
    # Damage and what is fetched are told of; what is expected is known to the parent.
    checkpoints = Checkpoints(plan.folder, lambda line: None)
    writer = CheckpointWriter(checkpoints, Kept(KEPT, plan.best), copy)
    if number == 0:
        if plan.beginning:
            sys.setprofile(hook)
        writer.recover()
        sys.setprofile(None)  # an attempt that began sooner ends when it is killed
        shared.attempt = writer.attempt
    shared.barrier(number)
    step = step_in(writer.checkpoints.load())
    if number == 0:
        tell("begun", step)
    writer.join(shared.attempt, step)
    if plan.copying and number == 0:
        writer._copying.update = watched(writer._copying.update, hook)
    elif not plan.beginning:
        threading.setprofile(hook)
    seen = [commit.step for commit in checkpoints.commits()]
    while True:
        _step(step := step + 1, writer, number, shared, tell, seen)


def _step(
    step: int,
    writer: CheckpointWriter,
    number: int,
    shared: Shared,
    tell: Teller,
    seen: list[int],
) -> None:
    """As the training's own loop does; `seen` are the steps saved so far."""
    time.sleep(STEP_SECONDS)
    shared.barrier(number)
    if writer.saved == step - 1:
        copied = step // EVERY % 3 == 0
        writer.settle(lambda flag: shared.any(number, flag), copied=copied)
        if number == 0:
            tell("durable", writer.saved)
            if copied and writer.copy is not None:
                tell("copied", writer.saved)
            seen.append(writer.saved)
            _check_best(writer, seen)
    if number == 0:
        tell("step", step)
    if step % EVERY == 0:
        probe = writer.noting(lambda: measured(step))
        assert probe is not None
        probe()
        writer.save(step, part_of(step, number, shared.workers))


def _check_best(writer: CheckpointWriter, seen: list[int]) -> None:
    metric = writer.kept.best
    if metric is not None:
        here = {commit.step for commit in writer.checkpoints.commits()}
        check_owner(writer.folder, writer.attempt)  # or these are a later one's
        assert max(seen, key=lambda step: measured(step)[metric]) in here, (seen, here)
