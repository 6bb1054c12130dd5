"""Accuracies over training seeds: mean and standard deviation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rrl_dist.core.seeds import spread, t_interval
from rrl_dist.report import labels
from rrl_dist.report.entries import Entry, are_seeds, cell, entries, mark
from rrl_dist.report.run import Arm, Run
from rrl_dist.report.tables import Table, attacked, components_of, facts_of

WHAT_VARIES = "\u00b1 is the standard deviation over training seeds"


@dataclass(frozen=True)
class Varied:
    """What numbers of a row are over.

    Attributes:
        told: for a reader: "3 seeds (0, 1, 2)".
        what: that varies: "seeds" or "head seeds".
    """

    told: str
    what: str


def varied(runs: Sequence[Run]) -> Varied | None:
    """Training seeds, or the seeds of heads on one run's encoders; None of one."""
    heads = labels.head_seeds(runs[0])
    if are_seeds(runs):
        each = f", each the mean over {heads}" if heads else ""
        return Varied(f"{labels.several_seeds(runs)}{each}", "seeds")
    every = {labels.head_seeds(run) for run in runs}
    if heads is None or len(every) > 1:
        return None
    return Varied(f"{labels.seeds(runs[0])}, {heads}", "head seeds")


def what_varies(over: Varied) -> str:
    """What stands behind a mean."""
    kind = "training seeds" if over.what == "seeds" else over.what
    return f"\u00b1 is the standard deviation over {kind}"


def what_intervals_cover(runs: Sequence[Run]) -> str:
    """A caption's last sentence: what the numbers' intervals are over."""
    over = varied(runs)
    if over is not None:
        return f"{over.told}; {what_varies(over)}."
    return "Intervals are at 95 % and cover the sampling of test images only."


def seeds_table(runs: Sequence[Run]) -> Table:
    """Clean and robust accuracy of every arm, in percent, over runs that are seeds.

    Columns as in `robustness_table`; minutes are a seed's.
    """
    components = components_of(runs)
    rows = []
    for entry in entries(runs):
        cells = [_percent(entry, partial(_accuracy, key=key)) for key in components]
        worst = [_percent(entry, worst_of)] if attacked(runs) else []
        ends = *cells, *worst, _minutes(entry)
        rows.append((entry.method, entry.arms[0].backbone, *ends))
    attacks = [labels.attack(key) for key in components]
    attacks += ["worst case"] if attacked(runs) else []
    header = ("method", "backbone", *attacks, "minutes")
    devices = {run.device for run in runs}
    device = f", minutes on {devices.pop()}" if len(devices) == 1 else ""
    over = varied(runs)
    told = labels.several_seeds(runs) if over is None else over.told
    caption = (
        f"{facts_of(runs[0])}, {told}{device}. Accuracy in percent; {WHAT_VARIES}."
    )
    return Table(header, tuple(rows), caption, labels=2)


def _accuracy(arm: Arm, *, key: str) -> float | None:
    found = arm.components.get(key)
    return None if found is None else found.value


def _percent(entry: Entry, read: Callable[[Arm], float | None]) -> str:
    return cell(entry, read, scale=100, places=1)


def worst_of(arm: Arm) -> float:
    """Share of images that survive every attack."""
    return arm.worst.value


def _minutes(entry: Entry) -> str:
    spent = [arm.minutes for arm in entry.arms if arm.minutes is not None]
    return labels.minutes(spread(spent).mean if spent else None)


def lead_of_seeds(runs: Sequence[Run]) -> str:
    """The result in one sentence, or one for each task and protocol.

    As `lead`, with the interval that seeds give to the difference: of training, or of
    the heads of one run.
    """
    rows = entries(runs)
    where = f"under the worst attack at {labels.threat(runs[0])}"
    over = varied(runs)
    told = f"over {labels.several_seeds(runs) if over is None else over.told}"
    alike: dict[tuple[str | None, str | None], list[Entry]] = {}
    for row in rows:
        key = row.arms[0].task, row.arms[0].protocol
        alike.setdefault(key, []).append(row)
    return " ".join(_lead(group, where, told) for group in alike.values())


def _lead(rows: Sequence[Entry], where: str, told: str) -> str:
    ranked = sorted(rows, key=lambda row: -spread(_worst(row)).mean)
    best = ranked[0]
    name = best.arms[0].row + mark(best.arms)
    if len(ranked) == 1:
        kept = labels.plus_minus(spread(_worst(best)), 1)
        return f"{name} keeps {kept} % {where}, {told}."
    other = ranked[1] if best is rows[0] else rows[0]
    its = other.arms[0].row + mark(other.arms)
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
    return [100 * value for value in row.values(worst_of) or ()]
