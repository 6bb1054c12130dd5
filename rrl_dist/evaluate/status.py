"""How far an evaluation is, for whoever watches it."""

from collections.abc import Mapping
from dataclasses import dataclass

from rrl_dist.evaluate.costs import Costs
from rrl_dist.evaluate.schedule import Schedule


@dataclass(frozen=True)
class Standing:
    """Of one component.

    Attributes:
        settled: samples whose outcome is known.
        broken: those of them that the classifier gets wrong.
    """

    settled: int
    broken: int


@dataclass(frozen=True)
class Status:
    """Of a whole evaluation.

    Attributes:
        samples: of each component.
        components: by name.
        left: seconds until the end with the workers that there are; None if not known.
        device_minutes: that workers have spent so far, earlier attempts included.
    """

    samples: int
    components: Mapping[str, Standing]
    left: float | None
    device_minutes: float

    @property
    def total(self) -> int:
        """Pairs of sample and component that there are."""
        return self.samples * len(self.components)

    @property
    def settled(self) -> int:
        """Pairs of sample and component whose outcome is known."""
        return sum(standing.settled for standing in self.components.values())


def status_of(schedule: Schedule, costs: Costs) -> Status:
    """Of a schedule as it stands."""
    total = costs.left(schedule).total
    return Status(
        samples=schedule.samples,
        components={
            name: Standing(schedule.settled[name], int(wrong.sum()))
            for name, wrong in schedule.wrong.items()
        },
        left=None if total is None else total / schedule.workers,
        device_minutes=sum(pace.seconds for pace in schedule.pace.values()) / 60,
    )
