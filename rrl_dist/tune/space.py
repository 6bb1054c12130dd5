"""The space that a sweep searches: its settings, conditions and starting points."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.tune.conditions import (
    Built,
    Conditions,
    assured,
    conditions,
    exclusive,
    implied,
    ordered,
)
from rrl_dist.tune.dimension import Choices, Dimension, Suggests, Value, same, shown
from rrl_dist.tune.keys import below, find, nearest, paths, put
from rrl_dist.tune.reading import Entry, mistake, read
from rrl_dist.tune.starts import read_starts

Config = Mapping[str, Any]
# By the key of a group, then by the name of its file: what is composed with that file.
Variants = Mapping[str, Mapping[str, Config]]

# What may differ between trials.
_SEARCHED = ("objective", "views", "optim", "train", "model")
# Where what they are compared by differs, the weaker measure would win; the rest says
# how and where they run.
_FIXED = (
    *("ball", "data", "evaluate", "probe", "protocol", "seed", "split", "suite"),
    *("arm", "betons", "cluster", "loader", "name", "storage", "strategy", "tasks"),
    *("head_seeds", "protocols"),
)
_SWEEP = "sweep"


@dataclass(frozen=True)
class Space:
    """Settings to search.

    Attributes:
        dimensions: in an order in which conditions, and groups, stand before what
            depends on them.
        starts: values to try first, by names of dimensions. What a start leaves out is
            drawn.
    """

    dimensions: tuple[Dimension, ...]
    starts: tuple[Mapping[str, Value], ...]

    def draw(self, trial: Suggests) -> dict[str, Value]:
        """One setting: a value for each dimension that is active, by its name."""
        values: dict[str, Value] = {}
        for dimension in self.dimensions:
            if dimension.active(values):
                values[dimension.name] = dimension.domain.draw(dimension.name, trial)
        return values

    def grid(self, points: int) -> list[dict[str, Value]]:
        """Every combination of equally spaced values, in the logarithm where that is
        drawn; of dimensions with conditions only where they are active.

        Args:
            points: of each range, fewer where it has fewer; of choices it is all.

        Raises:
            UserError: there are none.
        """
        if points < 1:
            raise UserError(f"a grid has points={points}; set at least 1")
        settings: list[dict[str, Value]] = [{}]
        for dimension in self.dimensions:
            spaced = dimension.domain.grid(points)
            settings = [
                {**values, **more}
                for values in settings
                for more in (
                    [{dimension.name: value} for value in spaced]
                    if dimension.active(values)
                    else [{}]
                )
            ]
        return settings

    def apply(
        self, config: Config, values: Mapping[str, Value], variants: Variants
    ) -> dict[str, Any]:
        """A copy of a configuration with values set at their keys.

        Args:
            config: nested, as it was given to `parse_space`.
            values: by names of dimensions.
            variants: as they were given to `parse_space`.

        Raises:
            UserError: a name or its key is not there.
        """
        known = {dimension.name: dimension for dimension in self.dimensions}
        for name in values:
            if name not in known:
                mistake(
                    name, "is not in the space", nearest(name, known, "leave it out")
                )
        chosen = [(known[name], value) for name, value in values.items()]
        try:
            return _with(config, chosen, variants)
        except KeyError as error:
            told = nearest(error.args[0], paths(config), "compose it as for the space")
            raise UserError(f"there is no setting {error.args[0]}; {told}") from None


def parse_space(sweep: Config, config: Config, variants: Variants) -> Space:
    """Read a space, and hold it against the configuration that it changes.

    Args:
        sweep: with `space` and maybe `start`, as in configs/sweep.
        config: resolved and nested: the settings of the run beside `objective`,
            `views`, `optim` and `train` of the arm.
        variants: see `Variants`; of every group that is an entry's key.

    Raises:
        UserError: the first mistake.
    """
    said = sweep.get("space")
    if not isinstance(said, Mapping) or not said:
        mend = "give at least one, such as objective.weight: {low: 0.1, high: 10.0}"
        raise UserError(f"space: it has no settings; {mend}")
    config = {key: value for key, value in config.items() if key != _SWEEP}
    entries = [read(str(name), entry) for name, entry in said.items()]
    built: dict[str, Dimension] = {}
    defaults: dict[str, Value] = {}
    for entry in ordered(entries):
        _check_kept(entry)
        _check_files(entry, variants)
        when = conditions(entry, built)
        found = list(_found(entry, when, built, config, variants))
        domain = entry.domain(found)
        dimension = Dimension(entry.name, entry.key, domain, when)
        _check_apart(dimension, built)
        built[entry.name] = dimension
        if all(same(value, found[0]) for value in found):
            with suppress(ValueError):  # the composed value may lie outside
                defaults[entry.name] = domain.take(found[0])
    around = {entry.name for entry in entries if "around" in entry.fields}
    starts = read_starts(sweep.get("start"), built, defaults, around)
    return Space(tuple(built.values()), starts)


def choices_of(sweep: Config) -> dict[str, tuple[str, ...]]:
    """Settings that are chosen by name, and their choices: where such a key is a group
    of the configuration, these are the files whose content `parse_space` is given.

    Args:
        sweep: as `parse_space` takes it, with any mistakes.
    """
    found: dict[str, tuple[str, ...]] = {}
    said = sweep.get("space")
    for name, entry in said.items() if isinstance(said, Mapping) else ():
        values = entry.get("choices") if isinstance(entry, Mapping) else None
        if isinstance(values, list | tuple):
            key = str(entry.get("key", name))
            chosen = [value for value in values if isinstance(value, str)]
            found[key] = tuple(dict.fromkeys([*found.get(key, ()), *chosen]))
    return found


def _with(
    config: Config, chosen: Iterable[tuple[Dimension, Value]], variants: Variants
) -> dict[str, Any]:
    """A copy with values set, groups before what lies below them."""
    result = deepcopy(dict(config))
    for dimension, value in sorted(chosen, key=lambda pair: pair[0].key.count(".")):
        if dimension.key in variants:
            content = variants[dimension.key][str(value)]
            put(result, dimension.key, deepcopy(dict(content)))
        else:
            put(result, dimension.key, value)
    return result


def _check_kept(entry: Entry) -> None:
    """Refuse a key that changes how trials are measured."""
    part = entry.key.partition(".")[0]
    if part in _FIXED:
        told = f"sets {entry.key}, which is the same for all trials"
        mend = f"leave {part} as it is, and search in {', '.join(_SEARCHED)}"
        if part == "ball":
            mend += ", such as objective.ball.eps"
        mistake(entry.name, told, mend)


def _check_files(entry: Entry, variants: Variants) -> None:
    """Refuse a file that a group does not have."""
    known = variants.get(entry.key)
    if known is None:
        return
    if "choices" not in entry.fields:
        mend = f"give choices out of {', '.join(known)}"
        mistake(entry.name, "is a group of files and has a range", mend)
    choices = entry.fields["choices"]
    for value in choices if isinstance(choices, list | tuple) else ():
        if value not in known:
            told = nearest(value, known, "give choices out of the group's files")
            mistake(entry.name, f"has no choice {shown(value)}", told)


def _found(
    entry: Entry,
    when: Conditions,
    built: Built,
    config: Config,
    variants: Variants,
) -> Iterator[Any]:
    """What the setting is in each configuration where it may be drawn: groups above it
    put their files' content in place of what is composed.

    Raises:
        UserError: one does not have the setting, or has several below it.
    """
    known = implied(when, built)
    places: list[list[tuple[Dimension, Value] | None]] = []
    for group in built.values():
        if not (isinstance(group.domain, Choices) and below(entry.key, group.key)):
            continue
        own = implied(group.when, built)
        if not exclusive(known, own):
            options = known.get(group.name, group.domain.values)
            drawn = group.name in known or assured(own, known)
            places.append([(group, value) for value in options] + [None] * (not drawn))
    for place in product(*places):
        chosen = [pair for pair in place if pair is not None]
        yield _looked_up(entry, chosen, _with(config, chosen, variants), variants)


def _looked_up(
    entry: Entry,
    chosen: list[tuple[Dimension, Value]],
    config: Config,
    variants: Variants,
) -> Any:
    beside = "".join(f" with {group.key}={shown(value)}" for group, value in chosen)
    try:
        value = find(config, entry.key)
    except KeyError:
        told = nearest(entry.key, paths(config), "give a key of the configuration")
        if below(entry.key, "objective"):
            told += ", or choose an objective that has it"
        for group, _ in chosen:
            if having := _having(entry.key, group, variants):
                told = f"add when: {{{group.name}: [{', '.join(having)}]}}"
        mistake(entry.name, f"has the unknown key {entry.key}{beside}", told)
    if isinstance(value, Mapping) and entry.key not in variants:
        inside = next(paths(value, f"{entry.key}."), f"{entry.key}.KEY")
        told = f"holds several settings{beside}"
        mistake(entry.name, told, f"name one, such as {inside}")
    return value


def _having(key: str, group: Dimension, variants: Variants) -> list[str]:
    """Choices of a group above a setting that have it."""
    inside = key.removeprefix(f"{group.key}.")
    found = []
    for value in group.domain.grid(1):
        with suppress(KeyError):
            find(variants[group.key][str(value)], inside)
            found.append(str(value))
    return found


def _check_apart(dimension: Dimension, built: Built) -> None:
    """Refuse two dimensions that set one key at once."""
    when = implied(dimension.when, built)
    for other in built.values():
        shared = other.key == dimension.key
        if shared and not exclusive(when, implied(other.when, built)):
            told = f"sets {other.key}, which {other.name} sets too"
            mend = "give both a `when` on one entry, with different values"
            mistake(dimension.name, told, mend)
