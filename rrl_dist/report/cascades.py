"""What each attack of a component of several attacks has left right."""

from collections.abc import Iterator, Sequence

from rrl_dist.core.seeds import spread
from rrl_dist.report import labels
from rrl_dist.report.entries import Entry, entries
from rrl_dist.report.run import Run, Step
from rrl_dist.report.seeds import what_intervals_cover
from rrl_dist.report.tables import Table


def cascade_table(runs: Sequence[Run]) -> Table | None:
    """A row for each arm and each attack in its turn; None where no run has any.

    "broken" is how many images this attack was the first to break, by seed.
    """
    rows = [row for entry in entries(runs) for row in _rows(entry)]
    if not rows:
        return None
    header = ("method", "attacks", "after", "accuracy", "broken")
    caption = (
        "Robust accuracy in percent after each of the attacks, each on the images that "
        "those before it have left right; broken is how many of them it broke. "
        f"{what_intervals_cover(runs)}"
    )
    return Table(header, tuple(rows), caption, labels=3)


def _rows(entry: Entry) -> Iterator[tuple[str, ...]]:
    for component, first in entry.arms[0].after.items():
        own = [arm.after.get(component, ()) for arm in entry.arms]
        names = [step.attack for step in first]
        if any([step.attack for step in steps] != names for steps in own):
            continue  # seeds of another version of the system
        before = [1.0] * len(own)
        for here in zip(*own, strict=True):
            attack = labels.attack(here[0].attack)
            cells = _accuracy(entry, here), _broken(here, before)
            yield entry.method, labels.attack(component), attack, *cells
            before = [step.accuracy.value for step in here]


def _accuracy(entry: Entry, steps: Sequence[Step]) -> str:
    if len(steps) == 1:
        return labels.percent(steps[0].accuracy)
    values = entry.by_seed([100 * step.accuracy.value for step in steps])
    return labels.plus_minus(spread(values), 1)


def _broken(steps: Sequence[Step], before: Sequence[float]) -> str:
    """Counts, from the shares that were right before."""
    pairs = zip(before, (step.accuracy for step in steps), strict=True)
    return ", ".join(f"{round((old - now.value) * now.count):,}" for old, now in pairs)
