"""Methods side by side: accuracies, and one number of each other measure."""

from collections.abc import Callable, Sequence
from functools import partial

from rrl_dist.report import labels
from rrl_dist.report.corruption import corruption_error, images_of
from rrl_dist.report.entries import PERCENT, Entry, Number, entries, interval_cell
from rrl_dist.report.measures import WHAT_MOVES, displacement, largest_sigma
from rrl_dist.report.run import Arm, Run
from rrl_dist.report.seeds import varied
from rrl_dist.report.tables import Table, components_of, facts_of
from rrl_dist.report.vulnerability import how_estimated, vulnerability

Read = Callable[[Arm], Number]


def overview_table(runs: Sequence[Run]) -> Table | None:
    """A row for each arm; None where nothing was measured beside accuracy.

    Each number has its interval: over test images of one seed, Student's t over several
    seeds. The largest sigma of one seed is exact and has none.
    """
    rows = entries(runs)
    others = _measures(runs)
    kept = {k: read for k, (read, _) in others.items() if _found(rows, read)}
    if not kept:
        return None
    columns: dict[str, Callable[[Entry], str]] = {}
    for key in components_of(runs):
        columns[labels.attack(key)] = partial(
            interval_cell, read=partial(_accuracy, key=key), scale=PERCENT, places=1
        )
    for title, read in kept.items():
        scale, places = (PERCENT, 1) if "%" in title else (1, None)
        columns[title] = partial(interval_cell, read=read, scale=scale, places=places)
    columns["minutes"] = partial(interval_cell, read=lambda arm: arm.minutes, places=1)
    cells = tuple(
        (row.method, *(make(row) for make in columns.values())) for row in rows
    )
    told = [others[title][1] for title in kept]
    return Table(("method", *columns), cells, _caption(runs, told), labels=1)


def _measures(runs: Sequence[Run]) -> dict[str, tuple[Read, str]]:
    """By title: how it is read, and what a caption says of it."""
    eps = runs[0].eps
    return {
        "R(f) / spread": (partial(displacement, eps=eps), f"{WHAT_MOVES}."),
        "largest sigma": (
            largest_sigma,
            "Sigma is a layer's largest singular value.",
        ),
        "vulnerability": (
            vulnerability,
            "Vulnerability is what an attack takes from the mutual information of "
            f"images and features, in nats: {how_estimated(runs)}{_limited(runs)}.",
        ),
        "corruption error, %": (
            corruption_error,
            f"Images of corruptions are {images_of(runs)}.",
        ),
    }


def _limited(runs: Sequence[Run]) -> str:
    """The arms whose vulnerability is what the estimator leaves of it."""
    arms = [arm for run in runs for arm in run.arms]
    near = [a.name for a in arms if a.vulnerability and a.vulnerability.near_ceiling]
    return f", which {', '.join(dict.fromkeys(near))} reach" if near else ""


def _found(rows: Sequence[Entry], read: Read) -> bool:
    return any(read(arm) is not None for row in rows for arm in row.arms)


def _accuracy(arm: Arm, *, key: str) -> Number:
    return arm.components.get(key)


def _caption(runs: Sequence[Run], told: Sequence[str]) -> str:
    over = varied(runs)
    if over is not None:
        which = (
            f"{over.told}; intervals are Student's t at 95 % over {over.what}, minutes "
            "a seed's"
        )
    else:
        which = (
            f"{labels.seeds(runs[0])}; intervals are at 95 % and cover the sampling of "
            "test images only"
        )
    devices = {run.device for run in runs if run.device}
    where = f", on {devices.pop()}" if len(devices) == 1 else ""
    return (
        f"{facts_of(runs[0])}, {which}{where}; minutes are of training, head and "
        "evaluation, and include a teacher's training. Accuracy in percent. "
        f"{' '.join(told)}"
    )
