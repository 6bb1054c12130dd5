"""What a sweep looks for: measures to be made large or small, floors under others, and
which trials are best."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.tune import front
from rrl_dist.tune.measures import (
    OF_LAYERS,
    Estimate,
    Measured,
    canonical,
    is_number,
    measured,
    names_of,
    numbers,
)

__all__ = [
    "Aim",
    "Aims",
    "Estimate",
    "Measured",
    "feasible",
    "measured",
    "names_of",
    "numbers",
    "parse_aims",
]

MOST = 2  # aims: fronts of more are not shown
_SHARES = ("robust", "clean", "components.*")
# Whether more is better; of other measures the configuration says it.
_DIRECTIONS = {
    "robust": True,
    "clean": True,
    "cost": False,
    "components.*": True,
    "distance": True,
    "corruptions.error": False,
    "corruptions.kinds.*": False,
    "corruptions.mce.*": False,
    "corruptions.validation": False,
    "vulnerability.vulnerability": False,
    "vulnerability.adversarial_risk": False,
}


@dataclass(frozen=True)
class Aim:
    """A measure, and whether more of it is better."""

    measure: str
    maximize: bool


@dataclass(frozen=True)
class Aims:
    """The objectives of a sweep.

    Attributes:
        aims: one or two.
        floors: by measure the least that a trial has to reach to be feasible.
    """

    aims: tuple[Aim, ...]
    floors: Mapping[str, float]

    @property
    def wanted_names(self) -> tuple[str, ...]:
        """Measures that each trial has to report, each once."""
        return tuple(dict.fromkeys([*(aim.measure for aim in self.aims), *self.floors]))

    @property
    def constraints(self) -> tuple[str, ...]:
        """Names of what `violations` tells, in its order."""
        return (*(f"floors.{name}" for name in self.floors), "masking")

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse what no trial reports.

        Args:
            names: of all measures, as of `measured` or `names_of`.

        Raises:
            UserError: one of the aims or floors is not among them; the nearest is told.
        """
        known = list(names)
        for name in self.wanted_names:
            if name not in known and not name.startswith(OF_LAYERS):
                raise _unknown(name, known)

    def values(self, measured: Measured) -> tuple[float, ...]:
        """Of the aims, in their order.

        Raises:
            UserError: the trial does not report one; the nearest is told.
        """
        return tuple(_read(measured, aim.measure) for aim in self.aims)

    def violations(
        self, measured: Measured, *, failed: Sequence[str] = ()
    ) -> tuple[float, ...]:
        """By how much a trial misses each of `constraints`: feasible is at most 0, as
        in Optuna.

        Args:
            measured: of the trial.
            failed: what `masking_checks` tells of it; their number comes last, so that
                all trials have equally many constraints.

        Raises:
            UserError: the trial does not report a floor's measure.
        """
        floors = [least - _read(measured, name) for name, least in self.floors.items()]
        return (*floors, float(len(failed)))

    def better(self, a: Sequence[float], b: Sequence[float]) -> bool:
        """Whether `a` is as good as `b` in each aim and better in one: it dominates.

        Args:
            a, b: `values` of trials.
        """
        return front.better(self._gains(a), self._gains(b))

    def dominated(self, a: Sequence[float], others: Iterable[Sequence[float]]) -> bool:
        """Whether one of the others is better than `a`."""
        return any(self.better(other, a) for other in others)

    def front(self, points: Iterable[Sequence[float]]) -> list[int]:
        """Places of those that no other is better than, growing; equals are all there.

        Args:
            points: `values` of feasible trials.
        """
        return front.front([self._gains(point) for point in points])

    def hypervolume(
        self, points: Iterable[Sequence[float]], reference: Sequence[float]
    ) -> float:
        """How much of what is better than the reference has been reached: of one aim a
        length, of two an area.

        Args:
            points: `values` of feasible trials.
            reference: values worse than which nothing counts.
        """
        gains = map(self._gains, points)
        return front.hypervolume(gains, self._gains(reference))

    def _gains(self, values: Sequence[float]) -> tuple[float, ...]:
        """More is better in each."""
        pairs = zip(self.aims, values, strict=True)
        return tuple(value if aim.maximize else -value for aim, value in pairs)


def feasible(violations: Iterable[float]) -> bool:
    """Whether a trial may be an answer."""
    return all(value <= 0 for value in violations)


def parse_aims(sweep: Mapping[str, Any]) -> Aims:
    """The objectives of a sweep's configuration.

    Args:
        sweep: `aims`, a list of one or two measures, each by its name or as `measure`
            and `maximize`, which may be left out where more is known to be better or
            worse; perhaps `floors`, the least of measures.

    Raises:
        UserError: none of that, one measure twice, or a floor that is no number or
            that no trial can reach.
    """
    listed = sweep.get("aims")
    if not isinstance(listed, list | tuple) or not 0 < len(listed) <= MOST:
        raise UserError(
            f"sweep.aims={listed}; give a list of one or two measures, such as [robust]"
        )
    aims = tuple(map(_aim, listed))
    if len({aim.measure for aim in aims}) < len(aims):
        raise UserError(f"sweep.aims has {aims[0].measure} twice; give it once")
    return Aims(aims, dict(_floors(sweep.get("floors"))))


def _aim(entry: object) -> Aim:
    given = {"measure": entry} if isinstance(entry, str) else entry
    if not isinstance(given, Mapping) or not isinstance(given.get("measure"), str):
        raise UserError(
            f"sweep.aims has {entry}; give the name of a measure, or "
            "{measure: NAME, maximize: true|false}"
        )
    for key in given:
        if key not in ("measure", "maximize"):
            raise UserError(
                f"an aim of sweep.aims has no {key}; it has measure and maximize"
            )
    name = canonical(given["measure"])
    maximize = given.get("maximize", _direction(name))
    if not isinstance(maximize, bool):
        near = get_close_matches(name, _DIRECTIONS, n=1, cutoff=0.8)
        other = near and near[0] != name
        told = f"the nearest that is known is {near[0]}, or " if other else ""
        raise UserError(
            f"sweep.aims has {name} with maximize={maximize}; {told}say which is "
            f"better, {{measure: {name}, maximize: true|false}}"
        )
    return Aim(name, maximize)


def _floors(given: object) -> Iterator[tuple[str, float]]:
    if not isinstance(given, Mapping | None):
        raise UserError(f"sweep.floors={given}; give {{MEASURE: LEAST}}")
    for key, least in _leaves(given or {}):
        name = canonical(key)
        if not is_number(least):
            raise UserError(f"sweep.floors.{key}={least}; set a number")
        if _direction(name) is False:
            raise UserError(
                f"sweep.floors.{key}={least}: less of it is better, and a floor is the "
                "least; leave it out"
            )
        if any(fnmatchcase(name, pattern) for pattern in _SHARES) and least > 1:
            raise UserError(
                f"sweep.floors.{key}={least}, and no accuracy is above 1; set "
                f"{least / 100:g} for {least:g} percent"
            )
        yield name, float(least)


def _leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Floors by dotted name, which the command line takes apart at its dots."""
    for key, child in node.items():
        if isinstance(child, Mapping) and child:
            yield from _leaves(child, f"{path}{key}.")
        else:
            yield f"{path}{key}", child


def _direction(name: str) -> bool | None:
    known = (up for key, up in _DIRECTIONS.items() if fnmatchcase(name, key))
    return next(known, None)


def _read(measured: Measured, name: str) -> float:
    if name not in measured:
        raise _unknown(name, measured)
    return measured[name].value


def _unknown(name: str, known: Iterable[str]) -> UserError:
    near = get_close_matches(name, known, n=1, cutoff=0.0)
    return UserError(
        f"the sweep wants {name}, which no trial reports; the nearest is {near[0]}"
        if near
        else f"the sweep wants {name}, and trials report nothing; change the suite"
    )
