"""The memory that processes of a node share, at /dev/shm."""

import shutil
from pathlib import Path

from rrl_dist.doctor.finding import Asked, Finding, Seen, fail, ok, warn

_FOLDER = Path("/dev/shm")
_MEND = (
    "docker run --shm-size=SIZE, or on Kubernetes a volume of medium Memory at /dev/shm"
)
_FULL_MB = 64


def look(asked: Asked) -> Seen:
    """Docker gives 64 MB, with which NCCL and data loaders end in a bus error."""
    if not _FOLDER.is_dir():
        return Seen((ok("this system has no /dev/shm"),))
    usage = shutil.disk_usage(_FOLDER)
    return Seen((judged(usage.total, usage.free, asked),))


def judged(total: int, free: int, asked: Asked) -> Finding:
    """What is to be said of a /dev/shm with `total` and `free` bytes."""
    wanted = asked.shared_memory_gb
    if total < wanted * 1e9:
        return fail(f"/dev/shm has {total / 1e6:.0f} MB, and not {wanted:g} GB", _MEND)
    if free < _FULL_MB * 1e6:
        mend = "remove what ended processes left there, or restart the node"
        return fail(f"/dev/shm is full ({free / 1e6:.0f} MB free)", mend)
    store = asked.object_store
    if store is not None and total < store:
        told = (
            f"/dev/shm has {total / 1e9:.1f} GB, less than the {store / 1e9:.1f} GB of "
            "Ray's object store, which then lies in /tmp and is slow"
        )
        return warn(told, f"{_MEND}; or ray start --object-store-memory=BYTES")
    return ok(f"/dev/shm has {wanted:g} GB or more")
