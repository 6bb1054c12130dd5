"""What a folder has is kept, and what is not of the same evaluation refused."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from rrl_dist.core.errors import UserError
from rrl_dist.core.records import Row, from_bytes, rows_of, to_bytes
from rrl_dist.core.storage import read_json
from rrl_dist.core.store import open_store
from rrl_dist.evaluate.grid import Link, Unit
from rrl_dist.evaluate.images import chosen_images
from rrl_dist.evaluate.robust import Evaluator
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.surrogates import load_models
from tests.evaluate.jobs import (
    COMPONENTS,
    LIMIT,
    Counter,
    Job,
    by_sample,
    job_of,
    rows_in,
    run,
)


def files_of(folder: Path) -> list[Path]:
    return sorted((folder / "rows").rglob("*.parquet"))


def assert_same(folder: Path, finished: Path) -> None:
    assert rows_in(folder) == rows_in(finished)
    for name in ("results.json", "survey.json", "gallery-3.npz", "manifest.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_what_is_lost_is_done_again_and_nothing_else(
    job: Job, finished: Path, copy: Path
) -> None:
    files = files_of(copy)
    assert len(files) == 2 * len(COMPONENTS)
    short, long = (next(f for f in files if len(read(f)) == n) for n in (6, 64))
    once = [copy / name for name in ("results.json", "survey.json", "gallery-3.npz")]
    for file in (short, long, *once):
        file.unlink()
    kept = {file: file.stat().st_mtime_ns for file in files if file.exists()}
    counter = Counter()
    returned = run(job, copy, watch=counter)
    assert_same(copy, finished)
    assert returned == read_json(copy / "results.json")
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert counter.total == sum(counter.told) == LIMIT * len(COMPONENTS)
    assert counter.told[0] == LIMIT * len(COMPONENTS) - 6 - 64


def read(file: Path) -> list[Row]:
    return rows_of(from_bytes(file.read_bytes(), file.name)[0])


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def without_a_row(file: Path) -> None:
    table, about = from_bytes(file.read_bytes(), "x")
    file.write_bytes(to_bytes(table.slice(1), about))


def of_other_samples(file: Path) -> None:
    table, about = from_bytes(file.read_bytes(), "x")
    moved = pa.array([10**6 + i for i in range(len(table))], pa.int64())
    table = table.set_column(0, table.schema.field(0), moved)
    file.write_bytes(to_bytes(table, about))


def of_nothing(file: Path) -> None:
    file.write_bytes(to_bytes(from_bytes(file.read_bytes(), "x")[0], {}))


@pytest.mark.parametrize(
    "damage", [half, empty, without_a_row, of_other_samples, of_nothing]
)
def test_a_damaged_file_is_named_and_its_rows_are_made_again(
    job: Job, finished: Path, copy: Path, damage: Callable[[Path], None]
) -> None:
    damaged = files_of(copy)[3]
    damage(damaged)
    told: list[str] = []
    run(job, copy, notify=told.append)
    assert_same(copy, finished)
    (line,) = (line for line in told if "removed" in line)
    assert damaged.name in line
    assert line.endswith("; removed, its rows are made again")
    assert "\n" not in line


def test_work_and_time_are_told_before_and_after(
    job: Job, finished: Path, copy: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    run(job, tmp_path / "new", notify=told.append)
    before, after = told
    # PGD with 4 steps at two radii, APGD with 6, and the images themselves; 70 images
    # fill three calls of 32.
    passes = 96 * (2 * (6 + 4) + (8 + 7) + 1)
    assert before.startswith(f"about {passes:,} passes of one image")
    assert "device-" in before
    assert " on 1 worker" in before
    assert after.startswith("took ")
    units = read_json(tmp_path / "new/units.json")
    assert {name: link["samples"] for name, link in units["links"].items()} == (
        dict.fromkeys(COMPONENTS, LIMIT)
    )
    pgd = units["links"]["pgd4-linf@0.03"]
    taken = sum(u["forward"] + u["backward"] for u in units["links"].values())
    assert 1 / 1.5 < taken / passes < 1.5
    # Those that fill calls up are counted here.
    assert 6 * LIMIT <= pgd["forward"] <= 9 * LIMIT
    assert 4 * LIMIT <= pgd["backward"] <= 6 * LIMIT
    # Where nothing is left to do, nothing is said of it.
    told.clear()
    run(job, copy, notify=told.append)
    assert [line.split()[0] for line in told] == ["took"]


def test_the_same_rows_in_two_files_count_once(
    job: Job, finished: Path, copy: Path
) -> None:
    """As after a second copy of a unit, or units that were cut another way."""
    for file in files_of(copy)[::3]:
        table, about = from_bytes(file.read_bytes(), "x")
        shutil.copy(file, file.with_name("999999-another.parquet"))
        assert len(table) in (6, 64)
        assert about["atoms"] in ("0", "1")
    run(job, copy)
    assert_same(copy, finished)


def test_an_evaluation_that_is_done_needs_no_model(
    job: Job, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    run({**job, "classifier": Source(str(tmp_path / "none"))}, folder)
    results = "results.json"
    assert (folder / results).read_bytes() == (finished / results).read_bytes()


@pytest.mark.parametrize(
    ("change", "name"),
    [("seed=1", "seed"), ("ball.eps=0.04", "ball"), ("suite.micro_batch=16", "suite")],
)
def test_rows_of_another_evaluation_are_refused(
    classifier: Path, finished: Path, tmp_path: Path, change: str, name: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(UserError, match=f"another {name}; choose another name="):
        run(job_of(classifier, change), folder)
    assert (folder / "manifest.json").read_bytes() == before
    assert rows_in(folder) == rows_in(finished)


@pytest.mark.parametrize("atoms", [1, 2, 3])
def test_units_of_any_size_have_the_same_rows(
    job: Job, finished: Path, tmp_path: Path, atoms: int
) -> None:
    run({**job, "unit_atoms": atoms}, tmp_path)
    assert_same(tmp_path, finished)
    assert len(files_of(tmp_path)) == len(COMPONENTS) * (2 if atoms == 1 else 1)


def test_units_of_another_size_go_on_with_what_is_there(
    job: Job, finished: Path, copy: Path
) -> None:
    files = files_of(copy)
    files[2].unlink()
    kept = {file: file.stat().st_mtime_ns for file in files_of(copy)}
    run({**job, "unit_atoms": 2}, copy)
    assert_same(copy, finished)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_a_unit_written_twice_is_the_same_but_for_its_time(
    job: Job, finished: Path, tmp_path: Path
) -> None:
    models = load_models(job["classifier"], {})
    store = open_store(tmp_path)
    evaluator = Evaluator(job, models, store, torch.device("cpu"))
    unit = Unit(Link("pgd4-linf@0.03"), (1,), tuple(range(64, 70)))
    done = [evaluator.run(unit).right for _ in range(2)]
    (name,) = store.names("rows")
    assert name == unit.file
    expected = by_sample(finished, unit.link.component)
    found = [replace(row, seconds=0.0) for row in read(tmp_path / name)]
    assert len(found) == 6
    assert found == [expected[row.index] for row in found]
    pairs = zip(unit.positions, found, strict=True)
    right = tuple(position for position, row in pairs if row.correct)
    assert done == [right, right]


@pytest.mark.parametrize("limit", [0, -5])
def test_an_evaluation_of_no_image_is_refused(job: Job, limit: int) -> None:
    with pytest.raises(UserError, match=f"evaluate.limit={limit}"):
        chosen_images({**job, "limit": limit})


def test_a_classifier_that_is_not_there_is_told_of(job: Job, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model at"):
        run({**job, "classifier": Source(str(tmp_path / "none"))}, tmp_path / "run")
