"""The settings that a sweep tries first."""

from collections.abc import Iterator, Mapping
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.tune.conditions import Built, implied
from rrl_dist.tune.dimension import Dimension, Value, shown
from rrl_dist.tune.keys import nearest

Values = Mapping[str, Value]


def read_starts(
    said: Any, built: Built, defaults: Values, around: set[str]
) -> tuple[Values, ...]:
    """Starting points, each once.

    Args:
        said: a list of values by names of dimensions. None: the composed configuration
            where a range lies around it, once for each of the conditions of such.
        built: the dimensions in order, by name.
        defaults: what the composed configuration has of them. A start is that
            configuration but for what it names, as far as it is in the space.
        around: names of dimensions that lie around their default.

    Raises:
        UserError: a start is not in the space.
    """
    if said is None:
        said = list(_conditions_of(around, built))
    if not isinstance(said, list | tuple):
        mend = "give a list, such as [{objective.weight: 1.0}]"
        raise UserError(f"start: it is {shown(said)}; {mend}")
    found: list[Values] = []
    for number, entry in enumerate(said, 1):
        start = _start(f"start {number}:", entry, built, defaults)
        if start not in found:
            found.append(start)
    return tuple(found)


def _start(where: str, entry: Any, built: Built, defaults: Values) -> Values:
    if not isinstance(entry, Mapping):
        mend = "give values, such as {objective.weight: 1.0}"
        raise UserError(f"{where} it is {shown(entry)}; {mend}")
    for name in entry:
        if name not in built:
            told = nearest(name, built, f"the space has {', '.join(built)}")
            raise UserError(f"{where} {shown(name)} is not in the space; {told}")
    values: dict[str, Value] = {}
    for name, dimension in built.items():
        if dimension.active(values):
            if name in entry:
                values[name] = _taken(where, dimension, entry[name])
            elif name in defaults:
                values[name] = defaults[name]
        elif name in entry:
            _check_active(where, dimension, values)
    if not values:
        raise UserError(f"{where} it sets nothing; name one of {', '.join(built)}")
    return values


def _taken(where: str, dimension: Dimension, value: Any) -> Value:
    try:
        return dimension.domain.take(value)
    except ValueError:
        raise UserError(
            f"{where} {dimension.name}={shown(value)} is not in the space; set "
            f"{dimension.domain}, or change its range"
        ) from None


def _check_active(where: str, dimension: Dimension, values: Values) -> None:
    """Raises `UserError` that names the first condition that does not hold."""
    for on, options in dimension.when.items():
        if not Dimension("", "", dimension.domain, {on: options}).active(values):
            raise UserError(
                f"{where} {dimension.name} is drawn only when {on} is "
                f"{'|'.join(map(shown, options))}; set {on} so, or leave "
                f"{dimension.name} out"
            )


def _conditions_of(around: set[str], built: Built) -> Iterator[Values]:
    """Under which conditions ranges lie around their default, less those that others
    contain."""
    found = [
        {on: options[0] for on, options in implied(built[name].when, built).items()}
        for name in built
        if name in around
    ]
    for place, one in enumerate(found):
        others = found[:place] + found[place + 1 :]
        contained = any(one.items() < other.items() for other in others)
        if not contained and one not in found[:place]:
            yield one
