"""What the driver of a finished evaluation has in memory, by its number of rows.

A part of `tests.evaluate.bench`. The rows are made by hand, as workers leave them.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from torch import nn

from rrl_dist.core.records import SCHEMA, to_bytes
from rrl_dist.core.store import open_store
from rrl_dist.evaluate.evaluation import Evaluation
from rrl_dist.evaluate.grid import ATOM, Link, Unit, atom_count
from rrl_dist.evaluate.images import GivenImages
from rrl_dist.evaluate.subject import Models
from rrl_dist.evaluate.suites import suite_config
from tests.evaluate.virtual import BALL

ROWS = (1_000, 10_000, 100_000, 1_000_000)
# Of AutoAttack's attacks the shares that are left right, in rows made by hand; with 16
# components of one attack each that makes 20 rows a sample.
LEFT = (0.85, 0.75, 0.70, 0.70, 0.65)
WHOLE = ("label", "predicted", "queries", "seed")
Job = dict[str, Any]


def job_of(images: GivenImages) -> Job:
    """As the call in Python makes it."""
    settings = {"limit": None, "ball": BALL, "seed": 0, "threads": 1, "gallery": 0}
    return {**settings, "images": images, "has_encoder": False, "fingerprint": {}}


def many(rows: int) -> Job:
    """An evaluation with 17 components and so many rows."""
    samples = rows // 20
    kinds = suite_config("corruptions")["corruptions"]["kinds"][:3]
    suite = {
        **suite_config("autoattack"),
        "corruptions": {"kinds": kinds, "severities": [1, 2, 3, 4, 5]},
    }
    images = GivenImages(
        items=[],
        labels=np.zeros(samples, dtype=np.int64),
        index=np.arange(samples),
        classes=tuple(map(str, range(10))),
        size=32,
        fingerprint="made by hand",
    )
    return {**job_of(images), "suite": suite}


def opened(folder: str, rows: int) -> Evaluation:
    """Of files that are there; it needs no worker."""
    at = {"kind": "debug", "workers": 1, "gpu": False}
    return Evaluation(
        many(rows), open_store(folder), at, models=lambda: Models(nn.Identity(), {})
    )


def write_rows(folder: str, rows: int) -> None:
    """As workers would leave them, eight atoms a file."""
    evaluation = opened(folder, rows)
    samples = evaluation.samples
    luck = np.arange(samples) * 61 % 100 / 100
    for chain in evaluation.suite.chains:
        left = (0.6,) if len(chain) == 1 else LEFT
        before = (1.0, *left)
        for link, asked, right in zip(chain, before, left, strict=False):
            for first in range(0, atom_count(samples), 8):
                atoms = tuple(range(first, min(first + 8, atom_count(samples))))
                places = np.arange(first * ATOM, min(samples, (atoms[-1] + 1) * ATOM))
                places = places[luck[places] < asked]
                unit = Unit(link, atoms, tuple(places.tolist()))
                index = evaluation.ledger.index[places]
                table = by_hand(link, index, luck[places] < right)
                about = {"atoms": ",".join(map(str, atoms)), "generation": "0"}
                evaluation.store.write(unit.file, to_bytes(table, about))


def by_hand(link: Link, index: Any, correct: Any) -> pa.Table:
    """Rows of a unit."""
    count = len(index)
    by = [None if is_right else link.attack for is_right in correct]
    columns: dict[str, Any] = {name: np.full(count, 0.25) for name in SCHEMA.names}
    columns |= {name: np.zeros(count, dtype=np.int64) for name in WHOLE}
    columns |= {"index": index, "correct": correct, "broken_by": by}
    columns |= {"component": [link.name] * count, "displacement": [None] * count}
    columns |= {"corruption": [None] * count, "severity": [None] * count}
    return pa.table(columns, schema=SCHEMA)


def read_rows(folder: str, rows: int) -> None:
    """Print what it takes to restore them, to average them, and to write results."""
    before, begin = _peak(), time.monotonic()
    results = opened(folder, rows).run(lambda _: None, lambda _: None)
    assert results["components"]["clean"]["count"] == rows // 20
    seconds = time.monotonic() - begin
    print(json.dumps({"before": before, "peak": _peak(), "seconds": seconds}))


def _peak() -> float:
    """MiB that this process has had in memory at most. `ru_maxrss` would count the
    process that started it, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def memory() -> list[tuple[str, str, str]]:
    rows = []
    for count in ROWS:
        with TemporaryDirectory() as folder:
            _apart("write", folder, count)
            found = json.loads(_apart("read", folder, count).splitlines()[-1])
        more = found["peak"] - found["before"]
        what = f"driver's memory at most, {count:,} rows in files, results written"
        told = f"**{found['peak']:.0f} MiB** ({more:.0f} above its imports)"
        rows.append((what, f"{told}, {found['seconds']:.1f} s", "flat"))
    return rows


def _apart(what: str, folder: str, rows: int) -> str:
    """In a process of its own; what it prints."""
    command = [
        sys.executable,
        "-m",
        "tests.evaluate.bench_memory",
        what,
        folder,
        str(rows),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    what, folder, rows = sys.argv[1:]
    (write_rows if what == "write" else read_rows)(folder, int(rows))
