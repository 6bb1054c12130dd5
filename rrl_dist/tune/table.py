"""Trials of a sweep as a table, and what it found in a sentence."""

from collections.abc import Sequence

from rrl_dist.report import labels
from rrl_dist.report.tables import Table
from rrl_dist.tune.aims import Estimate
from rrl_dist.tune.findings import PROBED, Findings, Measure, kind, written
from rrl_dist.tune.record import Record


def trials_table(findings: Findings, records: Sequence[Record]) -> Table:
    """A row for each trial: state, settings, aims with their 95 % intervals, number of
    probes, seconds of a device, and why it is no answer.

    Args:
        findings: of the sweep.
        records: of it, in the order of the rows.
    """
    whys = [findings.why(record) for record in records]
    aims = _aims(findings)
    dimensions = [
        d.name
        for d in findings.space.dimensions
        if any(d.name in record.settings for record in records)
    ]
    header = ["trial", "state", *(["why"] if any(whys) else [])]
    words = len(header)
    header += [findings.short[name] for name in dimensions]
    header += [*aims.values(), "probes", "seconds"]
    rows = []
    for record, why in zip(records, whys, strict=True):
        row = [str(record.number), state_of(findings, record)]
        row += [why or labels.MISSING] if any(whys) else []
        row += [_setting(record, name) for name in dimensions]
        row += [_value(findings, record, name) for name in aims]
        running = record.state == "running"
        seconds = labels.MISSING if running else f"{record.seconds:,.0f}"
        rows.append((*row, str(len(record.looks)), seconds))
    caption = _caption(findings, records, dimensions)
    return Table(tuple(header), tuple(rows), caption, labels=words)


def state_of(findings: Findings, record: Record) -> str:
    """Its kind, or that no trial is better."""
    if record in findings.front:
        return "front" if len(findings.aims.aims) > 1 else "best"
    return kind(record)


def _aims(findings: Findings) -> dict[str, str]:
    """Aims, and what has a floor; titles by name."""
    return {name: Measure.of(name).title for name in findings.aims.wanted_names}


def _setting(record: Record, name: str) -> str:
    if name not in record.settings:
        return labels.MISSING
    return written(record.settings[name])


def _value(findings: Findings, record: Record, name: str) -> str:
    """A probe, which is no result, is marked."""
    probe = findings.probe(record, name)
    if probe is not None:
        return f"~{Measure.of(name).cell(probe)}"
    return Measure.of(name).cell(findings.estimate(record, name))


def _caption(
    findings: Findings, records: Sequence[Record], dimensions: Sequence[str]
) -> str:
    short = findings.short
    keys = [f"{short[n]} is {n}" for n in dimensions if short[n] != n]
    probed = any(findings.probe(r, PROBED) is not None for r in records)
    probed = probed and PROBED in findings.aims.wanted_names
    parts = [
        f"{findings.counts()}, {minutes(findings)}",
        *(["front: no trial is better in both aims"] if _two(findings) else []),
        *(["~ the last probe of a trial that is not complete"] if probed else []),
        *([f"settings: {', '.join(keys)}"] if keys else []),
        "accuracy in percent with 95 % intervals, which cover the sampling of "
        "validation images only",
    ]
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _two(findings: Findings) -> bool:
    return len(findings.aims.aims) > 1


def minutes(findings: Findings) -> str:
    """Cost so far: "12.3 device-minutes", and of how many trials it is not known."""
    running = sum(record.state == "running" for record in findings.records)
    more = f" without the {running} running" if running else ""
    return f"{labels.minutes(findings.seconds / 60)} device-minutes{more}"


def answer(findings: Findings) -> str:
    """What the sweep found, in a sentence."""
    front = findings.front
    if not front:
        return f"There is no answer yet ({findings.counts()})."
    if _two(findings):
        ends = [front[0]] if len(front) == 1 else [front[0], front[-1]]
        told = " to ".join(_reached(findings, record) for record in ends)
        number = "1 trial" if len(front) == 1 else f"{len(front)} trials"
        return f"The front has {number}: {told}."
    return f"Best is {_reached(findings, front[0])}{_beside(findings)}."


def _reached(findings: Findings, record: Record) -> str:
    """Such as "trial 3 (weight=1.5) with robust 45.2 [40.1, 50.3] %"."""
    values = []
    for aim in findings.aims.aims:
        measure = Measure.of(aim.measure)
        cell = measure.cell(findings.estimate(record, aim.measure))
        title, _, unit = measure.title.removesuffix(")").partition(" (")
        values.append(f"{title} {cell} {unit}".strip())
    settings = findings.settings(record)
    about = f" ({settings})" if settings else ""
    return f"trial {record.number}{about} with {' and '.join(values)}"


def _beside(findings: Findings) -> str:
    """Whether the next best differs, as far as both intervals tell."""
    ranked = [record for record in findings.ordered if record.feasible]
    if len(ranked) < 2:
        return ", the only one that is feasible"
    aim = findings.aims.aims[0].measure
    best, other = (findings.estimate(record, aim) for record in ranked[:2])
    named = f"trial {ranked[1].number}, the next best"
    if best is None or other is None or None in (best.low, other.low):
        return f"; {named}, has {Measure.of(aim).cell(other)}"
    if _apart(best, other):
        return f"; its interval and that of {named}, do not overlap"
    return f"; its interval and that of {named}, overlap, so they are not told apart"


def _apart(one: Estimate, other: Estimate) -> bool:
    ends = (one.low, one.high, other.low, other.high)
    if None in ends:
        return False
    return bool(one.low > other.high or other.low > one.high)  # type: ignore[operator]
