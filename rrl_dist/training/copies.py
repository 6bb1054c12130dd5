"""A file that all nodes of a cluster read at one path: shared, or each its own copy."""

import fcntl
import hashlib
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import atomic_path, read_part, writing
from rrl_dist.data.seal import current_hash, seal
from rrl_dist.training.nodes import task_on

_PART = 8 << 20  # bytes that travel together, through the nodes' object stores
_AHEAD = 2  # parts on their way while one is written


def ensure(path: Path, sha256: str, source: str | None, *, repair: bool) -> bool:
    """Let this node have a file; returns whether it was copied here.

    Args:
        path: the same on all nodes.
        sha256: of the file that all must have.
        source: id of the node that has it, where each node has a disk of its own; None
            where they share one.
        repair: whether another file of that name is replaced.

    Raises:
        UserError: there is none and no `source`, or another; the disk refuses it.
    """
    if source is None:
        _check_shared(path, sha256)
        return False
    with _held(path.parent):
        if path.is_file() and current_hash(path) == sha256:
            return False
        if path.is_file() and not repair:
            raise UserError(
                f"{path} there is damaged, or another file than the driver's; write it "
                "again with rrl prepare on this cluster, with cluster.betons=node"
            )
        _copy(path, sha256, source)
    return True


def _check_shared(path: Path, sha256: str) -> None:
    mend = "set betons= to a folder that all nodes share, or cluster.betons=node"
    if not path.is_file():
        raise UserError(f"there is no {path}; {mend}")
    if current_hash(path) != sha256:
        raise UserError(f"{path} there is another file than the driver's; {mend}")


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """One process of a node copies; the others wait, and find the file."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: each copies on its own
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _copy(path: Path, sha256: str, source: str) -> None:
    """From the other node's disk; the file has its name when it is whole."""
    digest = hashlib.sha256()
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            for part in _parts(path, source):
                digest.update(part)
                file.write(part)
        if digest.hexdigest() != sha256:
            raise UserError(f"{path} changed while it was copied; write it again there")
    if seal(path) != sha256:
        raise UserError(f"{path} does not hold what was written; see to that disk")


def _parts(path: Path, source: str) -> Iterator[bytes]:
    import ray

    read, begun = task_on(source, read_part), 0
    waiting: deque[Any] = deque()
    while True:
        while len(waiting) <= _AHEAD:
            waiting.append(read.remote(str(path), begun * _PART, _PART))
            begun += 1
        try:
            part: bytes = ray.get(waiting.popleft())
        except ray.exceptions.RayError as error:
            told = str(error).strip().splitlines()[-1]
            raise UserError(f"{path} could not be copied ({told})") from None
        yield part
        if len(part) < _PART:
            return
