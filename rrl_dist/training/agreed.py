"""The checkpoint that all workers of a group go on from, which rank 0 chooses."""

import time
from pathlib import Path
from typing import Any

import torch

from rrl_dist.core.collectives import from_first, rank
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash
from rrl_dist.training.checkpoint import Checkpoints, Commit

# Until what rank 0 has found is seen by others: a file system of the network may show
# them an older list of its files.
_SEEN_SECONDS = 120.0
_LOOK_SECONDS = 0.5


def load_agreed(
    checkpoints: Checkpoints,
    device: torch.device,
    patience: float = _SEEN_SECONDS,
) -> dict[str, Any] | None:
    """The newest undamaged state as rank 0 sees it, on the CPU; None if there is none.

    Args:
        checkpoints: of the run.
        device: of this worker.
        patience: seconds for files to be seen here.

    Raises:
        UserError: this worker does not see the same files; or see `Checkpoints.load`.
    """
    commit = checkpoints.newest_whole() if rank() == 0 else None
    told = from_first(None if commit is None else commit.as_json(), device)
    if told is None:
        return None
    commit = Commit.of_json(told)
    if rank():
        _wait_for(commit, checkpoints.folder, patience)
    return checkpoints.read(commit)


def _wait_for(commit: Commit, folder: Path, patience: float) -> None:
    end = time.monotonic() + patience
    for name, sha256 in commit.parts:
        while not _is_there(folder / name, sha256):
            if time.monotonic() > end:
                raise UserError(
                    f"{folder / name} is seen by the first worker and not by another; "
                    "set storage= to a folder that all nodes share"
                )
            time.sleep(_LOOK_SECONDS)


def _is_there(file: Path, sha256: str) -> bool:
    try:
        return file_hash(file) == sha256
    except FileNotFoundError:
        return False
