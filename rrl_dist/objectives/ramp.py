"""When a term's weight counts: from where in a run, and how fast it comes in."""

from dataclasses import dataclass

from rrl_dist.core.errors import UserError


def check_weight(weight: float) -> None:
    """Raises `UserError` for a weight that would train towards what it is against."""
    if not weight >= 0:
        raise UserError(f"a term has weight={weight}; set at least 0")


@dataclass(frozen=True)
class Ramp:
    """From 0 at `start` in a line to 1 at `end`; a cliff where they are equal.

    Attributes:
        start, end: shares of the run, 0 <= start <= end <= 1. 0 and 0 is 1 throughout.

    Raises:
        UserError: they are not in this order.
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1:
            raise UserError(
                f"a weight's ramp goes from {self.start} to {self.end}; set "
                "0 <= ramp.start <= ramp.end <= 1"
            )

    def __call__(self, progress: float) -> float:
        """The share of the weight, in [0, 1], when `progress` of the run is done."""
        if progress >= self.end:
            return 1.0
        if progress <= self.start:
            return 0.0
        return (progress - self.start) / (self.end - self.start)
