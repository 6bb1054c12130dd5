"""How many images are right at each distance that an attacker may go."""

from collections.abc import Sequence
from functools import partial

from rrl_dist.report import labels
from rrl_dist.report.entries import Entry, Number, cell, entries
from rrl_dist.report.run import Arm, Run
from rrl_dist.report.seeds import what_intervals_cover
from rrl_dist.report.tables import Table

EVERY = 2  # points of the curve to a column


def distances_table(runs: Sequence[Run]) -> Table | None:
    """A row for each arm: median distance, and accuracy against distance.

    None where no run has them, or where distances are not the same for all.
    """
    curves = [arm.distance.curve for run in runs for arm in run.arms if arm.distance]
    radii = {tuple(point.eps for point in curve) for curve in curves if curve}
    if len(radii) != 1:
        return None
    shown = sorted(radii.pop())[::EVERY]
    rows = [
        (
            row.method,
            cell(row, _median),
            *(_percent(row, eps) for eps in shown),
        )
        for row in entries(runs)
    ]
    found = [arm.distance for run in runs for arm in run.arms if arm.distance]
    names = sorted({distance.attack for distance in found if distance.attack})
    caption = (
        f"Median distance, and accuracy in percent where an attacker may go so far, "
        f"{labels.norm(found[0].norm)}, under {', '.join(map(labels.attack, names))}. "
        "Images wrong from the start are at distance 0. "
        f"{what_intervals_cover(runs)}"
    )
    header = ("method", "median", *map(labels.radius, shown))
    return Table(header, tuple(rows), caption, labels=1)


def _percent(row: Entry, eps: float) -> str:
    return cell(row, partial(_accuracy, eps=eps), scale=100, places=1)


def _median(arm: Arm) -> Number:
    return None if arm.distance is None else arm.distance.median


def _accuracy(arm: Arm, *, eps: float) -> Number:
    points = arm.distance.curve if arm.distance else ()
    return next((point.accuracy for point in points if point.eps == eps), None)
