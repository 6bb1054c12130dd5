"""What a folder has is kept, and what is not of the same evaluation refused."""

import shutil
from pathlib import Path

import pytest
import torch

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json
from rrl_dist.evaluate.plan import Unit
from rrl_dist.evaluate.robust import Evaluator, chosen_images
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


def test_what_is_lost_is_done_again_and_nothing_else(
    job: Job, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    files = sorted((folder / "rows").iterdir())
    assert len(files) == 2 * len(COMPONENTS)
    once = [folder / name for name in ("results.json", "survey.json", "gallery-3.npz")]
    lost = [files[1], files[4], *once]
    for file in lost:
        file.unlink()
    kept = {file: file.stat().st_mtime_ns for file in files if file.exists()}
    counter = Counter()
    returned = run(job, folder, progress=counter)
    assert rows_in(folder) == rows_in(finished)
    for name in ("results.json", "survey.json", "gallery-3.npz", "manifest.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name
    assert returned == read_json(folder / "results.json")
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert counter.total == sum(counter.told) == LIMIT * len(COMPONENTS)
    assert counter.told[0] == LIMIT * len(COMPONENTS) - 6 - 64


def test_an_evaluation_that_is_done_needs_no_model(
    job: Job, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    run({**job, "classifier": str(tmp_path / "none")}, folder)
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


def test_so_are_units_of_another_size(job: Job, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    with pytest.raises(UserError, match="another unit_atoms"):
        run({**job, "unit_atoms": 2}, folder)


def test_larger_units_have_the_same_rows(
    job: Job, finished: Path, tmp_path: Path
) -> None:
    run({**job, "unit_atoms": 3}, tmp_path)
    assert rows_in(tmp_path) == rows_in(finished)
    assert len(list((tmp_path / "rows").iterdir())) == len(COMPONENTS)
    results = "results.json"
    assert (tmp_path / results).read_bytes() == (finished / results).read_bytes()


def test_a_unit_written_twice_is_the_same_but_for_its_time(
    job: Job, finished: Path, tmp_path: Path
) -> None:
    evaluator = Evaluator(job, tmp_path, torch.device("cpu"))
    unit = Unit(7, "pgd4-linf@0.03", 64, 70)
    for _ in range(2):
        assert evaluator.run(unit) == unit
    expected = by_sample(finished, unit.component)
    found = rows_in(tmp_path)
    assert [path.name for path in (tmp_path / "rows").iterdir()] == [
        "unit-00007.parquet"
    ]
    assert len(found) == 6
    assert found == [expected[row.index] for row in found]


@pytest.mark.parametrize("limit", [0, -5])
def test_an_evaluation_of_no_image_is_refused(job: Job, limit: int) -> None:
    with pytest.raises(UserError, match=f"evaluate.limit={limit}"):
        chosen_images({**job, "limit": limit})


def test_a_classifier_that_is_not_there_is_told_of(job: Job, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model at"):
        run({**job, "classifier": str(tmp_path / "none")}, tmp_path / "run")
