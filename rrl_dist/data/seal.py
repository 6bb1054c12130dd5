"""The hash of a file, kept beside it, and whether it is still that file's."""

import time
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash, read_json, write_json

# Longer than the tick of file systems' clocks: a change after it has another time.
_TICK_SECONDS = 0.02


def seal_path(path: Path) -> Path:
    """Where a file's hash is kept."""
    return path.with_suffix(".json")


def seal(path: Path) -> str:
    """Hash a file, and note that beside it; returns the hash."""
    time.sleep(_TICK_SECONDS)
    state, found = _state(path), file_hash(path)
    write_json(seal_path(path), {"sha256": found, "state": state})
    return found


def sealed_hash(path: Path) -> str | None:
    """The hash that a file had when it was sealed; None without a seal."""
    known = _known(path)
    return None if known is None else str(known["sha256"])


def current_hash(path: Path) -> str:
    """The hash that a file has.

    It is read in full unless it was before, as it is: size, times and place on the disk
    are those that its seal has. A copy has others, whatever its own times say.
    """
    known, state = _known(path), _state(path)
    if known is not None and known.get("state") == state:
        return str(known["sha256"])
    found = file_hash(path)
    if known is not None and known["sha256"] == found:
        _renew(path, found, state)
    return found


def _renew(path: Path, sha256: str, state: dict[str, int]) -> None:
    if time.time_ns() - state["ctime_ns"] < _TICK_SECONDS * 1e9:
        return
    try:
        write_json(seal_path(path), {"sha256": sha256, "state": state})
    except (OSError, UserError):
        return  # a folder that may not be written: it is read in full each time


def _known(path: Path) -> dict[str, Any] | None:
    try:
        found = read_json(seal_path(path))
        return {**found, "sha256": str(found["sha256"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _state(path: Path) -> dict[str, int]:
    found = path.stat()
    return {
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
        "inode": found.st_ino,
    }
