"""What is known of a sweep's trials, as plain values."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from rrl_dist.tune.aims import Estimate, Measured, feasible
from rrl_dist.tune.dimension import Value
from rrl_dist.tune.front import front as best_places
from rrl_dist.tune.rules import Look

Ended = Literal["complete", "pruned", "failed"]
State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class Asked:
    """A trial to be run.

    Attributes:
        number: of the trial, counted from 0.
        settings: the active dimensions of the space and their values.
    """

    number: int
    settings: Mapping[str, Value]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: `complete`, `pruned` and `failed` make it.

    Attributes:
        state: of the end.
        values: of the aims; only of a trial that is complete.
        violations: > 0 is violated; only of a trial that is complete.
        measured: by name.
        masked: a line for each check that the trial's robustness did not pass.
        why: it did not come to its end; one line.
        seconds: of a device, spent on it.
        after: how many looks of the whole study came before; the study notes it.
    """

    state: Ended
    values: tuple[float, ...] = ()
    violations: tuple[float, ...] = ()
    measured: Measured = field(default_factory=dict)
    masked: tuple[str, ...] = ()
    why: str = ""
    seconds: float = 0.0
    after: int = 0

    @classmethod
    def complete(
        cls,
        values: Sequence[float],
        violations: Sequence[float],
        measured: Measured,
        masked: Sequence[str],
        seconds: float,
    ) -> "Outcome":
        """Brought to its end; with a number that is not finite it has failed."""
        told = cls(
            state="complete",
            values=tuple(values),
            violations=tuple(violations),
            measured=measured,
            masked=tuple(masked),
            seconds=seconds,
        )
        wrong = [v for v in (*values, *violations) if not math.isfinite(v)]
        if wrong:
            why = f"what the sweep wants of it is {wrong[0]}"
            return replace(told, state="failed", values=(), violations=(), why=why)
        return told

    @classmethod
    def pruned(cls, why: str, seconds: float) -> "Outcome":
        """Ended by a rule."""
        return cls("pruned", why=why, seconds=seconds)

    @classmethod
    def failed(cls, why: str, seconds: float) -> "Outcome":
        """Could not be brought to its end."""
        return cls("failed", why=why, seconds=seconds)

    def __str__(self) -> str:
        """Such as "0.42, 0.91", "0.42, infeasible" or "pruned: behind trial 3"."""
        if self.state != "complete":
            return f"{self.state}: {self.why}"
        values = [f"{value:.4g}" for value in self.values]
        return ", ".join(values + ["infeasible"] * (not feasible(self.violations)))


@dataclass(frozen=True)
class Record:
    """A trial as the study has it.

    Attributes:
        number: counted from 0, in the order in which they were asked for.
        state: "running" also when its driver is gone.
        settings: the active dimensions of the space and their values; empty if the
            driver was killed while they were drawn.
        values, violations, measured, masked, why, seconds, after: see `Outcome`.
        looks: by growing step.
        started, ended: with a time zone; `started` is when it was first asked for.
    """

    number: int
    state: State
    settings: Mapping[str, Value]
    values: tuple[float, ...]
    violations: tuple[float, ...]
    measured: Measured
    masked: tuple[str, ...]
    looks: tuple[Look, ...]
    why: str
    seconds: float
    started: datetime | None
    ended: datetime | None
    after: int = 0

    @property
    def feasible(self) -> bool:
        """Complete, and nothing is violated."""
        return self.state == "complete" and feasible(self.violations)


def best(records: Iterable[Record], maximize: Sequence[bool]) -> Record | None:
    """The feasible one with the best first value; of equals, by the next value, then
    the earlier one. None if none is feasible."""
    ordered = sorted((r for r in records if r.feasible), key=lambda r: r.number)
    return max(ordered, key=lambda r: _gains(r, maximize), default=None)


def front(records: Iterable[Record], maximize: Sequence[bool]) -> list[Record]:
    """The feasible ones that no feasible one is better than, by growing number."""
    ordered = sorted((r for r in records if r.feasible), key=lambda r: r.number)
    return [ordered[i] for i in best_places([_gains(r, maximize) for r in ordered])]


def _gains(record: Record, maximize: Sequence[bool]) -> tuple[float, ...]:
    """More is better in each."""
    pairs = zip(record.values, maximize, strict=True)
    return tuple(value if up else -value for value, up in pairs)


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """A JSON value. JSON has no NaN: a number that is not finite becomes null."""
    return {
        "state": outcome.state,
        "values": list(outcome.values),
        "violations": list(outcome.violations),
        "measured": {
            name: [_finite(e.value), _finite(e.low), _finite(e.high)]
            for name, e in outcome.measured.items()
        },
        "masked": list(outcome.masked),
        "why": outcome.why,
        "seconds": outcome.seconds,
        "after": outcome.after,
    }


def outcome_from_json(value: Mapping[str, Any]) -> Outcome:
    """What `outcome_to_json` was given; a measured value that was not finite is NaN."""
    measured = {
        name: Estimate(math.nan if number is None else number, low, high)
        for name, (number, low, high) in value["measured"].items()
    }
    return Outcome(
        state=value["state"],
        values=tuple(value["values"]),
        violations=tuple(value["violations"]),
        measured=measured,
        masked=tuple(value["masked"]),
        why=value["why"],
        seconds=value["seconds"],
        after=value["after"],
    )


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
