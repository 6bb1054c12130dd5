"""How an evaluation is done, checked before any data are read."""

import math
import re
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.stopping import parse_stop

# A folder of these names, or Path("s3://bucket"), was meant as an address.
_MISSPELT = re.compile(r"(s3|gs|gcs|file|hdfs|abfs|https?)(?::(?!//)|//)/*(.*)", re.I)


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse what cannot be meant.

    Args:
        settings: `evaluate` of a configuration, or some of it.

    Raises:
        UserError: a number out of range, no rule, or no address.
    """
    for key, check in _CHECKS.items():
        value = settings.get(key)
        if value is None and (key in _MAY_BE_NULL or key not in settings):
            continue
        check(f"evaluate.{key}", value)


def check_limit(name: str, limit: Any) -> None:
    """Refuse a number of images that is none.

    Raises:
        UserError: it is below 1.
    """
    if not _is_whole(limit, least=1):
        raise UserError(f"{name}={limit}; set at least 1, or null for all")


def check_workers(workers: Any, threads: Any) -> None:
    """Of the call in Python.

    Raises:
        UserError: there are none such.
    """
    if not _is_whole(workers, least=0):
        raise UserError(f"workers={workers}; set 0 for this process, or a number")
    if threads is not None and not _is_whole(threads, least=1):
        raise UserError(f"threads={threads}; set at least 1, or None for the cores")


def check_address(name: str, address: str | Path) -> None:
    """Refuse a local folder that was meant as a place in an object store.

    Raises:
        UserError: it lacks a part of "://".
    """
    found = None if "://" in str(address) else _MISSPELT.match(str(address))
    if found is not None:
        whole = f"{found[1].lower()}://{found[2]}"
        raise UserError(f'{name}={address} is no address; write "{whole}", as text')


def _is_whole(value: Any, *, least: int) -> bool:
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and int(value) >= least


def _count(name: str, value: Any) -> None:
    if not _is_whole(value, least=1):
        raise UserError(f"{name}={value}; set a whole number of at least 1")


def _images(name: str, value: Any) -> None:
    if not _is_whole(value, least=0):
        raise UserError(f"{name}={value}; set a number of images, 0 for none")


def _seconds(name: str, value: Any) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and 0 < float(value) < math.inf):
        raise UserError(f"{name}={value}; set seconds above 0, such as 30")


def _verdict(name: str, value: Any) -> None:
    if not isinstance(value, bool) and value != "auto":
        raise UserError(f"{name}={value}; set true, false or auto")


def _rule(_: str, value: Any) -> None:
    parse_stop(str(value))


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "limit": check_limit,
    "unit_seconds": _seconds,
    "unit_atoms": _count,
    "stop_when": _rule,
    "stop_every": _count,
    "rows": check_address,
    "verify_samples": _count,
    "gallery": _images,
    "verdict": _verdict,
    "verdict_images": _count,
}
_MAY_BE_NULL = ("limit", "unit_atoms", "stop_when", "rows")
