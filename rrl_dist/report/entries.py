"""Rows of a report: an arm of one run, or of several runs that are seeds of another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rrl_dist.core.aggregate import Mean, Proportion
from rrl_dist.core.seeds import spread
from rrl_dist.report import labels
from rrl_dist.report.run import Arm, Level, Run
from rrl_dist.report.settings import first_difference

Number = Mean | Proportion | float | None


@dataclass(frozen=True)
class Entry:
    """One row.

    Attributes:
        prefix: the run's name, where several runs are no seeds; or empty.
        arms: one, or one a seed.
        eps: the threat model's full radius.
    """

    prefix: str
    arms: tuple[Arm, ...]
    eps: float

    @property
    def method(self) -> str:
        """For a reader, with the task."""
        arm = self.arms[0]
        return f"{self.prefix}{titled(arm.name, arm.objective)}{mark(self.arms)}"

    @property
    def method_alone(self) -> str:
        """For a reader, without the task."""
        arm = self.arms[0]
        return f"{self.prefix}{titled(arm.arm, arm.objective)}{mark(self.arms)}"


def not_seeds(runs: Sequence[Run]) -> str | None:
    """Why runs are not one experiment under several seeds; None if they are."""
    differing = first_difference([run.settings for run in runs])
    if differing is not None:
        return f"differ in {differing}"
    if len({run.seed for run in runs}) < len(runs):
        return "have a seed in common"
    if len({tuple(arm.name for arm in run.arms) for run in runs}) > 1:
        return "have other arms"
    return None


def are_seeds(runs: Sequence[Run]) -> bool:
    """Whether several runs differ in their seed alone."""
    return len(runs) > 1 and not_seeds(runs) is None


def entries(runs: Sequence[Run]) -> list[Entry]:
    """The rows: arms over seeds, or each arm of each run."""
    if are_seeds(runs):
        together = zip(*(run.arms for run in runs), strict=True)
        return [Entry("", arms, runs[0].eps) for arms in together]
    several = len(runs) > 1
    return [
        Entry(f"{run.name}: " if several else "", (arm,), run.eps)
        for run in runs
        for arm in run.arms
    ]


def method(arm: Arm) -> str:
    """An arm's name, its objective where the name does not hold it, and its mark."""
    return titled(arm.name, arm.objective) + mark([arm])


def mark(arms: Sequence[Arm]) -> str:
    """What stands behind the name of arms in tables and sentences: " [fail]" where that
    is the verdict on one of them, " [suspect]" likewise, or nothing."""
    levels = {arm.verdict.level for arm in arms if arm.verdict is not None}
    return next((f" [{bad}]" for bad in ("fail", "suspect") if bad in levels), "")


def titled(name: str, objective: str | None) -> str:
    """ "tarrl (TARRL(SimCLR))"; the name alone where no objective is known."""
    known = objective is None or objective in name
    return name if known else f"{name} ({objective})"


def full_level(arm: Arm, eps: float) -> Level | None:
    """The bound at the threat model's full radius, if measured."""
    near = [one for one in arm.levels if abs(one.eps - eps) <= 1e-5 * eps]
    return near[0] if near else None


def value_of(number: Number) -> float | None:
    """Without its interval."""
    return number.value if isinstance(number, Mean | Proportion) else number


def cell(
    entry: Entry,
    read: Callable[[Arm], Number],
    *,
    scale: float = 1,
    places: int | None = None,
) -> str:
    """A number with its interval, or over seeds with its standard deviation.

    Args:
        entry: the row.
        read: the number, from an arm.
        scale: what it is multiplied by, such as 100 for percent.
        places: decimals; three significant digits where None.
    """
    found = [read(arm) for arm in entry.arms]
    values = [v for v in map(value_of, found) if v is not None]
    if len(values) < len(found):
        return labels.MISSING
    if len(found) > 1:
        return labels.plus_minus(spread([scale * value for value in values]), places)
    (only,) = found
    if isinstance(only, Mean | Proportion) and only.count > 1:
        ends = [scale * end for end in (only.low, only.high)]
        return labels.interval(scale * only.value, *ends)
    return labels.number(scale * values[0])
