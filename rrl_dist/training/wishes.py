"""Why workers end before the last step: all after the same step, which is saved."""

import time
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

import torch

from rrl_dist.core.collectives import largest, rank
from rrl_dist.core.interrupts import never

# Steps and seconds between two looks at whether to end, where a look costs GPUs a
# collective and a wait for the step in hand.
_STEPS, _SECONDS = 10, 2.0


class Wish(IntEnum):
    """What rank 0 has heard between two steps."""

    GO_ON = 0
    LOOK = 1  # all workers together, whether a node is about to be taken away
    STOP = 2  # Ctrl-C, or a batch system's SIGTERM
    RESIZE = 3  # there is room for more workers
    PREEMPTED = 4
    SUPERSEDED = 5  # another driver has started other workers on this run


class Wishes(Protocol):
    """What the loop asks between steps."""

    def heard(self) -> Wish:
        """On rank 0; called after each step, so it must be quick."""
        ...

    def preempted(self) -> bool:
        """On all workers together, after rank 0 has heard LOOK."""
        ...


class LeftError(Exception):
    """Workers left before the last step, which others go on from.

    Args:
        wish: why.
    """

    def __init__(self, wish: Wish) -> None:
        super().__init__(wish.name)


class Request:
    """Wishes of this process, which only ever is asked to stop."""

    def __init__(self, asked: Callable[[], bool] = never) -> None:
        self.asked = asked

    def heard(self) -> Wish:
        """See `Wishes`."""
        return Wish.STOP if self.asked() else Wish.GO_ON

    def preempted(self) -> bool:
        """See `Wishes`."""
        return False


class Looks:
    """All workers together look at what rank 0 has heard: after each step, or where
    that costs time, every few.

    Args:
        device: of this worker.
        costly: whether a look holds up the steps.
        clock: of seconds.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        costly: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device, self.costly, self.clock = device, costly, clock
        self._next, self._last = 0, (0, clock())

    def wish(self, wishes: Wishes, step: int) -> Wish:
        """Whether to end after a step; the same answer on all workers."""
        if step < self._next:
            return Wish.GO_ON
        if self.costly:
            agreed = largest(self._steps(step) if rank() == 0 else 0, self.device)
            self._next = step + agreed
        heard = Wish(largest(wishes.heard() if rank() == 0 else 0, self.device))
        if heard is not Wish.LOOK:
            return heard
        return Wish.PREEMPTED if wishes.preempted() else Wish.GO_ON

    def _steps(self, step: int) -> int:
        """Until the next look, by the pace since the last one."""
        (before, then), now = self._last, self.clock()
        self._last = step, now
        seconds = (now - then) / max(step - before, 1)  # of a step
        return max(min(_STEPS, int(_SECONDS / max(seconds, 1e-9))), 1)
