"""What an evaluation measures beyond accuracy: the bound, distances, representation."""

from collections.abc import Callable, Collection, Sequence
from functools import partial

from rrl_dist.report import labels
from rrl_dist.report.entries import Entry, Number, cell, entries, full_level
from rrl_dist.report.run import Arm, Level, Run
from rrl_dist.report.seeds import what_intervals_cover
from rrl_dist.report.tables import Table

WHAT_MOVES = "R(f) is how far the worst attack moves an image's feature, on average"


def sigma_squared(arm: Arm) -> float | None:
    """Sum over the encoder's layers of the squared largest singular value."""
    found = arm.representation
    return None if found is None else found.sigma_squared_sum


def largest_sigma(arm: Arm) -> float | None:
    """Of the encoder's layers, the largest singular value."""
    return None if arm.representation is None else arm.representation.largest_sigma


def distance(arm: Arm) -> Number:
    """Mean distance to the nearest wrong image."""
    return None if arm.distance is None else arm.distance.mean


def displacement(arm: Arm, eps: float) -> Number:
    """R(f) over the features' spread, at the full radius."""
    level = full_level(arm, eps)
    return None if level is None else level.relative


def bound_gap(arm: Arm, eps: float) -> float | None:
    """sqrt(2) head norm R(f), what the bound adds to the clean loss, in nats."""
    level = full_level(arm, eps)
    return None if level is None else level.bound.value - level.clean_loss.value


def measures_table(runs: Sequence[Run]) -> Table | None:
    """A row for each arm; None where no run has any of the measures.

    Columns that no arm has are left out.
    """
    rows = entries(runs)
    columns: dict[str, Callable[[Entry], str]] = {
        "R(f) / spread": lambda row: cell(row, partial(displacement, eps=row.eps)),
        f"{_norm(runs)} distance": lambda row: cell(row, distance),
        "not broken": _not_broken,
        "sum of sigma\u00b2": lambda row: cell(row, sigma_squared),
        "feature std": lambda row: cell(row, _feature_std),
        "effective rank": lambda row: cell(row, _effective_rank),
    }
    cells = {title: [make(row) for row in rows] for title, make in columns.items()}
    kept = {k: v for k, v in cells.items() if set(v) != {labels.MISSING}}
    if not kept:
        return None
    table = [
        (row.method, *(column[place] for column in kept.values()))
        for place, row in enumerate(rows)
    ]
    return Table(("method", *kept), tuple(table), _caption(runs, kept), labels=1)


def _norm(runs: Sequence[Run]) -> str:
    found = [arm.distance.norm for run in runs for arm in run.arms if arm.distance]
    return f"mean {labels.norm(found[0])}" if found else "mean"


def _not_broken(row: Entry) -> str:
    counts = [arm.distance.censored for arm in row.arms if arm.distance]
    return ", ".join(map(str, counts)) if counts else labels.MISSING


def _feature_std(arm: Arm) -> float | None:
    return None if arm.representation is None else arm.representation.feature_std


def _effective_rank(arm: Arm) -> float | None:
    return None if arm.representation is None else arm.representation.effective_rank


def _caption(runs: Sequence[Run], columns: Collection[str]) -> str:
    told = []
    if "R(f) / spread" in columns:
        size = labels.threat(runs[0])
        told.append(f"{WHAT_MOVES}, at {size}, over the features' spread.")
    radii = {arm.distance.radius for run in runs for arm in run.arms if arm.distance}
    if radii:
        far = ", ".join(labels.radius(radius) for radius in sorted(radii))
        told.append(
            "Distance is to the nearest wrong image that a search found, 0 for images "
            f"wrong from the start and {far} for those not broken."
        )
    if "sum of sigma\u00b2" in columns:
        told.append("sigma is a layer's largest singular value.")
    return " ".join([*told, what_intervals_cover(runs)])


def bound_table(runs: Sequence[Run]) -> Table | None:
    """The bound beside the measured loss: a row for each arm, task and attack size.

    None where no run has it.
    """
    rows = []
    tasks = any(arm.task is not None for run in runs for arm in run.arms)
    for entry in entries(runs):
        for eps in [level.eps for level in entry.arms[0].levels]:
            task = [entry.arms[0].task or labels.MISSING] if tasks else []
            names = entry.method_alone, *task
            rows.append((*names, labels.radius(eps), *_losses(entry, eps)))
    if not rows:
        return None
    first = ("method", "task") if tasks else ("method",)
    losses = ("clean loss", "R(f)", "head norm", "bound", "adversarial loss")
    caption = (
        f"Losses in nats. {WHAT_MOVES}; bound = clean loss + sqrt(2) head norm R(f), "
        "which the loss under the same attacks cannot exceed on any image. "
        f"{what_intervals_cover(runs)}"
    )
    return Table((*first, "eps", *losses), tuple(rows), caption, labels=len(first) + 1)


def _losses(entry: Entry, eps: float) -> list[str]:
    reads: tuple[Callable[[Level], Number], ...] = (
        lambda level: level.clean_loss,
        lambda level: level.displacement,
        lambda level: level.head_norm,
        lambda level: level.bound,
        lambda level: level.loss,
    )
    return [cell(entry, partial(_at, eps=eps, read=read)) for read in reads]


def _at(arm: Arm, *, eps: float, read: Callable[[Level], Number]) -> Number:
    level = full_level(arm, eps)
    return None if level is None else read(level)
