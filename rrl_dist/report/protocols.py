"""Every protocol that arms were judged by in one table: clean and robust accuracy."""

from collections.abc import Callable, Sequence

from rrl_dist.report import labels
from rrl_dist.report.entries import (
    PERCENT,
    Entry,
    Number,
    entries,
    interval_cell,
    mark,
    titled,
)
from rrl_dist.report.run import Arm, Run
from rrl_dist.report.seeds import varied
from rrl_dist.report.tables import Table, attacked, facts_of, several_protocols


def judged(runs: Sequence[Run]) -> bool:
    """Whether some arm has several heads: by several protocols, or seeds."""
    return any(several_protocols(run) or labels.head_seeds(run) for run in runs)


def protocols_table(runs: Sequence[Run]) -> Table | None:
    """A row for each arm and task; clean and robust accuracy for each protocol, in
    percent with 95 % intervals. None where every arm has one head.

    "heads" is how many heads each number is over.
    """
    if not judged(runs):
        return None
    rows: dict[tuple[str, str, str | None], dict[str | None, Entry]] = {}
    for entry in entries(runs):
        arm = entry.arms[0]
        key = entry.prefix, arm.arm, arm.task
        rows.setdefault(key, {})[arm.protocol] = entry
    protocols = list(dict.fromkeys(name for row in rows.values() for name in row))
    reads = _reads(runs)
    tasks = any(task is not None for _, _, task in rows)
    cells = tuple(
        (
            *_names(key, list(row.values()), tasks=tasks),
            *(_cell(row.get(name), r) for name in protocols for r in reads.values()),
        )
        for key, row in rows.items()
    )
    columns = [f"{_title(name)} {what}" for name in protocols for what in reads]
    first = ("method", "task", "heads") if tasks else ("method", "heads")
    return Table((*first, *columns), cells, _caption(runs), labels=len(first))


def _reads(runs: Sequence[Run]) -> dict[str, Callable[[Arm], Number]]:
    found: dict[str, Callable[[Arm], Number]] = {"clean": _clean}
    return found | ({"robust": _worst} if attacked(runs) else {})


def _clean(arm: Arm) -> Number:
    return arm.components.get("clean")


def _worst(arm: Arm) -> Number:
    return arm.worst


def _names(
    key: tuple[str, str, str | None], row: Sequence[Entry], *, tasks: bool
) -> list[str]:
    prefix, name, task = key
    arms = [arm for entry in row for arm in entry.arms]
    method = f"{prefix}{titled(name, arms[0].objective)}{mark(arms)}"
    own = [task or labels.MISSING] if tasks else []
    return [method, *own, str(row[0].heads)]


def _title(protocol: str | None) -> str:
    return labels.MISSING if protocol is None else protocol.upper()


def _cell(entry: Entry | None, read: Callable[[Arm], Number]) -> str:
    if entry is None:
        return labels.MISSING
    return interval_cell(entry, read=read, places=1, scale=PERCENT)


def _caption(runs: Sequence[Run]) -> str:
    over = varied(runs)
    if over is not None:
        which = f"{over.told}: intervals are Student's t at 95 % over {over.what}"
    else:
        which = (
            f"{labels.seeds(runs[0])}: intervals are at 95 % and cover the sampling of "
            "test images only"
        )
    return (
        f"{facts_of(runs[0])}, {which}. Accuracy in percent; robust is under the worst "
        "of all attacks."
    )
