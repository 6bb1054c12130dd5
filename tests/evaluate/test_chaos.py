"""Workers, nodes and drivers that are killed, out of room, with a clock that jumps: an
evaluation ends as it would have."""

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import Linf
from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.calls import evaluate
from rrl_dist.evaluate.status import Status
from rrl_dist.evaluate.suites import suite_config
from tests.evaluate.chaos import chaos, plan
from tests.evaluate.jobs import Job, rows_in, run
from tests.evaluate.kills import KINDS, Kill, tally
from tests.evaluate.nodes import NoClusterError
from tests.evaluate.witness import Execution
from tests.longer import long
from tests.mistakes.test_full_disk import fill, mounted

pytestmark = pytest.mark.slow

JUMP = 1e6  # seconds


def an_execution(
    pid: int, begin: float, end: float = inf, heard: float = inf
) -> Execution:
    return Execution("rows/0.parquet", pid, "head", 1, begin, end, heard)


def test_what_is_done_twice_needs_a_reason() -> None:
    first, beside = an_execution(1, 0.0, 2.0, 2.0), an_execution(2, 1.0, 3.0, 3.0)
    assert tally([first, beside], []).copies == 1
    killed, after = an_execution(1, 0.0), an_execution(2, 5.0, 6.0, 6.0)
    found = tally([killed, after], [Kill("actor", killed, 1.0)])
    assert (found.in_flight, found.again, found.copies) == (1, 1, 0)
    with pytest.raises(AssertionError, match="nobody was killed"):
        tally([first, after], [])
    with pytest.raises(AssertionError, match="nobody was killed"):
        tally([first, after], [Kill("actor", first, 4.0)])
    third = an_execution(3, 1.5)
    with pytest.raises(AssertionError, match="beside two others"):
        tally([first, beside, third], [])


def test_what_a_driver_has_not_heard_of_may_be_in_vain() -> None:
    """But a driver that comes after it finds the file."""
    unheard, after = an_execution(1, 0.0, 2.0), an_execution(2, 5.0, 6.0, 6.0)
    assert tally([unheard, after], [Kill("actor", unheard, 4.0)]).again == 1
    with pytest.raises(AssertionError, match="nobody was killed"):
        tally([unheard, replace(after, attempt=2)], [Kill("driver", unheard, 4.0)])


def test_every_kind_is_killed() -> None:
    for seed in range(20):
        kinds = Counter(plan(10, random.Random(seed)))
        assert min(kinds[kind] for kind in KINDS) >= 2
        assert kinds.total() == 10


@pytest.mark.parametrize("kills", [6, long(10)])
def test_kills_change_nothing(tmp_path: Path, kills: int) -> None:
    try:
        done = chaos(kills, tmp_path, seed=0, say=print)
    except NoClusterError as error:
        pytest.skip(str(error))
    kinds = Counter(kill.kind for one, _ in done for kill in one.kills)
    assert min(kinds[kind] for kind in KINDS) >= 2
    assert kinds.total() == kills
    assert all(found.again <= found.in_flight for _, found in done)


def assert_same(folder: Path, finished: Path) -> None:
    assert rows_in(folder) == rows_in(finished)
    for name in ("results.json", "survey.json", "gallery-3.npz", "manifest.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", "400k")


@pytest.mark.parametrize("units", [0, 3, 8])
def test_a_full_disk_loses_nothing(
    job: Job, finished: Path, disk: Path, units: int
) -> None:
    """Full from the start, in the middle, and when all is done but the results."""
    folder, told = disk / "run", itertools.count()

    def fill_then(status: Status) -> None:
        if next(told) == units:
            fill(disk, leave=0)

    with pytest.raises(UserError, match="make room there") as refusal:
        run(job, folder, watch=fill_then)
    assert "\n" not in str(refusal.value)
    (disk / "ballast").unlink()
    files = list((folder / "rows").rglob("*"))
    kept = {f: f.stat().st_mtime_ns for f in files if f.is_file()}
    assert len(kept) == units
    assert all(file.suffix == ".parquet" and file.name[0] != "." for file in kept)
    run(job, folder)
    assert_same(folder, finished)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_a_clock_that_jumps_changes_nothing(
    job: Job, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps, clock, precise = itertools.cycle((JUMP, -JUMP)), time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: clock() + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: precise() + int(next(jumps) * 1e9))
    told: list[Status] = []
    run(job, tmp_path, watch=told.append)
    assert_same(tmp_path, finished)
    assert all(0 <= status.device_minutes < JUMP / 60 for status in told)
    assert all(0 <= (status.left or 0) < JUMP for status in told)


class Noise:
    """A torch data set of random images."""

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        if not 0 <= place < len(self):
            raise IndexError(place)
        generator = torch.Generator().manual_seed(place)
        return torch.rand(3, 8, 8, generator=generator), place % 4

    def __len__(self) -> int:
        return 70


def test_changed_weights_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3 * 8 * 8, 4)
    model = nn.Sequential(nn.Flatten(), layer)
    suite = suite_config("pgd20")
    suite["attacks"]["pgd20"]["steps"] = 3

    def again() -> dict[str, Any]:
        found = evaluate(
            model, Noise(), ball=Linf(0.01), out=tmp_path, suite=suite, workers=0
        )
        assert isinstance(found, dict)
        return found

    first = again()
    files = [file for file in tmp_path.rglob("*.parquet") if file.is_file()]
    before = {file: file.read_bytes() for file in files}
    bias = layer.bias.detach()
    original = bias.clone()
    bias += 1e-3
    with pytest.raises(UserError, match="with another weights;") as refusal:
        again()
    assert "\n" not in str(refusal.value)
    assert {file: file.read_bytes() for file in files} == before
    bias.copy_(original)
    rows = [file for file in files if "rows" in file.parts]
    written = {file: file.stat().st_mtime_ns for file in rows}
    assert again() == first
    assert {file: file.stat().st_mtime_ns for file in rows} == written
