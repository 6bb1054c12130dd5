"""Calibration errors as a table."""

from collections.abc import Callable, Sequence
from functools import partial

from rrl_dist.report import labels
from rrl_dist.report.entries import Number, are_seeds, cell, entries
from rrl_dist.report.run import Arm, Calibration, Run
from rrl_dist.report.seeds import what_intervals_cover
from rrl_dist.report.tables import Table, attacked

OUTPUTS = {"clean": "clean", "worst": "attacked", "corrupted": "corrupted"}


def calibration_error(arm: Arm, *, measure: str, outputs: str) -> Number:
    """In [0, 1].

    Args:
        arm: of which it is.
        measure: "ece" or "rms".
        outputs: "clean", "worst" or "corrupted".
    """
    found = arm.calibration and arm.calibration.outputs.get(outputs)
    if not found:
        return None
    return found.ece if measure == "ece" else found.rms


def calibration_table(runs: Sequence[Run]) -> Table | None:
    """A row for each arm; ECE and RMS of clean, attacked and corrupted outputs.

    None where no run has any, or where runs were binned in different ways.
    """
    found = _of(runs)
    if len({one.binning for one in found}) != 1:
        return None
    shown = shown_outputs(runs)
    columns: dict[str, Callable[[Arm], Number]] = {
        f"{name}, {OUTPUTS[kind]}": partial(
            calibration_error, measure=measure, outputs=kind
        )
        for name, measure in (("ECE", "ece"), ("RMS", "rms"))
        for kind in shown
    }
    reads = columns.values()
    rows = tuple(
        (row.method, *(cell(row, read, scale=100, places=1) for read in reads))
        for row in entries(runs)
    )
    return Table(("method", *columns), rows, _caption(runs, shown), labels=1)


def _of(runs: Sequence[Run]) -> list[Calibration]:
    return [arm.calibration for run in runs for arm in run.arms if arm.calibration]


def shown_outputs(runs: Sequence[Run]) -> list[str]:
    """The kinds of outputs to show: attacked ones where there were attacks."""
    have = {kind for one in _of(runs) for kind in one.outputs}
    have -= set() if attacked(runs) else {"worst"}
    return [kind for kind in OUTPUTS if kind in have]


def _caption(runs: Sequence[Run], shown: Sequence[str]) -> str:
    found = _of(runs)
    told = [
        "Expected and root mean square calibration error of the answers' confidence, "
        f"in percent, {found[0].binning}."
    ]
    if "worst" in shown:
        told.append(
            f"Attacked: each image under the attack, {labels.threat(runs[0])}, that "
            "does worst by it."
        )
    if "corrupted" in shown:
        told.append("Corrupted: all kinds and severities together.")
    counts = {errors.ece.count for one in found for errors in one.outputs.values()}
    few, many = min(counts), max(counts)
    count = f"{few:,}" if few == many else f"{few:,} to {many:,}"
    told.append(
        f"Such errors come out too high, the more so with few images; here {count}."
    )
    how = [] if are_seeds(runs) else [f"Intervals: {found[0].interval}."]
    return " ".join([*told, *how, what_intervals_cover(runs)])
