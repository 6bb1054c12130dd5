"""Errors on corrupted images as a table."""

from collections.abc import Callable, Sequence
from functools import partial

from rrl_dist.report.entries import Number, cell, entries
from rrl_dist.report.run import Arm, Run
from rrl_dist.report.seeds import what_intervals_cover
from rrl_dist.report.tables import Table


def corruption_error(arm: Arm) -> Number:
    """Mean over kinds and severities, in [0, 1]."""
    return None if arm.corruptions is None else arm.corruptions.error


def error_on(arm: Arm, *, kind: str) -> Number:
    """Mean over the severities of a kind, in [0, 1]."""
    return None if arm.corruptions is None else arm.corruptions.kinds.get(kind)


def kinds_of(runs: Sequence[Run]) -> list[str]:
    """The kinds of corruption that arms were shown."""
    measured = [arm.corruptions for run in runs for arm in run.arms if arm.corruptions]
    return list(dict.fromkeys(kind for found in measured for kind in found.kinds))


def corruption_table(runs: Sequence[Run]) -> Table | None:
    """A row for each arm, a column for each kind; None where no run has any."""
    kinds = kinds_of(runs)
    if not kinds:
        return None
    reads: list[Callable[[Arm], Number]] = [corruption_error]
    reads += [partial(error_on, kind=kind) for kind in kinds]
    rows = tuple(
        (row.method, *(cell(row, read, scale=100, places=1) for read in reads))
        for row in entries(runs)
    )
    caption = (
        "Error in percent on corrupted images, a mean over severities. The corruptions "
        "are generated anew with the published constants, and are not the published "
        f"files. {what_intervals_cover(runs)}"
    )
    header = ("method", "mean error", *(kind.replace("_", " ") for kind in kinds))
    return Table(header, rows, caption, labels=1)
