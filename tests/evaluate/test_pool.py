"""Evaluation shared out to Ray actors: the same rows, whatever happens to them."""

import math
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from rrl_dist.core.errors import UserError
from rrl_dist.core.records import Row, from_bytes, rows_of
from rrl_dist.core.storage import read_json
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.status import Status
from rrl_dist.training.cluster import session
from tests.composing import compose
from tests.evaluate.jobs import (
    DEBUG,
    LIMIT,
    Counter,
    job_of,
    of_suite,
    rows_in,
    run,
)

pytestmark = pytest.mark.slow

LOCAL = {"kind": "local", "workers": 3, "threads": 1, "gpu": "auto", "max_failures": 3}
ATTACKS = Path(__file__).parents[2] / "configs" / "attack"
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
    run(job, tmp_path, {**cluster, "workers": workers}, watch=counter)
    assert_same(tmp_path, finished)
    gallery = "gallery-3.npz"
    assert (tmp_path / gallery).read_bytes() == (finished / gallery).read_bytes()
    assert sum(counter.told) == counter.total == 4 * LIMIT


def from_file(name: str, **changes: Any) -> dict[str, Any]:
    config = OmegaConf.to_container(OmegaConf.load(ATTACKS / f"{name}.yaml"))
    assert isinstance(config, dict)
    return {**config, "_partial_": True, **changes}


def test_attacks_in_turn_and_from_surrogates_do_not_depend_on_workers(
    cluster, classifier: Path, tmp_path: Path
) -> None:
    """Of every kind that AutoAttack has, with few steps."""
    in_turn = {
        "_target_": "rrl_dist.attacks.cascade.Cascade",
        "label": "in-turn",
        "attacks": {
            "apgd_ce": from_file("apgd_ce", steps=4),
            "apgd_t": from_file("apgd_t", steps=4, targets=3),
            "fab_t": from_file("fab_t", steps=4, targets=3),
            "square": from_file("square", queries=60),
        },
    }
    job = job_of(classifier, "evaluate.gallery=0")
    mi_fgsm = {**from_file("mi_fgsm"), "_partial_": False}
    attacks = {"in_turn": in_turn, "mi_fgsm": mi_fgsm}
    suite = {**job["suite"], "attacks": attacks, "curve": None}
    job |= {"suite": suite, "surrogates": {"itself": Source(str(classifier))}}
    run(job, tmp_path / "here")
    run(job, tmp_path / "there", {**cluster, "workers": 3})
    assert_same(tmp_path / "there", tmp_path / "here")
    rows = rows_in(tmp_path / "here")
    assert len(rows) == 5 * LIMIT
    broken_by = {row.broken_by for row in rows}
    assert broken_by >= {None, "clean", "apgd-ce", "apgd-t"}


IN_TURN = {
    "_target_": "rrl_dist.attacks.cascade.Cascade",
    "label": "in-turn",
    "attacks": {
        "apgd_ce": from_file("apgd_ce", steps=2),
        "square": from_file("square", queries=3),
    },
}


def rows_as_left(folder: Path) -> set[Row]:
    """All rows of all units without their times; those of a second copy are equal."""
    rows: set[Row] = set()
    for file in sorted((folder / "rows").rglob("*.parquet")):
        found = rows_of(from_bytes(file.read_bytes(), file.name)[0])
        rows |= {replace(row, seconds=0.0) for row in found}
    return rows


def test_rows_and_results_depend_on_neither_workers_nor_units(
    cluster, classifier: Path, tmp_path: Path
) -> None:
    """All 359 test images: five whole atoms and one that is not. Pairs that have every
    number of workers, 0 for this process, and every size of units."""
    judged = ("evaluate.verdict=true", "evaluate.verdict_images=20")
    job = job_of(classifier, "evaluate.limit=null", "evaluate.gallery=0", *judged)
    job |= {"suite": {**job["suite"], "attacks": {"in_turn": IN_TURN}, "curve": None}}
    first, *others = [(0, 1), (0, 5), (1, 2), (2, 5), (3, 1), (3, 2)]
    for workers, atoms in (first, *others):
        where = {**cluster, "workers": workers} if workers else DEBUG
        run({**job, "unit_atoms": atoms}, tmp_path / f"{workers}-{atoms}", where)
    known = tmp_path / "0-1"
    assert read_json(known / "results.json")["verdict"]["images"] == 20
    links = {file.parent.name for file in (known / "rows").rglob("*.parquet")}
    files = [sorted(p.name for p in (known / "rows" / n).iterdir()) for n in links]
    assert len(links) == 4
    assert max(map(len, files)) == 6
    rows = rows_as_left(known)
    assert {row.broken_by for row in rows} >= {None, "clean", "apgd-ce"}
    for workers, atoms in others:
        folder = tmp_path / f"{workers}-{atoms}"
        assert_same(folder, known)
        assert rows_as_left(folder) == rows
        assert len(list((folder / "rows/clean").iterdir())) == math.ceil(6 / atoms)


def test_what_this_process_began_the_workers_finish(
    cluster, classifier: Path, finished: Path, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    told: list[Status] = []

    def stop(status: Status) -> None:
        told.append(status)
        if len(told) == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(job_of(classifier), tmp_path, watch=stop)
    begun = sorted((tmp_path / "rows").rglob("*.parquet"))
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
        def __call__(self, status: Status) -> None:
            super().__call__(status)
            if len(self.told) == 3:  # the first tells what was there before
                killed.extend(own_workers())
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

    counter = Killer()
    run(job_of(classifier), tmp_path, {**cluster, "workers": workers}, watch=counter)
    assert len(killed) == workers
    assert_same(tmp_path, finished)
    assert sum(counter.told) == counter.total


def test_a_workers_user_error_is_told_as_one(
    cluster, classifier: Path, tmp_path: Path
) -> None:
    gone = {**job_of(classifier), "classifier": Source(str(tmp_path / "none"))}
    with pytest.raises(UserError, match="no model at"):
        run(gone, tmp_path / "run", cluster)


def test_information_and_corruptions_do_not_depend_on_workers(
    cluster, classifier: Path, tmp_path: Path
) -> None:
    small = {
        **compose("evaluate", "suite=vulnerability")["suite"]["vulnerability"],
        **{"batch_size": 16, "steps": 3, "width": 4, "embedding": 8},
    }
    corruptions = {"kinds": ["gaussian_noise", "contrast"], "severities": [2, 5]}
    job = of_suite(job_of(classifier, "evaluate.gallery=0"), "suite=corruptions")
    suite = {**job["suite"], "corruptions": corruptions, "vulnerability": small}
    job |= {"suite": suite}
    run(job, tmp_path / "here")
    for workers in (1, 3):
        there = tmp_path / str(workers)
        run(job, there, {**cluster, "workers": workers})
        assert_same(there, tmp_path / "here")
        for kind in ("normal", "worst"):
            name = f"information-{kind}.json"
            mine, theirs = (folder / name for folder in (there, tmp_path / "here"))
            assert mine.read_bytes() == theirs.read_bytes()
