"""Checkpoints as tests write them: with the project's own writer, and waited for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.training.checkpoint import Checkpoints
from rrl_dist.training.checkpoint_copy import CheckpointCopy
from rrl_dist.training.checkpoint_parts import Part
from rrl_dist.training.checkpoint_policy import Kept
from rrl_dist.training.checkpoint_writer import CheckpointWriter

Notify = Callable[[str], Any]


def alone(flag: bool) -> bool:
    """What one worker agrees with itself about."""
    return flag


def attempt(
    folder: Path,
    *,
    keep: int = 2,
    best: str | None = None,
    copy: CheckpointCopy | None = None,
    notify: Notify = pytest.fail,
) -> tuple[CheckpointWriter, dict[str, Any] | None]:
    """An attempt of one worker that begins, and the state that it begins with."""
    writer = CheckpointWriter(Checkpoints(folder, notify), Kept(keep, best), copy)
    writer.recover()
    state = writer.checkpoints.load()
    writer.join(writer.attempt, 0 if state is None else int(state["step"]))
    return writer, state


def write(
    writer: CheckpointWriter, step: int, state: dict[str, Any], *, copied: bool = True
) -> None:
    """One checkpoint of one worker, until it is durable."""
    writer.save(step, Part(state, number=0, of=1))
    writer.settle(alone, copied=copied)


def saved(folder: Path, step: int, state: dict[str, Any]) -> None:
    """A checkpoint, written by an attempt of its own."""
    writer, _ = attempt(folder)
    write(writer, step, state)
    writer.close()
