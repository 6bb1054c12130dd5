"""Accuracies over training seeds: mean and standard deviation."""

from collections.abc import Callable, Sequence
from functools import partial

from rrl_dist.core.seeds import spread, t_interval
from rrl_dist.report import labels
from rrl_dist.report.entries import Entry, are_seeds, cell, entries, mark
from rrl_dist.report.run import Arm, Run
from rrl_dist.report.tables import Table, attacked, components_of, facts_of

WHAT_VARIES = "\u00b1 is the standard deviation over training seeds"


def what_intervals_cover(runs: Sequence[Run]) -> str:
    """A caption's last sentence: what the numbers' intervals are over."""
    if are_seeds(runs):
        return f"{labels.several_seeds(runs)}; {WHAT_VARIES}."
    return "Intervals are at 95 % and cover the sampling of test images only."


def seeds_table(runs: Sequence[Run]) -> Table:
    """Clean and robust accuracy of every arm, in percent, over runs that are seeds.

    Columns as in `robustness_table`; minutes are a seed's.
    """
    components = components_of(runs)
    rows = []
    for entry in entries(runs):
        cells = [_percent(entry, partial(_accuracy, key=key)) for key in components]
        worst = [_percent(entry, lambda arm: arm.worst.value)] if attacked(runs) else []
        ends = *cells, *worst, _minutes(entry)
        rows.append((entry.method, entry.arms[0].backbone, *ends))
    attacks = [labels.attack(key) for key in components]
    attacks += ["worst case"] if attacked(runs) else []
    header = ("method", "backbone", *attacks, "minutes")
    devices = {run.device for run in runs}
    device = f", minutes on {devices.pop()}" if len(devices) == 1 else ""
    caption = (
        f"{facts_of(runs[0])}, {labels.several_seeds(runs)}{device}. Accuracy in "
        f"percent; {WHAT_VARIES}."
    )
    return Table(header, tuple(rows), caption, labels=2)


def _accuracy(arm: Arm, *, key: str) -> float | None:
    found = arm.components.get(key)
    return None if found is None else found.value


def _percent(entry: Entry, read: Callable[[Arm], float | None]) -> str:
    return cell(entry, read, scale=100, places=1)


def _minutes(entry: Entry) -> str:
    spent = [arm.minutes for arm in entry.arms if arm.minutes is not None]
    return labels.minutes(spread(spent).mean if spent else None)


def lead_of_seeds(runs: Sequence[Run]) -> str:
    """The result in one sentence, or one for each task.

    As `lead`, with the interval that training seeds give to the difference.
    """
    rows = entries(runs)
    where = f"under the worst attack at {labels.threat(runs[0])}"
    told = f"over {labels.several_seeds(runs)}"
    tasks = dict.fromkeys(row.arms[0].task for row in rows)
    return " ".join(
        _lead([row for row in rows if row.arms[0].task == task], where, told)
        for task in tasks
    )


def _lead(rows: Sequence[Entry], where: str, told: str) -> str:
    ranked = sorted(rows, key=lambda row: -spread(_worst(row)).mean)
    best = ranked[0]
    name = best.arms[0].name + mark(best.arms)
    if len(ranked) == 1:
        kept = labels.plus_minus(spread(_worst(best)), 1)
        return f"{name} keeps {kept} % {where}, {told}."
    other = ranked[1] if best is rows[0] else rows[0]
    its = other.arms[0].name + mark(other.arms)
    pairs = zip(_worst(best), _worst(other), strict=True)
    found = t_interval([a - b for a, b in pairs])
    assert found.low is not None
    verdict = "" if found.low > 0 else ", so these seeds do not tell them apart"
    return (
        f"{name} stands {found.mean:.1f} points above {its} {where}, "
        f"{told}; 95 % t-interval [{found.low:.1f}, {found.high:.1f}]{verdict}."
    )


def _worst(row: Entry) -> list[float]:
    """Percent, by seed."""
    return [100 * arm.worst.value for arm in row.arms]
