"""What a sweep has found so far, and how its settings and measures are written."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Literal

from rrl_dist.report import labels
from rrl_dist.tune.aims import Aim, Aims, Estimate
from rrl_dist.tune.dimension import Choices, Dimension, Value, shown
from rrl_dist.tune.record import Record, front
from rrl_dist.tune.rules import Look
from rrl_dist.tune.space import Space

Kind = Literal["complete", "infeasible", "running", "pruned", "failed"]
KINDS: tuple[Kind, ...] = ("complete", "infeasible", "running", "pruned", "failed")
PROBED = "robust"  # what a probe on the way is an early value of
_SHARES = (
    "robust",
    "clean",
    "components.*",
    "corruptions.error",
    "corruptions.kinds.*",
    "corruptions.mce.*",
    "corruptions.validation",
)
_TITLES = {"robust": "robust accuracy", "clean": "clean accuracy"}
_SECONDS = 60


@dataclass(frozen=True)
class Measure:
    """How a measure is shown.

    Attributes:
        title: with its unit.
        scale: a value is shown times this.
        places: digits behind the point; None: three significant digits.
    """

    title: str
    scale: float = 1.0
    places: int | None = None

    @classmethod
    def of(cls, name: str) -> "Measure":
        """Accuracies and errors are in percent, costs in minutes."""
        if name == "cost":
            return cls("cost (device-minutes)", 1 / _SECONDS, 2)
        attack = labels.attack(name.removeprefix("components."))
        under = f"accuracy under {attack}" if attack != name else name
        title = _TITLES.get(name, under)
        if any(fnmatchcase(name, pattern) for pattern in _SHARES):
            return cls(f"{title} (%)", 100.0, 1)
        return cls(title)

    def cell(self, found: Estimate | None) -> str:
        """A number and its interval: "57.2 [52.1, 62.2]"."""
        if found is None:
            return labels.MISSING
        value = self._number(found.value, found.value)
        if found.low is None or found.high is None:
            return value
        low, high = (self._number(end, found.value) for end in (found.low, found.high))
        return f"{value} [{low}, {high}]"

    def _number(self, value: float, like: float) -> str:
        if self.places is None:
            return labels.number(value * self.scale, like * self.scale)
        return f"{value * self.scale:,.{self.places}f}"


@dataclass(frozen=True)
class Findings:
    """The trials of a sweep beside what it searches and wants.

    Attributes:
        name: of the sweep.
        records: of its trials.
        aims, space: of its configuration.
    """

    name: str
    records: tuple[Record, ...]
    aims: Aims
    space: Space

    @cached_property
    def front(self) -> tuple[Record, ...]:
        """No feasible trial is better: with one aim the best and its equals; by the
        first aim, the best first."""
        found = front(self.records, [aim.maximize for aim in self.aims.aims])
        return tuple(sorted(found, key=self._rank))

    @cached_property
    def ordered(self) -> tuple[Record, ...]:
        """The front, then other feasible ones, each from the best first value on;
        infeasible ones; what runs; pruned ones from the best last probe on; failed."""
        best = {record.number for record in self.front}
        return tuple(
            sorted(
                self.records,
                key=lambda r: (
                    r.number not in best,
                    KINDS.index(kind(r)),
                    self._rank(r),
                ),
            )
        )

    def _rank(self, record: Record) -> tuple[float, int]:
        first = self.aims.aims[0]
        if record.state == "complete":
            value = record.values[0]
            return (-value if first.maximize else value), record.number
        return (-record.looks[-1].value if record.looks else 0.0), record.number

    @cached_property
    def short(self) -> dict[str, str]:
        """By the dimensions' names, as much of their ends as sets them apart."""
        names = [dimension.name for dimension in self.space.dimensions]
        return {name: _short(name, names) for name in names}

    @property
    def choice(self) -> Dimension | None:
        """The first dimension whose choices are few, such as the method."""
        found = (d for d in self.space.dimensions if isinstance(d.domain, Choices))
        return next((d for d in found if 1 < len(d.domain.grid(1)) <= 7), None)

    @property
    def seconds(self) -> float:
        """Of a device, of all trials that have ended."""
        return sum(record.seconds for record in self.records)

    def counts(self) -> str:
        """Such as "24 trials: 12 complete, 1 infeasible, 9 pruned, 2 failed"."""
        number = Counter(map(kind, self.records))
        told = ", ".join(f"{number[k]} {k}" for k in KINDS if number[k])
        trials = "trial" if len(self.records) == 1 else "trials"
        return f"{len(self.records)} {trials}: {told}" if told else "no trial yet"

    def settings(self, record: Record) -> str:
        """Such as "weight=1.5, steps=3"."""
        known = {name: self.short.get(name, name) for name in record.settings}
        pairs = record.settings.items()
        return ", ".join(f"{known[name]}={written(value)}" for name, value in pairs)

    def estimate(self, record: Record, measure: str) -> Estimate | None:
        """What a trial that is complete has of a measure; None if it has nothing."""
        if record.state != "complete":
            return None
        told = record.measured.get(measure)
        names = [aim.measure for aim in self.aims.aims]
        if told is None and measure in names:  # ended by hand, in a dashboard
            return Estimate(record.values[names.index(measure)])
        return told

    def probe(self, record: Record, measure: str) -> Estimate | None:
        """The last probe of a trial that is not complete, where it is an early value of
        the measure."""
        if record.state == "complete" or measure != PROBED or not record.looks:
            return None
        look = record.looks[-1]
        return Estimate(look.value, look.low, look.high)

    def value(self, record: Record, measure: str) -> Estimate | None:
        """What it has come to, or else its last probe."""
        return self.estimate(record, measure) or self.probe(record, measure)

    def kinds(self, measure: str) -> list[Kind]:
        """Of the trials that have a value; with "failed" if others have none."""
        valued = {r.number: self.value(r, measure) is not None for r in self.records}
        found = {kind(r) if valued[r.number] else "failed" for r in self.records}
        return [k for k in KINDS if k in found]

    def why(self, record: Record) -> str:
        """A trial is no answer; empty if it is one, or may become one."""
        if record.state != "complete" or record.feasible:
            return record.why
        pairs = zip(self.aims.floors.items(), record.violations, strict=False)
        floors = [
            f"{name} {Measure.of(name).cell(self._bare(record, name))} is below "
            f"{Measure.of(name).cell(Estimate(least))}"
            for (name, least), violation in pairs
            if violation > 0
        ]
        return "; ".join([*floors, *record.masked]) or "a constraint is violated"

    def _bare(self, record: Record, name: str) -> Estimate | None:
        found = self.estimate(record, name)
        return None if found is None else Estimate(found.value)


def kind(record: Record) -> Kind:
    """Its state, with what is complete and no answer apart."""
    if record.state == "complete":
        return "complete" if record.feasible else "infeasible"
    return record.state


def written(value: Value) -> str:
    """A setting in at most three significant digits; a whole number in all."""
    if isinstance(value, float):
        return f"{float(f'{value:.3g}'):g}"
    return shown(value)


def probe_text(look: Look) -> str:
    """Such as "step 40, robust 45.2 [40.1, 50.3] %"."""
    found = Measure.of(PROBED).cell(Estimate(look.value, look.low, look.high))
    return f"step {look.step}, {PROBED} {found} %"


def better(aim: Aim, values: Iterable[float]) -> list[float]:
    """The best so far, after each value."""
    pick, found = (max if aim.maximize else min), list[float]()
    for value in values:
        found.append(pick(found[-1], value) if found else value)
    return found


def _short(name: str, names: Sequence[str]) -> str:
    parts = name.split("@")[0].split(".")
    ending = name[len(name.split("@")[0]) :]
    for length in range(1, len(parts)):
        tail = ".".join(parts[-length:]) + ending
        if sum(n == tail or n.endswith(f".{tail}") for n in names) == 1:
            return tail
    return name
