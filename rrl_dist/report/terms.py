"""A term switched on against the same run with it off: differences, seed by seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rrl_dist.core.aggregate import rounded
from rrl_dist.core.errors import UserError
from rrl_dist.core.seeds import Interval, spread, t_interval
from rrl_dist.report import labels
from rrl_dist.report.corruption import corruption_error, error_on, kinds_of
from rrl_dist.report.entries import (
    Entry,
    Number,
    entries,
    mark,
    not_seeds,
    titled,
    value_of,
)
from rrl_dist.report.measures import (
    WHAT_MOVES,
    bound_gap,
    displacement,
    distance,
    sigma_squared,
)
from rrl_dist.report.run import Arm, Run
from rrl_dist.report.seeds import varied, what_varies
from rrl_dist.report.tables import Table, facts_of, several_protocols
from rrl_dist.report.vulnerability import vulnerability

Read = Callable[[Arm, float], float | None]


@dataclass(frozen=True)
class Measure:
    """What arms are compared by.

    Attributes:
        key: in JSON.
        title: for a reader.
        read: the number of an arm at the threat model's radius.
        places: decimals; three significant digits where None.
    """

    key: str
    title: str
    read: Read
    places: int | None = None


def _clean(arm: Arm, eps: float) -> float | None:
    found = arm.components.get("clean")
    return None if found is None else 100 * found.value


MEASURES = (
    Measure("clean_accuracy", "clean accuracy, %", _clean, 1),
    Measure(
        "robust_accuracy", "robust accuracy, %", lambda arm, _: 100 * arm.worst.value, 1
    ),
    Measure("displacement", "R(f) / spread", lambda a, e: value_of(displacement(a, e))),
    # Knows no spread, which a few features far away would raise.
    Measure("bound_gap", "bound - clean loss", bound_gap),
    Measure(
        "sigma_squared_sum", "sum of sigma\u00b2", lambda arm, _: sigma_squared(arm)
    ),
    Measure("distance", "mean distance", lambda arm, _: value_of(distance(arm))),
    Measure(
        "vulnerability",
        "vulnerability, nats",
        lambda arm, _: value_of(vulnerability(arm)),
    ),
    Measure(
        "corruption_error",
        "error on corruptions, %",
        lambda arm, _: _percent(corruption_error(arm)),
        1,
    ),
)


def _measures(runs: Sequence[Run]) -> list[Measure]:
    """Those of every run, and the error on each kind of corruption that is there."""
    return [*MEASURES, *(_error_on(kind) for kind in kinds_of(runs))]


def _error_on(kind: str) -> Measure:
    title = f"error on {kind.replace('_', ' ')}, %"
    read = partial(error_on, kind=kind)
    return Measure(f"error_{kind}", title, lambda arm, _: _percent(read(arm)), 1)


def _percent(number: Number) -> float | None:
    value = value_of(number)
    return None if value is None else 100 * value


@dataclass(frozen=True)
class Term:
    """One measure of an arm, and of the arm without its term.

    Attributes:
        arm: the one with the term; its first seed's.
        measure: what was measured.
        off, on: by seed, in the order of the runs.
        difference: of on - off, seed by seed.
    """

    arm: Arm
    measure: Measure
    off: tuple[float, ...]
    on: tuple[float, ...]
    difference: Interval

    @property
    def ratio(self) -> float | None:
        """Mean on over mean off; None where off is 0."""
        off = spread(self.off).mean
        return None if off == 0 else spread(self.on).mean / off


def compare_terms(runs: Sequence[Run], against: str) -> list[Term]:
    """Every arm against the arm `against`, on the same task and seed.

    Args:
        runs: one, or several that differ in their seed alone.
        against: the arm with its terms off.

    Raises:
        UserError: there is no such arm or no other, or the runs are no seeds.
    """
    why = not_seeds(runs) if len(runs) > 1 else None
    if why is not None:
        names = ", ".join(run.name for run in runs)
        raise UserError(
            f"against= compares seeds of one experiment, and {names} {why}; name runs "
            "that differ in name and seed"
        )
    arms = list(dict.fromkeys(arm.arm for arm in runs[0].arms))
    if against not in arms:
        raise UserError(f"against={against} is no arm; choose one of {', '.join(arms)}")
    if len(arms) == 1:
        raise UserError(f"{against} is the only arm; there is none to set against it")
    rows = entries(runs)
    off = {_alike(row.arms[0]): row for row in rows if row.arms[0].arm == against}
    found = []
    for row in rows:
        without = off.get(_alike(row.arms[0]))
        if without not in (None, row):
            found += _terms(without, row, _measures(runs))
    return found


def _alike(arm: Arm) -> tuple[str | None, str | None]:
    """What arms share that are set against each other."""
    return arm.task, arm.protocol


def _terms(one: Entry, other: Entry, measures: Sequence[Measure]) -> list[Term]:
    """The measures that are there with the term off and on, under every seed."""
    found = []
    for measure in measures:
        off, on = (_values(row, measure) for row in (one, other))
        if off is not None and on is not None:
            moved = [b - a for a, b in zip(off, on, strict=True)]
            between = t_interval(moved)
            found.append(Term(other.arms[0], measure, tuple(off), tuple(on), between))
    return found


def _values(row: Entry, measure: Measure) -> list[float] | None:
    return row.values(lambda arm: measure.read(arm, row.eps))


def terms_table(terms: Sequence[Term], runs: Sequence[Run], against: str) -> Table:
    """A row for each arm, task and measure."""
    tasks = any(term.arm.task is not None for term in terms)
    several = several_protocols(runs[0])
    rows = []
    for term in terms:
        places = term.measure.places
        off, on = spread(term.off), spread(term.on)
        rows.append(
            (
                titled(term.arm.arm, term.arm.objective) + _mark(runs, term.arm.name),
                *([str(term.arm.task)] if tasks else []),
                *([str(term.arm.protocol)] if several else []),
                _title(term),
                labels.plus_minus(off, places),
                labels.plus_minus(on, places),
                _moved(term),
                labels.MISSING if term.ratio is None else f"{term.ratio:.2f}",
                ", ".join(_signed(value, term) for value in _by_seed(term)),
            )
        )
    parts = [*(["task"] if tasks else []), *(["protocol"] if several else [])]
    first = ("method", *parts, "measure")
    off_mark = _mark(runs, *(a.name for a in runs[0].arms if a.arm == against))
    last = (f"off: {against}{off_mark}", "on", "difference", "ratio", "by seed")
    return Table((*first, *last), tuple(rows), _caption(runs, against), len(first))


def _mark(runs: Sequence[Run], *names: str) -> str:
    """Of these arms under all seeds."""
    return mark([arm for run in runs for arm in run.arms if arm.name in names])


def _title(term: Term) -> str:
    found = term.arm.distance
    if term.measure.key != "distance" or found is None:
        return term.measure.title
    return f"mean {labels.norm(found.norm)} distance"


def _by_seed(term: Term) -> list[float]:
    return [b - a for a, b in zip(term.off, term.on, strict=True)]


def _signed(value: float, term: Term) -> str:
    """With as many decimals as the measure itself."""
    places = term.measure.places
    digits = labels.decimals(spread(term.off).mean) if places is None else places
    return f"{value:+,.{digits}f}"


def _moved(term: Term) -> str:
    found = term.difference
    if found.low is None or found.high is None:
        return _signed(found.mean, term)
    ends = _signed(found.low, term), _signed(found.high, term)
    return f"{_signed(found.mean, term)} [{ends[0]}, {ends[1]}]"


def _caption(runs: Sequence[Run], against: str) -> str:
    over = varied(runs)
    if over is None:
        told = "One seed: no interval can be given."
    else:
        told = (
            f"{over.told}: {what_varies(over)}, and the difference's interval is "
            "Student's t at 95 % over the differences by seed."
        )
    return (
        f"{facts_of(runs[0])}. Off is {against}, on is the row's method; their "
        f"difference is on minus off. {told} Robust accuracy is under the worst of all "
        f"attacks at {labels.threat(runs[0])}; {WHAT_MOVES}, at that radius; "
        "bound - clean loss is sqrt(2) head norm R(f), in nats. Ratio is of means."
    )


def as_json(terms: Sequence[Term], runs: Sequence[Run], against: str) -> dict[str, Any]:
    """The same numbers for programs; accuracies in percent."""
    return {
        "schema": 1,
        "against": against,
        "runs": [run.name for run in runs],
        "seeds": [run.seed for run in runs],
        "terms": [
            {
                "arm": term.arm.arm,
                "task": term.arm.task,
                "protocol": term.arm.protocol,
                "objective": term.arm.objective,
                "measure": term.measure.key,
                "off": [rounded(value) for value in term.off],
                "on": [rounded(value) for value in term.on],
                "difference": _interval(term.difference),
            }
            for term in terms
        ],
    }


def _interval(found: Interval) -> dict[str, float | int | None]:
    ends = {"low": found.low, "high": found.high}
    return {
        "mean": rounded(found.mean),
        **{name: None if v is None else rounded(v) for name, v in ends.items()},
        "count": found.count,
    }
