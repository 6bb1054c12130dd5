"""What a check is asked in tests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rrl_dist.doctor.finding import Asked, Finding, Seen
from tests.composing import compose


def asked(folder: Path, **changes: Any) -> Asked:
    """Everything in `folder`, and no limit that this machine could miss."""
    plain = Asked(
        storage=str(folder / "runs"),
        betons=str(folder / "betons"),
        data=compose("doctor")["data"],
        disk_gb=0.0,
        shared_memory_gb=0.0,
        patience=60.0,
    )
    return replace(plain, **changes)


def only(seen: Seen) -> Finding:
    (finding,) = seen.findings
    return finding
