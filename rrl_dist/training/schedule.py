"""Learning rates as pure functions of the step: a resumed run needs no state."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """Learning rate of an optimizer step."""

    def __call__(self, epoch: float, *, epochs: float, peak: float) -> float:
        """The rate at a (fractional) epoch of a run of `epochs`, from its peak."""
        ...


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine (arXiv:1608.03983 without restarts).

    Attributes:
        warmup: share of the run, in [0, 1).
        start: rate at step 0, as a share of the peak.
        end: rate at the end, as a share of the peak.
    """

    warmup: float
    start: float
    end: float

    def __call__(self, epoch: float, *, epochs: float, peak: float) -> float:
        rising = self.warmup * epochs
        if epoch < rising:
            return peak * (self.start + (1 - self.start) * epoch / rising)
        done = (epoch - rising) / max(epochs - rising, 1e-12)
        half_cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return peak * (self.end + (1 - self.end) * half_cosine)


@dataclass(frozen=True)
class Steps:
    """The rate times `factor` at each milestone.

    Attributes:
        milestones: shares of the run, in [0, 1].
        factor: such as 0.1.
    """

    milestones: Sequence[float]
    factor: float

    def __call__(self, epoch: float, *, epochs: float, peak: float) -> float:
        # The tolerance keeps 0.6 * 25 epochs at 15, where rounding would miss it.
        passed = sum(epoch >= share * epochs - 1e-9 for share in self.milestones)
        return float(peak * self.factor**passed)
