"""When settings of a search space are drawn: their order, and which go together."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from rrl_dist.tune.dimension import Dimension, Value, same, shown
from rrl_dist.tune.keys import below, nearest
from rrl_dist.tune.reading import Entry, mistake

Built = Mapping[str, Dimension]
# Names of dimensions, and of each the values that it has.
Conditions = Mapping[str, tuple[Value, ...]]


def ordered(entries: Sequence[Entry]) -> list[Entry]:
    """Conditions, and groups, before what depends on them; else as they are written.

    Raises:
        UserError: a condition is on what is not in the space, or they go in a circle.
    """
    needs = {entry.name: _needs(entry, entries) for entry in entries}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = sorted({str(name) for name in error.args[1]})
        told = "depend on each other" if circle[1:] else "depends on itself"
        mistake(" and ".join(circle), told, "take out one `when`")
    left, placed = list(entries), list[Entry]()
    while left:
        names = {entry.name for entry in placed}
        placed.append(next(entry for entry in left if needs[entry.name] <= names))
        left.remove(placed[-1])
    return placed


def _needs(entry: Entry, entries: Sequence[Entry]) -> set[str]:
    known = [other.name for other in entries]
    for on in entry.when:
        if on not in known:
            told = nearest(on, known, f"add {on} to the space")
            mistake(entry.name, f"is drawn when {on} has a value, which has none", told)
    return {*entry.when, *(o.name for o in entries if below(entry.key, o.key))}


def conditions(entry: Entry, built: Built) -> Conditions:
    """Those of an entry, each value as it is drawn.

    Raises:
        UserError: they never hold.
    """
    own: dict[str, tuple[Value, ...]] = {}
    for on, options in entry.when.items():
        own[on] = tuple(_taken(entry, built[on], option) for option in options)
    for on, left in implied(own, built).items():
        if not left:
            told = f"is never drawn, since its conditions on {on} exclude each other"
            mistake(entry.name, told, "change one `when`")
    return own


def _taken(entry: Entry, on: Dimension, option: Value) -> Value:
    """A value of a condition; one number out of a continuous range is never drawn."""
    told = f"is drawn when {on.name} is {shown(option)}"
    if not on.domain.countable:
        mend = f"give {on.name} choices, or a step"
        mistake(entry.name, f"{told}, one number out of a range", mend)
    try:
        return on.domain.take(option)
    except ValueError:
        mistake(entry.name, f"{told}, which it never is", f"set it to {on.domain}")


def implied(when: Conditions, built: Built) -> dict[str, tuple[Value, ...]]:
    """Conditions with all that they rest on themselves; without a value where two
    exclude each other."""
    found = dict(when)
    for on in when:
        for name, options in implied(built[on].when, built).items():
            kept = found.get(name, options)
            found[name] = tuple(v for v in kept if _among(v, options))
    return found


def exclusive(one: Conditions, other: Conditions) -> bool:
    """Whether two cannot hold at once; both as `implied` has them."""
    return any(
        not any(_among(value, other[name]) for value in options)
        for name, options in one.items()
        if name in other
    )


def assured(when: Conditions, known: Conditions) -> bool:
    """Whether the one hold wherever the other do; both as `implied` has them."""
    return all(
        name in known and all(_among(value, options) for value in known[name])
        for name, options in when.items()
    )


def _among(value: Value, options: tuple[Value, ...]) -> bool:
    return any(same(value, option) for option in options)
