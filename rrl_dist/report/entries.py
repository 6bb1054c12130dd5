"""Rows of a report: an arm of one run, or of several runs that are seeds of another,
with all heads that it was given there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rrl_dist.core.aggregate import Mean, Proportion
from rrl_dist.core.seeds import spread, t_interval
from rrl_dist.report import labels
from rrl_dist.report.run import Arm, Level, Run
from rrl_dist.report.settings import first_difference

Number = Mean | Proportion | float | None
PERCENT = 100


@dataclass(frozen=True)
class Entry:
    """One row.

    Attributes:
        prefix: the run's name, where several runs are no seeds; or empty.
        arms: one, or one a seed; of each seed as many as it has heads.
        eps: the threat model's full radius.
        heads: of a seed.
    """

    prefix: str
    arms: tuple[Arm, ...]
    eps: float
    heads: int = 1

    @property
    def method(self) -> str:
        """For a reader, with the task."""
        arm = self.arms[0]
        return f"{self.prefix}{titled(arm.row, arm.objective)}{mark(self.arms)}"

    @property
    def method_alone(self) -> str:
        """For a reader, without the task."""
        arm = self.arms[0]
        return f"{self.prefix}{titled(arm.arm, arm.objective)}{mark(self.arms)}"

    def values(self, read: Callable[[Arm], Number]) -> list[float] | None:
        """A number by seed, see `by_seed`; None where it is missing anywhere."""
        found = [v for v in map(value_of, map(read, self.arms)) if v is not None]
        return self.by_seed(found) if len(found) == len(self.arms) else None

    def by_seed(self, found: Sequence[float]) -> list[float]:
        """Of numbers of all arms those of one run's heads, or of each of several runs
        the mean over its heads, which are no runs."""
        if self.heads == len(found):
            return list(found)
        starts = range(0, len(found), self.heads)
        return [spread(found[at : at + self.heads]).mean for at in starts]


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
        together = zip(*map(heads_together, runs), strict=True)
        rows = [(sum(heads, ()), len(heads[0])) for heads in together]
        return [Entry("", arms, runs[0].eps, count) for arms, count in rows]
    several = len(runs) > 1
    return [
        Entry(f"{run.name}: " if several else "", arms, run.eps, len(arms))
        for run in runs
        for arms in heads_together(run)
    ]


def heads_together(run: Run) -> list[tuple[Arm, ...]]:
    """The arms of a run, those that differ in their head's seed alone in one group."""
    groups: dict[str, tuple[Arm, ...]] = {}
    for arm in run.arms:
        groups[arm.row] = (*groups.get(arm.row, ()), arm)
    return list(groups.values())


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
    values = entry.values(read)
    if values is None:
        return labels.MISSING
    if len(values) > 1:
        return labels.plus_minus(spread([scale * value for value in values]), places)
    only = read(entry.arms[0])
    if isinstance(only, Mean | Proportion) and only.count > 1:
        ends = [scale * end for end in (only.low, only.high)]
        return labels.interval(scale * only.value, *ends)
    return labels.number(scale * values[0])


def interval_cell(
    entry: Entry,
    *,
    read: Callable[[Arm], Number],
    places: int | None,
    scale: float = 1,
) -> str:
    """As `cell`, but over several seeds with Student's t interval at 95 %."""
    values = entry.values(read)
    if values is None:
        return labels.MISSING
    values = [scale * value for value in values]
    value, low, high = values[0], None, None
    only = read(entry.arms[0])
    if len(values) > 1:
        over = t_interval(values)
        value, low, high = over.mean, over.low, over.high
    elif isinstance(only, Mean | Proportion) and only.count > 1:
        low, high = scale * only.low, scale * only.high
    if scale == PERCENT and low is not None and high is not None:
        low, high = max(low, 0.0), min(high, PERCENT)  # t knows no ends
    digits = labels.decimals(value) if places is None else places
    if low is None or high is None:
        return f"{value:,.{digits}f}"
    return f"{value:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"
