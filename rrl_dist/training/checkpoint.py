"""Checkpoints of a training run: everything that the next step depends on.

Each is a weights file and, written after it, a small JSON with its hash. A half-written
or damaged one is found by that, named, and the one before it is used.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash, read_json, write_bytes, write_json

_ENTRIES = {"identity", "step", "workers", "objective"}
# What torch raises on files that are not its own, or hold more than plain values.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)
KEPT = 2  # the newest, and the one before it in case the newest is damaged


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: where they are.
        notify: told in one line about a damaged checkpoint.
    """

    def __init__(self, folder: Path, notify: Callable[[str], None]) -> None:
        self.folder, self.notify = folder, notify

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after `step` optimizer steps.

        Older ones are dropped, and those of steps still to come: they were damaged,
        or this run would have begun with them.
        """
        memory = io.BytesIO()
        torch.save(state, memory)
        path = self.folder / f"step-{step:08d}.pt"
        write_bytes(path, memory.getvalue())
        write_json(path.with_suffix(".json"), {"sha256": file_hash(path), "step": step})
        written = self._newest_first()
        later = [p for p in written if p.stem > path.stem]
        for old in later + [p for p in written if p not in later][KEPT:]:
            old.unlink()
            old.with_suffix(".pt").unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The newest undamaged state, on the CPU; None if there is none.

        Raises:
            UserError: the file is whole, and not one that `save` has written.
        """
        found = self._newest_first()
        for described in found:
            path = described.with_suffix(".pt")
            if _whole(path, described):
                return _read(path)
            last = described == found[-1]
            back = "start" if last else "checkpoint before it"
            self.notify(f"{path} is damaged; going back to the {back}")
        return None

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.json"), reverse=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = _ENTRIES - state.keys()
    except _UNREADABLE as error:
        raise _foreign(path, type(error).__name__) from None
    if missing:
        raise _foreign(path, f"without {min(missing)}")
    return state


def _foreign(path: Path, found: str) -> UserError:
    return UserError(
        f"{path} is not a checkpoint that rrl has written ({found}): nothing in it was "
        "run; remove it to go on from the checkpoint before it"
    )


def _whole(path: Path, described: Path) -> bool:
    """Whether the weights are the ones that the description was written for."""
    try:
        expected = read_json(described)["sha256"]
    except (ValueError, KeyError, TypeError):
        return False
    return path.is_file() and file_hash(path) == expected
