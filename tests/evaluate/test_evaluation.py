import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rrl_dist.core.aggregate import wilson
from rrl_dist.core.errors import UserError
from rrl_dist.core.records import Row
from rrl_dist.core.storage import read_json
from rrl_dist.evaluate.evaluation import summarize
from rrl_dist.evaluate.plan import Suite, Unit, build_suite
from rrl_dist.evaluate.robust import Evaluator, chosen_images
from rrl_dist.training.build import build, load_classifier
from tests.evaluate.jobs import LIMIT, Counter, Job, job_of, rows_in, run

COMPONENTS = {
    "clean",
    "pgd4-linf@0.03",
    "apgd-ce-linf@0.03",
    "pgd4-linf@0.015",
}


@pytest.fixture
def job(classifier: Path) -> Job:
    return job_of(classifier)


def chosen(job: Job) -> tuple[Tensor, Tensor, Tensor]:
    """The evaluation's images [N, 3, H, W] in [0, 1], labels and index."""
    images = chosen_images(job)
    x = torch.from_numpy(images.images).permute(0, 3, 1, 2).contiguous().float() / 255
    return x, torch.from_numpy(images.labels), torch.from_numpy(images.index)


def by_sample(folder: Path, component: str) -> dict[int, Row]:
    return {row.index: row for row in rows_in(folder) if row.component == component}


def test_each_sample_has_a_row_of_each_component(job: Job, finished: Path) -> None:
    rows = rows_in(finished)
    index = chosen(job)[2].tolist()
    assert len(set(index)) == LIMIT
    assert {row.component for row in rows} == COMPONENTS
    assert len(rows) == LIMIT * len(COMPONENTS)
    for component in COMPONENTS:
        assert sorted(by_sample(finished, component)) == sorted(index)


def test_the_part_that_is_attacked_is_fixed_and_of_the_test_split(job: Job) -> None:
    test = build(job["data"]).split("test")
    index = chosen(job)[2].tolist()
    assert set(index) <= set(test.index.tolist())
    assert index == chosen({**job, "seed": 5})[2].tolist()
    fewer = chosen({**job, "limit": 30})[2].tolist()
    assert set(fewer) < set(index)
    # It is no stretch of the set, where classes may come one after another.
    places = np.flatnonzero(np.isin(test.index, index))
    assert places.max() - places.min() > 0.9 * len(test)
    for limit in (None, 10**6):
        assert len(chosen({**job, "limit": limit})[2]) == len(test)


def test_clean_rows_are_a_direct_forward(job: Job, finished: Path) -> None:
    model, _ = load_classifier(Path(job["classifier"]))
    x, y, index = chosen(job)
    with torch.no_grad():
        logits = model(x)
    rows = by_sample(finished, "clean")
    for i, label, values in zip(index.tolist(), y.tolist(), logits, strict=True):
        row = rows[i]
        others = torch.cat([values[:label], values[label + 1 :]])
        assert (row.label, row.predicted) == (label, int(values.argmax()))
        assert row.correct == (row.predicted == row.label)
        assert row.margin == pytest.approx(
            float(values[label] - others.max()), abs=1e-3
        )
        assert row.correct == (row.margin > 0)
        assert row.confidence == pytest.approx(float(values.softmax(0).max()), abs=1e-4)
        loss = -float(values.log_softmax(0)[label])
        assert row.loss == pytest.approx(loss, abs=1e-3)
        assert (row.distance, row.displacement, row.queries) == (0.0, 0.0, 0)
        assert row.seed == job["seed"]


def test_attacked_rows_are_the_attack_on_all_images_at_once(
    job: Job, finished: Path
) -> None:
    model, _ = load_classifier(Path(job["classifier"]))
    x, y, index = chosen(job)
    suite = build_suite(job["suite"], job["ball"], seed=job["seed"])
    flags = {}
    for component, attack in suite.attacks.items():
        if attack is None:
            continue
        result = attack.run(model, x, y, index)
        with torch.no_grad():
            logits = model(result.x_adv)
            moved = model.encoder(result.x_adv) - model.encoder(x)
        right = logits.argmax(1) == y
        loss = torch.nn.functional.cross_entropy(logits, y, reduction="none")
        far = attack.ball.distance(result.x_adv, x)
        rows = by_sample(finished, component)
        found = [rows[i] for i in index.tolist()]
        assert [row.correct for row in found] == right.tolist(), component
        assert [row.distance for row in found] == far.tolist(), component
        assert [row.queries for row in found] == result.queries.tolist(), component
        lengths = moved.square().sum(1).sqrt().tolist()
        assert [row.displacement for row in found] == pytest.approx(lengths, rel=1e-3)
        assert [row.loss for row in found] == pytest.approx(loss.tolist(), abs=2e-3)
        assert max(row.distance for row in found) <= attack.ball.eps * (1 + 1e-5)
        assert min(row.queries for row in found) > 0
        flags[component] = sum(row.correct for row in found)
    clean = sum(row.correct for row in by_sample(finished, "clean").values())
    assert clean > LIMIT / 2
    assert flags["pgd4-linf@0.03"] < flags["pgd4-linf@0.015"] < clean


def test_results_are_a_count_by_hand(finished: Path) -> None:
    results = read_json(finished / "results.json")

    def share(*components: str) -> dict[str, Any]:
        tables = [by_sample(finished, name) for name in components]
        right = [all(table[i].correct for table in tables) for i in tables[0]]
        return wilson(sum(right), LIMIT).as_dict()

    full = ("clean", "pgd4-linf@0.03", "apgd-ce-linf@0.03")
    assert results["components"] == {name: share(name) for name in full}
    assert results["worst"] == share(*full)
    curve = [(0.0, "clean"), (0.015, "pgd4-linf@0.015"), (0.03, "pgd4-linf@0.03")]
    for found, (eps, name) in zip(results["curve"], curve, strict=True):
        assert found == {"eps": pytest.approx(eps), **share(name)}
    assert "seconds" not in json.dumps(results)


SURVEY = {"head_norm": 1.0, "spread": 1.0, "sigmas": None}


def made(index: int, component: str, correct: bool) -> Row:
    return Row(
        index=index,
        label=0,
        predicted=int(not correct),
        component=component,
        correct=correct,
        margin=0.0,
        confidence=1.0,
        loss=0.0,
        distance=0.0,
        displacement=0.0,
        queries=0,
        seed=0,
        seconds=0.0,
    )


def test_the_worst_case_is_of_the_full_radius_alone() -> None:
    suite = Suite(
        attacks={},
        full=("clean", "a", "b"),
        curve=((0.0, "clean"), (2.0, "wide")),
        levels=(),
        search=None,
        shown="a",
    )
    outcomes = {
        "clean": [True, True, True, False],
        "a": [True, False, True, False],
        "b": [False, True, True, False],
        "wide": [False, False, False, False],
    }
    rows = [
        made(i, name, right)
        for name, flags in outcomes.items()
        for i, right in enumerate(flags)
    ]
    found = summarize(rows, suite, SURVEY)
    assert found["worst"]["value"] == 0.25
    assert found["components"]["a"]["value"] == 0.5
    assert [point["value"] for point in found["curve"]] == [0.75, 0.0]
    assert set(found["components"]) == {"clean", "a", "b"}
    assert summarize(rows[::-1], suite, SURVEY)["worst"] == found["worst"]


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


def test_the_gallery_shows_some_of_the_images_attacked(
    job: Job, finished: Path
) -> None:
    with np.load(finished / "gallery-3.npz") as gallery:
        arrays = dict(gallery)
    x, y, index = chosen(job)
    shown = torch.from_numpy(arrays["images"])
    places = [int((x == image).flatten(1).all(1).nonzero()[0]) for image in shown]
    assert len(set(places)) == len(places) == 3
    np.testing.assert_array_equal(arrays["labels"], y[places].numpy())
    far = np.abs(arrays["attacked"] - arrays["images"]).max((1, 2, 3))
    assert float(arrays["eps"]) == 0.03
    assert (far <= 0.03 * (1 + 1e-5)).all()
    for column, component in (("clean", "clean"), ("attacked", "pgd4-linf@0.03")):
        rows = by_sample(finished, component)
        found = [rows[i].predicted for i in index[places].tolist()]
        assert arrays[f"predicted_{column}"].tolist() == found
    rows = by_sample(finished, "pgd4-linf@0.03")
    assert far.tolist() == [rows[i].distance for i in index[places].tolist()]
    assert arrays["classes"].tolist() == list("0123456789")


def test_without_a_gallery_there_is_none(job: Job, tmp_path: Path) -> None:
    few = {**job, "gallery": 0, "limit": 5}
    run({**few, "suite": {**job["suite"], "attacks": {}, "curve": None}}, tmp_path)
    assert not (tmp_path / "gallery-3.npz").exists()
    assert len(rows_in(tmp_path)) == 5


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
