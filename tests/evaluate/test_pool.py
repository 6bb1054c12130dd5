"""Evaluation shared out to Ray actors: the same rows, whatever happens to them."""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.pool import Progress
from rrl_dist.training.cluster import session
from tests.evaluate.jobs import LIMIT, Counter, job_of, rows_in, run

pytestmark = pytest.mark.slow

LOCAL = {"kind": "local", "workers": 3, "threads": 1, "gpu": "auto", "max_failures": 3}
WORKER = "ray::RemoteEvaluator"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Mapping[str, Any]]:
    with session(LOCAL) as found:
        yield found


def assert_same(folder: Path, finished: Path) -> None:
    assert rows_in(folder) == rows_in(finished)
    for name in ("results.json", "survey.json", "manifest.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_do_not_depend_on_who_makes_them(
    cluster, classifier: Path, finished: Path, tmp_path: Path, workers: int
) -> None:
    counter = Counter()
    job = job_of(classifier)
    run(job, tmp_path, {**cluster, "workers": workers}, progress=counter)
    assert_same(tmp_path, finished)
    gallery = "gallery-3.npz"
    assert (tmp_path / gallery).read_bytes() == (finished / gallery).read_bytes()
    assert sum(counter.told) == counter.total == 4 * LIMIT


def test_what_this_process_began_the_workers_finish(
    cluster, classifier: Path, finished: Path, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(total: int) -> Progress:
        told: list[int] = []

        def note(samples: int) -> None:
            told.append(samples)
            if len(told) == 4:
                raise StoppedError

        return note

    with pytest.raises(StoppedError):
        run(job_of(classifier), tmp_path, progress=stop)
    begun = sorted((tmp_path / "rows").iterdir())
    kept = {file: file.stat().st_mtime_ns for file in begun}
    assert len(begun) == 3
    run(job_of(classifier), tmp_path, cluster)
    assert_same(tmp_path, finished)
    assert {file: file.stat().st_mtime_ns for file in begun} == kept


def own_workers() -> list[int]:
    """Process ids of the actors of this session: below this process, by name."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            names[int(folder.name)] = (folder / "cmdline").read_bytes().decode()
        except OSError:  # it has ended meanwhile
            continue
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])

    def is_own(pid: int) -> bool:
        while pid not in (0, os.getpid()):
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return [pid for pid, name in names.items() if WORKER in name and is_own(pid)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_loses_nothing(
    cluster, classifier: Path, finished: Path, tmp_path: Path, workers: int
) -> None:
    killed: list[int] = []

    class Killer(Counter):
        def __call__(self, total: int) -> Progress:
            note = super().__call__(total)

            def kill_once(samples: int) -> None:
                note(samples)
                if len(self.told) == 3:  # the first tells what was there before
                    killed.extend(own_workers())
                    for pid in killed:
                        os.kill(pid, signal.SIGKILL)

            return kill_once

    counter = Killer()
    run(
        job_of(classifier),
        tmp_path,
        {**cluster, "workers": workers},
        progress=counter,
    )
    assert len(killed) == workers
    assert_same(tmp_path, finished)
    assert sum(counter.told) == counter.total


def test_a_workers_user_error_is_told_as_one(
    cluster, classifier: Path, tmp_path: Path
) -> None:
    job = job_of(classifier)
    with pytest.raises(UserError, match="no model at"):
        run({**job, "classifier": str(tmp_path / "none")}, tmp_path / "run", cluster)
