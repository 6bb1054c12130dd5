"""One entry of a sweep's YAML: what it says of a setting, and the mistakes in it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

from rrl_dist.core.errors import UserError
from rrl_dist.tune.dimension import (
    Choices,
    Domain,
    Floats,
    Value,
    Whole,
    is_number,
    is_whole,
    shown,
)
from rrl_dist.tune.keys import nearest

_RANGE = ("low", "high", "log", "step", "int")
_AROUND = ("around", "int")
_ALL = ("key", "when", "choices", "around", *_RANGE)


@dataclass(frozen=True)
class Entry:
    """An entry whose range is not read yet.

    Attributes:
        name: in the space.
        key: of the setting, dotted.
        when: names of other entries, and values of each.
        fields: what else it says.
    """

    name: str
    key: str
    when: Mapping[str, tuple[Any, ...]]
    fields: Mapping[str, Any]

    def domain(self, found: Sequence[Any]) -> Domain:
        """What may be drawn.

        Args:
            found: what the key holds in each configuration where it may be drawn.

        Raises:
            UserError: the entry says no range, or one that does not fit.
        """
        if "choices" in self.fields:
            return self._choices()
        if whole := [v for v in found if _only_whole(v)]:
            self._check_whole(whole[0])
        if unfit := [v for v in found if not (v is None or is_number(v))]:
            mend = "give choices: [...] in place of a range"
            mistake(self.name, f"holds {shown(unfit[0])}, which is no number", mend)
        return self._around(found) if "around" in self.fields else self._range()

    def _check_whole(self, value: int) -> None:
        if not self.fields.get("int", False):
            mend = f"add int: true, or set {self.key}={value}.0 if fractions are meant"
            mistake(self.name, f"draws fractions where {value} is whole", mend)

    def _choices(self) -> Choices:
        values = self.fields["choices"]
        if not isinstance(values, list | tuple) or not values:
            mistake(self.name, "has no choices", "give a list, such as [1.0, 2.0]")
        for place, value in enumerate(values):
            if not (value is None or isinstance(value, bool | int | float | str)):
                mend = "give single values, or the key of one setting in it"
                mistake(self.name, f"has the choice {shown(value)}", mend)
            if value in values[:place]:
                mend = "leave one out"
                mistake(self.name, f"has the choice {shown(value)} twice", mend)
        return Choices(tuple(values))

    def _around(self, found: Sequence[Any]) -> Floats | Whole:
        """From the composed value over a factor to that value times it."""
        factor = self.fields["around"]
        if not is_number(factor) or factor <= 1:
            mend = "give a factor above 1, such as 100.0"
            mistake(self.name, f"has around={shown(factor)}", mend)
        middle = found[0]
        if any(value != middle for value in found):
            told = " and ".join(shown(v) for v in dict.fromkeys(found))
            mend = "give each its own entry with `key` and `when`"
            mistake(self.name, f"has around, and its setting is {told}", mend)
        if middle is None or middle <= 0:
            mend = "give low and high in place of around"
            told = f"has around, and its setting is {shown(middle)}"
            mistake(self.name, told, mend)
        low, high = middle / factor, middle * factor
        if not self._flag("int"):
            return Floats(low=low, high=high, log=True, step=None)
        whole = Whole(low=math.ceil(low), high=math.floor(high), log=True, step=1)
        if whole.low > whole.high:
            mend = "give low and high in place of around"
            mistake(self.name, f"has no whole number from {low} to {high}", mend)
        return whole

    def _range(self) -> Floats | Whole:
        log, whole = self._flag("log"), self._flag("int")
        low, high = (self._number(end, whole=whole) for end in ("low", "high"))
        step = None
        if self.fields.get("step") is not None:
            step = self._number("step", whole=whole)
        if low > high:
            mistake(self.name, f"has low={low} above high={high}", "exchange them")
        if log and low <= 0:
            mend = "set low above 0, or leave out log"
            mistake(self.name, f"is log and has low={low}", mend)
        if step is not None:
            self._check_step(low, high, step, log=log and not (whole and step == 1))
        if whole:
            step = 1 if step is None else int(step)
            return Whole(low=int(low), high=int(high), log=log, step=step)
        step = None if step is None else float(step)
        return Floats(low=float(low), high=float(high), log=log, step=step)

    def _check_step(self, low: float, high: float, step: float, *, log: bool) -> None:
        if step <= 0:
            mend = "set it above 0, or leave it out"
            mistake(self.name, f"has step={step}", mend)
        if log:
            mistake(self.name, f"is log and has step={step}", "leave one of them out")
        # In decimals as they were written: 1.0 / 0.1 is no whole number in binary.
        begin, end, size = (Decimal(str(x)) for x in (low, high, step))
        if (end - begin) % size:
            mend = f"set high={end - (end - begin) % size}"
            mistake(self.name, f"does not reach high={high} in steps of {step}", mend)

    def _number(self, field: str, *, whole: bool) -> float:
        value: Any = self.fields.get(field)
        if not is_number(value):
            told = f"has {field}={shown(value)}"
            mistake(self.name, told, f"set {field} to a finite number")
        if whole and not is_whole(value):
            mend = "set a whole number, or leave out int"
            mistake(self.name, f"is int and has {field}={value}", mend)
        return int(value) if whole else float(value)

    def _flag(self, field: str) -> bool:
        value = self.fields.get(field, False)
        if not isinstance(value, bool):
            mistake(self.name, f"has {field}={shown(value)}", "set true or false")
        return value


def read(name: str, said: Any) -> Entry:
    """An entry by its name.

    Raises:
        UserError: it has unknown fields, or several kinds of range, or none.
    """
    if not isinstance(said, Mapping):
        mistake(
            name, f"is {shown(said)}", "give a range, such as {low: 0.1, high: 10.0}"
        )
    for field in said:
        if field not in _ALL:
            told = nearest(field, _ALL, f"the fields are {', '.join(_ALL)}")
            mistake(name, f"has the unknown field {shown(field)}", told)
    _check_kind(name, said)
    key, when = said.get("key", name), said.get("when") or {}
    if not isinstance(key, str):
        mistake(name, f"has key={shown(key)}", "name one setting, such as optim.lr")
    if not isinstance(when, Mapping):
        mend = "name an entry and a value, such as when: {objective: tarrl}"
        mistake(name, f"has when={shown(when)}", mend)
    conditions = {str(on): _options(name, on, value) for on, value in when.items()}
    fields = {f: said[f] for f in said if f not in ("key", "when")}
    return Entry(name, key, conditions, fields)


def _check_kind(name: str, said: Mapping[str, Any]) -> None:
    """Refuse an entry that has not exactly one kind of range."""
    kinds = {"choices": ("choices",), "around": _AROUND, "low": _RANGE}
    chosen = next((kind for kind in kinds if kind in said), None)
    if chosen is None:
        found = "has high and no low" if "high" in said else "has no range"
        mistake(name, found, "give low and high, or around, or choices")
    if chosen == "low" and "high" not in said:
        mistake(name, "has low and no high", "give high too")
    for field in said:
        if field not in ("key", "when", *kinds[chosen]):
            mistake(name, f"has both {chosen} and {field}", "leave one of them out")


def _options(name: str, on: Any, value: Any) -> tuple[Value, ...]:
    options = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not options or any(isinstance(o, list | tuple | Mapping) for o in options):
        mend = f"give one or more values of {shown(on)}"
        mistake(name, f"is drawn when {shown(on)} is {shown(value)}", mend)
    return options


def _only_whole(value: Any) -> bool:
    """Whether a setting likely takes no fractions: our YAML has 1.0 where it does."""
    return isinstance(value, int) and not isinstance(value, bool)


def mistake(name: str, found: str, mend: str) -> NoReturn:
    """Raises `UserError` that names the entry."""
    raise UserError(f"space: {shown(name)} {found}; {mend}")
