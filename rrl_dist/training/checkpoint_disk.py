"""Whether a disk has room for the checkpoints of a run, before anything is trained."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rrl_dist.core.errors import UserError


@dataclass(frozen=True)
class Need:
    """What one stage's checkpoints take.

    Attributes:
        one: bytes of each.
        most: how many stay at most; one more is there while it is written.
    """

    one: int
    most: int


def bytes_of(state: Any) -> int:
    """Of all tensors in nested state."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, Mapping):
        return sum(bytes_of(value) for value in state.values())
    if isinstance(state, list | tuple):
        return sum(bytes_of(value) for value in state)
    return 0


def check_disk(run: Path, needs: Sequence[Need]) -> None:
    """Hold what all stages will leave against the room that there is.

    Args:
        run: the run directory; it need not exist.
        needs: of its stages that train, one after another.

    Raises:
        UserError: they do not fit.
    """
    done = len([*run.glob("stages/pr*/done.json")])  # of pretraining and of probes
    if done >= len(needs):
        return
    # With what kills have left, which is removed before anything is written.
    files = run.glob("stages/*/checkpoints/*step-*")
    there = sum(path.stat().st_size for path in files)
    stay = sum(need.most * need.one for need in needs)
    missing = max(stay - there, 0) + max(need.one for need in needs)
    existing = next(path for path in (run, *run.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise UserError(
            f"{run} has {_shown(free)} of room, and the checkpoints take "
            f"{_shown(missing)}; make room there, set storage= to another disk, or "
            "lower train.checkpoints.keep"
        )


def _shown(count: float) -> str:
    return f"{count / 2**30:.1f} GB" if count > 2**29 else f"{count / 2**20:.1f} MB"
