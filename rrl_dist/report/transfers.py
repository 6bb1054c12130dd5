"""Accuracy under images made on other classifiers: a source x target matrix."""

from collections.abc import Sequence

from rrl_dist.core.seeds import spread
from rrl_dist.report import labels
from rrl_dist.report.entries import Entry, entries
from rrl_dist.report.run import Run
from rrl_dist.report.tables import Table


def transfer_table(runs: Sequence[Run]) -> Table | None:
    """A row for each attack and source, a column for each target; None where no run
    has any."""
    targets = entries(runs)
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for column, entry in enumerate(targets):
        for component in entry.arms[0].components:
            match = labels.TRANSFERRED.fullmatch(component)
            if match is not None:
                key = match["attack"], match["source"]
                rows.setdefault(key, {})[column] = _cell(entry, component)
    if not rows:
        return None
    header = ("attack", "made on", *(entry.method for entry in targets))
    caption = (
        "Accuracy in percent of each classifier (columns) on images that were made on "
        "another (rows), where its own answer to the clean image is right."
    )
    columns = range(len(targets))
    cells = []
    for (attack, source), found in rows.items():
        shown = [found.get(column, labels.MISSING) for column in columns]
        cells.append((labels.attack(attack), source, *shown))
    return Table(header, tuple(cells), caption, labels=2)


def _cell(entry: Entry, component: str) -> str:
    shares = [arm.components[component] for arm in entry.arms]
    if len(shares) == 1:
        return labels.percent(shares[0])
    return labels.plus_minus(
        spread(entry.by_seed([100 * share.value for share in shares])), 1
    )
