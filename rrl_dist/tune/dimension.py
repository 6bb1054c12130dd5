"""What a sweep draws of one setting: out of which values, and when at all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Value = float | int | str | bool | None

_NEAR = 1e-8  # share of a step that a value may be beside its mark


class Suggests(Protocol):
    """Draws values, as `optuna.Trial` does."""

    def suggest_float(
        self,
        name: str,
        low: float,
        high: float,
        *,
        step: float | None = None,
        log: bool = False,
    ) -> float: ...

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value: ...


class Domain(Protocol):
    """The values that a setting may take; its text says which."""

    @property
    def countable(self) -> bool:
        """Whether any one of them is drawn now and then."""

    def draw(self, name: str, trial: Suggests) -> Value:
        """One of them."""

    def grid(self, points: int) -> list[Value]:
        """At most `points` (>= 1) different ones from end to end; of choices all."""

    def take(self, value: Any) -> Value:
        """The value as it is drawn, such as 1.0 for 1; `ValueError` if it is not."""


@dataclass(frozen=True, kw_only=True)
class Floats:
    """A range of numbers.

    Attributes:
        low, high: its ends, which belong to it; finite, low <= high.
        log: drawn and spaced evenly in the logarithm; low > 0.
        step: between neighbours, > 0, a whole number of times in the range; None:
            every number.
    """

    low: float
    high: float
    log: bool
    step: float | None

    @property
    def countable(self) -> bool:
        return self.step is not None

    def draw(self, name: str, trial: Suggests) -> float:
        low, high = self.low, self.high
        return trial.suggest_float(name, low, high, step=self.step, log=self.log)

    def grid(self, points: int) -> list[Value]:
        if self.step is None:
            return [*_spaced(self.low, self.high, points, log=self.log)]
        last = round((self.high - self.low) / self.step)
        marks = dict.fromkeys(map(round, _spaced(0, last, points, log=False)))
        inner = [min(self.low + m * self.step, self.high) for m in marks if m != last]
        return [*inner, *([self.high] if last in marks else [])]

    def take(self, value: Any) -> float:
        if not is_number(value) or not self.low <= value <= self.high:
            raise ValueError(value)
        if self.step is not None:
            mark = (value - self.low) / self.step
            if abs(mark - round(mark)) > _NEAR:
                raise ValueError(value)
        return float(value)

    def __str__(self) -> str:
        steps = "" if self.step is None else f" in steps of {self.step}"
        return f"{self.low} to {self.high}{steps}"


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A range of whole numbers; attributes as those of `Floats`, with step 1 if log."""

    low: int
    high: int
    log: bool
    step: int

    @property
    def countable(self) -> bool:
        return True

    def draw(self, name: str, trial: Suggests) -> int:
        low, high = self.low, self.high
        return trial.suggest_int(name, low, high, step=self.step, log=self.log)

    def grid(self, points: int) -> list[Value]:
        if self.log:
            spaced = _spaced(self.low, self.high, points, log=True)
            return [*dict.fromkeys(map(round, spaced))]
        last = (self.high - self.low) // self.step
        marks = dict.fromkeys(map(round, _spaced(0, last, points, log=False)))
        return [self.low + mark * self.step for mark in marks]

    def take(self, value: Any) -> int:
        if not is_whole(value) or not self.low <= value <= self.high:
            raise ValueError(value)
        if (int(value) - self.low) % self.step:
            raise ValueError(value)
        return int(value)

    def __str__(self) -> str:
        steps = "" if self.step == 1 else f" in steps of {self.step}"
        return f"{self.low} to {self.high}, whole{steps}"


@dataclass(frozen=True)
class Choices:
    """One of several values, none twice; or of a group's files, by their names."""

    values: tuple[Value, ...]

    @property
    def countable(self) -> bool:
        return True

    def draw(self, name: str, trial: Suggests) -> Value:
        return trial.suggest_categorical(name, self.values)

    def grid(self, points: int) -> list[Value]:
        return [*self.values]

    def take(self, value: Any) -> Value:
        for own in self.values:
            if same(own, value):
                return own
        raise ValueError(value)

    def __str__(self) -> str:
        return "|".join(map(shown, self.values))


@dataclass(frozen=True)
class Dimension:
    """One setting of a search space.

    Attributes:
        name: in the space; values are told by it.
        key: of the setting, dotted.
        domain: what may be drawn.
        when: names of others, and of each the values with which this one is drawn.
    """

    name: str
    key: str
    domain: Domain
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def active(self, values: Mapping[str, Value]) -> bool:
        """Whether it is drawn where these are the values of what stands before it."""
        return all(
            name in values and any(same(values[name], option) for option in options)
            for name, options in self.when.items()
        )


def is_number(value: Any) -> bool:
    """Whether it is a finite number; true and false are none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def is_whole(value: Any) -> bool:
    return is_number(value) and value == int(value)


def same(one: Any, other: Any) -> bool:
    """Equal, and neither true beside 1 nor false beside 0."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def shown(value: Any) -> str:
    """As YAML has it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return " ".join(str(value).split())


def _spaced(low: float, high: float, points: int, *, log: bool) -> list[float]:
    """Equally spaced from end to end; the middle if it is one point."""
    if low == high:
        return [low]
    begin, end = (math.log(low), math.log(high)) if log else (low, high)
    shares = [i / (points - 1) for i in range(1, points - 1)] if points > 1 else [0.5]
    inner = [begin * (1 - share) + end * share for share in shares]
    found = [math.exp(x) if log else x for x in inner]
    # Rounding must not lead out of the range.
    found = [min(max(x, low), high) for x in found]
    return found if points == 1 else [*dict.fromkeys([low, *found, high])]
