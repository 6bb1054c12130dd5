"""The checks that there are, and all their looks at one node."""

import pkgutil
import threading
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType

from rrl_dist.core.errors import UserError
from rrl_dist.doctor.finding import Asked, Finding, Seen, fail, failed

_PREFIX = "check_"


@cache
def checks() -> dict[str, ModuleType]:
    """Every check of this package by its name, in alphabetical order."""
    package = import_module("rrl_dist.doctor")
    found = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return {
        name.removeprefix(_PREFIX): import_module(f"rrl_dist.doctor.{name}")
        for name in found
        if name.startswith(_PREFIX)
    }


def look(asked: Asked) -> dict[str, Seen]:
    """Runs on a node: what each check saw there. What a check does not survive, or
    cannot end in time, is a finding of its own."""
    return {
        name: _one(module.look, asked)
        for name, module in checks().items()
        if hasattr(module, "look")
    }


def facts(asked: Asked) -> dict[str, Seen]:
    """As `look`, of the checks whose facts are compared."""
    return {
        name: _one(module.look, asked)
        for name, module in checks().items()
        if hasattr(module, "compare")
    }


def _one(function: Callable[[Asked], Seen], asked: Asked) -> Seen:
    """A disk that hangs stops what reads it: that thread is left to itself."""
    seen: list[Seen] = []

    def run() -> None:
        seen.append(_guarded(function, asked))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(asked.patience)
    if seen:
        return seen[0]
    told = f"no answer within {asked.patience:g} s"
    mend = "see to that node's disks and load, or set patience= to more seconds"
    return Seen((fail(told, mend),))


def _guarded(function: Callable[[Asked], Seen], asked: Asked) -> Seen:
    try:
        return function(asked)
    except UserError as error:
        return Seen((failed(error),))
    except Exception as error:  # the other checks are told of all the same
        return Seen((_broken(error),))


def _broken(error: Exception) -> Finding:
    reason = (str(error).splitlines() or [""])[0]
    told = f"could not be looked at ({type(error).__name__}: {reason})"
    return fail(told, "mend that, and ask again")
