"""What a check is told, and what it tells."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Asked:
    """What every check of one node is told.

    Attributes:
        storage, betons: folders, absolute.
        data: configuration of a data set.
        disk_gb: free space below which a disk counts as full.
        shared_memory_gb: size that /dev/shm has at least.
        patience: seconds that one check may take.
        betons_shared: whether all nodes are to read the same `.beton` files.
        node: Ray's id of the node; None without a cluster, and so are the next three.
        address: by which Ray knows it.
        ray_folder: where Ray keeps its logs and what leaves memory.
        object_store: bytes of memory that Ray's object store takes.
        gpus: that Ray counts there.
        nodes: of the cluster.
    """

    storage: str
    betons: str
    data: Mapping[str, Any]
    disk_gb: float
    shared_memory_gb: float
    patience: float
    betons_shared: bool = True
    node: str | None = None
    address: str | None = None
    ray_folder: str | None = None
    object_store: float | None = None
    gpus: float = 0
    nodes: int = 1


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        state: OK, WARN or FAIL.
        found: what is so; of OK, in words that hold on every node that is in order.
        mend: what to do about it; empty where nothing is to be done.
    """

    state: str
    found: str
    mend: str = ""


@dataclass(frozen=True)
class Seen:
    """What one check saw on one node.

    Attributes:
        findings: of that node alone.
        facts: plain data, which `compare` holds against other nodes'.
    """

    findings: tuple[Finding, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the table: a finding, its check, and all nodes that have it."""

    check: str
    nodes: tuple[str, ...]
    finding: Finding


def ok(found: str) -> Finding:
    """Something in order."""
    return Finding(OK, found)


def warn(found: str, mend: str) -> Finding:
    """Something that will do, and could be better."""
    return Finding(WARN, found, mend)


def fail(found: str, mend: str) -> Finding:
    """Something that a run would end with, or get wrong."""
    return Finding(FAIL, found, mend)


def failed(error: Exception) -> Finding:
    """A user's mistake, whose message says what was found; what to change."""
    found, _, mend = str(error).rpartition("; ")
    return fail(found, mend) if found else fail(mend, "mend that")
