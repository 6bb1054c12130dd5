"""Where the time of a step goes, the same under every strategy.

DeepSpeed's own `wall_clock_breakdown` sees what passes its engine, which the inner
maximization does not, and tells its log alone.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")


class Breakdown:
    """Seconds of the parts of a step, on the clock of this worker's host.

    A GPU works on after it was told to; to measure, each part waits for it before and
    after, so that parts and steps take longer than unmeasured.

    Args:
        device: of this worker.
        measures: whether to; if not, nothing is waited for and nothing told.
    """

    def __init__(self, device: torch.device, *, measures: bool) -> None:
        self.device, self.measures = device, measures
        self._seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's time as this part's; a block that fails is not counted."""
        if not self.measures:
            yield
            return
        begin = self._now()
        yield
        spent = self._now() - begin
        self._seconds[name] = self._seconds.get(name, 0.0) + spent

    def waiting(self, items: Iterator[Item]) -> Iterator[Item]:
        """The same items; the time until each is there is the part "data"."""
        if not self.measures:
            return items
        return self._counted(items)

    def _counted(self, items: Iterator[Item]) -> Iterator[Item]:
        while True:
            with self.part("data"):
                item = next(items, None)
            if item is None:
                return
            yield item

    def mean(self, steps: int) -> dict[str, float]:
        """Seconds a step of so many, as "inner_seconds", since the last call."""
        spent, self._seconds = self._seconds, {}
        return {f"{name}_seconds": value / steps for name, value in spent.items()}

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
