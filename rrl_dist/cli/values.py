"""A setting's new value held against the kind of the one it replaces."""

from typing import Any

from rrl_dist.core.errors import UserError

# Whole numbers in the YAML that need not be whole.
_FRACTIONAL = ("epochs", "every_epochs", "lr_per")
# Settings that may be null, each with a value of its kind.
_NULLABLE = {
    "limit": 1,
    "max_steps": 1,
    "micro_batch": 1,
    "overfit": 1,
    "lr_per": 1.0,
    "clip_grad": 1.0,
    "teacher": "folder",
    "init": "folder",
    "against": "arm",
    "tasks": {"NAME": [0, 1]},
    "protocols": {"NAME": {}},
    "head_seeds": [0, 1],
    "out": "folder",
    "curve": {"attack": "name"},
    "search": {"attack": "name"},
}


def check_value(key: str, value: Any, old: Any, *, in_constructor: bool) -> None:
    """Refuse a value of another kind.

    Args:
        key: dotted.
        value: as Hydra parsed it.
        old: what the configuration had there.
        in_constructor: a class is built from it, which has its own word on null and on
            fractions.

    Raises:
        UserError: naming the kind that is wanted.
    """
    name = key.rpartition(".")[2]
    if value is None and (in_constructor or old is None or name in _NULLABLE):
        return
    if old is None and not in_constructor:
        old = _NULLABLE.get(name)
    if key == "runs":
        old = []
    if old in (None, "???") or _refers(old) or _refers(value):
        return
    whole = not in_constructor and name not in _FRACTIONAL
    if not _fits(value, old, whole=whole):
        shown = "null" if value is None else value
        raise UserError(f"{key}={shown}; set {_kind(key, old, whole=whole)}")


def _refers(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def _fits(value: Any, old: Any, *, whole: bool) -> bool:
    if isinstance(old, bool):
        return isinstance(value, bool)
    if isinstance(old, int | float):
        wanted = int if whole and isinstance(old, int) else (int, float)
        return isinstance(value, wanted) and not isinstance(value, bool)
    if isinstance(old, str):
        return isinstance(value, str | int | float | bool)
    return isinstance(value, type(old))


def _kind(key: str, old: Any, *, whole: bool) -> str:
    if isinstance(old, bool):
        return "true or false"
    if isinstance(old, int | float):
        return "a whole number" if whole and isinstance(old, int) else "a number"
    if isinstance(old, list):
        return "a list, such as [a,b]"
    if isinstance(old, dict):
        inner = next((k for k in old if not str(k).startswith("_")), "KEY")
        return f"what it holds, such as {key}.{inner}=VALUE"
    return "a single value"
