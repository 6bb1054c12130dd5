"""What stands below each table where a verdict speaks against a row of it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rrl_dist.report.run import Arm, Run
from rrl_dist.report.tables import Table

_MEANS = {
    "fail": "attacks were led astray, and its robust accuracies are no measure of "
    "robustness",
    "suspect": "attacks may have been led astray",
}


def noted(table: Table, runs: Sequence[Run]) -> Table:
    """The table with a note on each arm whose verdict is not pass."""
    told = [_note(name, arm) for name, arm in _judged(runs)]
    return replace(table, caption=" ".join([table.caption, *told]))


def _judged(runs: Sequence[Run]) -> Iterator[tuple[str, Arm]]:
    several = len(runs) > 1
    for run in runs:
        for arm in run.arms:
            if arm.verdict is not None and arm.verdict.level != "pass":
                yield (f"{run.name}: " if several else "") + arm.name, arm


def _note(name: str, arm: Arm) -> str:
    assert arm.verdict is not None, "there is nothing to be told"
    found = arm.verdict
    reasons = "; ".join(
        f"{check.replace('_', ' ')}: {told} (run: {found.stronger[check]})"
        for check, told in found.against.items()
    )
    return f"[{found.level}] {name}: {_MEANS[found.level]}; {reasons}."
