"""Settings of a nested configuration by their dotted keys."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

_NEAR = 0.75  # of difflib's ratio; below it a proposal is a guess


def find(config: Mapping[str, Any], key: str) -> Any:
    """What the configuration has at a key; `KeyError` where that is nothing."""
    node: Any = config
    for part in key.split("."):
        node = node[_place(node, part, key)]
    return node


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Set, in place, what is there already; `KeyError` where that is nothing."""
    above, _, last = key.rpartition(".")
    node: Any = find(config, above) if above else config
    node[_place(node, last, key)] = value


def _place(node: Any, part: str, key: str) -> str | int:
    if isinstance(node, Mapping) and part in node:
        return part
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return int(part)
    raise KeyError(key)


def below(key: str, above: str) -> bool:
    """Whether a key lies in the part of the configuration that another names."""
    return key.startswith(f"{above}.")


def paths(node: Any, before: str = "") -> Iterator[str]:
    """Keys of all that holds a single value."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        if isinstance(value, Mapping):
            yield from paths(value, f"{before}{name}.")
        elif not str(name).startswith("_"):
            yield f"{before}{name}"


def nearest(wanted: Any, known: Iterable[Any], otherwise: str) -> str:
    """The known name that was likely meant, as the end of a message."""
    names = [str(name) for name in known]
    near = get_close_matches(str(wanted), names, n=1, cutoff=_NEAR)
    return f"the nearest is {near[0]}" if near else otherwise
