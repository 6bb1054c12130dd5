"""Rows and results of a component that is several attacks in turn."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rrl_dist.attacks.cascade import Cascade
from rrl_dist.core.aggregate import wilson
from rrl_dist.core.storage import read_json
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.training.build import load_classifier
from tests.evaluate.jobs import (
    LIMIT,
    Job,
    by_sample,
    chosen,
    job_of,
    ledger_of,
    rows_in,
    run,
)

NAME = "in-turn-linf@0.03"
PGD = {
    "_target_": "rrl_dist.attacks.projected_gradient.PGD",
    "_partial_": True,
    "relative_step": 0.25,
    "restarts": 1,
    "random_start": False,
}
CASCADE: dict[str, Any] = {
    "_target_": "rrl_dist.attacks.cascade.Cascade",
    "label": "in-turn",
    "attacks": {"weak": {**PGD, "steps": 1}, "strong": {**PGD, "steps": 8}},
}


@pytest.fixture(scope="module")
def cascading(classifier: Path) -> Job:
    """The usual attacks, and two in turn."""
    job = job_of(classifier, "ball.eps=0.03", "evaluate.gallery=0")
    attacks = {**job["suite"]["attacks"], "in_turn": CASCADE}
    return {**job, "suite": {**job["suite"], "attacks": attacks}}


@pytest.fixture(scope="module")
def folder(cascading: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cascade")
    run(cascading, made)
    return made


@pytest.fixture(scope="module")
def expected(cascading: Job) -> dict[int, str | None]:
    """The first attack that breaks each image, each of them asked about all."""
    model, _ = load_classifier(cascading["classifier"].path)
    x, y, index = chosen(cascading)
    suite = build_suite(cascading["suite"], cascading["ball"], seed=cascading["seed"])
    cascade = suite.attacks[NAME]
    assert isinstance(cascade, Cascade)
    attacked = {"clean": x}
    attacked |= {a.name: a.run(model, x, y, index).x_adv for a in cascade.attacks}
    found: dict[int, str | None] = dict.fromkeys(index.tolist())
    for name, images in attacked.items():
        with torch.no_grad():
            wrong = model(images).argmax(1) != y
        for i in index[wrong].tolist():
            found[i] = found[i] or name
    return found


def test_rows_name_the_attack_that_broke_the_image(
    folder: Path, expected: dict[int, str | None]
) -> None:
    rows = by_sample(folder, NAME)
    assert {i: row.broken_by for i, row in rows.items()} == expected
    assert all(row.correct == (row.broken_by is None) for row in rows.values())
    # All of these there are, so that none is taken for another.
    assert set(expected.values()) == {"clean", "pgd1", "pgd8", None}


def test_an_attack_is_asked_only_about_what_is_right_before_it(
    cascading: Job, folder: Path, expected: dict[int, str | None]
) -> None:
    ledger = ledger_of(cascading, folder)
    chain = next(c for c in ledger.chains if c[0].component == NAME)
    assert [link.attack for link in chain] == ["clean", "pgd1", "pgd8"]
    left = set(expected)
    for link in chain:
        table = ledger.link_table(link).to_pylist()
        assert {row["index"] for row in table} == left
        found = {row["index"]: row["broken_by"] for row in table}
        broken = {index for index in left if expected[index] == link.attack}
        assert found == {i: link.attack if i in broken else None for i in left}
        left -= broken


def test_a_row_has_the_queries_of_all_attacks(cascading: Job, folder: Path) -> None:
    ledger = ledger_of(cascading, folder)
    chain = next(c for c in ledger.chains if c[0].component == NAME)
    total: dict[int, int] = {}
    for link in chain:
        for row in ledger.link_table(link).to_pylist():
            total[row["index"]] = total.get(row["index"], 0) + row["queries"]
    rows = by_sample(folder, NAME)
    assert {index: row.queries for index, row in rows.items()} == total
    assert len(set(total.values())) == 3


def test_in_one_process_and_in_one_call_it_is_the_same(
    cascading: Job, folder: Path
) -> None:
    """As `autoattack` runs it for a caller in Python."""
    model, _ = load_classifier(cascading["classifier"].path)
    x, y, index = chosen(cascading)
    suite = build_suite(cascading["suite"], cascading["ball"], seed=cascading["seed"])
    cascade = suite.attacks[NAME]
    assert isinstance(cascade, Cascade)
    found, _ = cascade.stages(model, x, y, index)
    far = cascade.ball.distance(found.x_adv, x).tolist()
    rows = [by_sample(folder, NAME)[i] for i in index.tolist()]
    assert [row.distance for row in rows] == far
    assert [row.queries for row in rows] == found.queries.tolist()


def test_other_rows_are_as_they_were(folder: Path, finished: Path) -> None:
    others = [row for row in rows_in(folder) if row.component != NAME]
    assert others == rows_in(finished)
    assert all(row.broken_by is None for row in others)


def test_results_tell_what_each_attack_left_right(
    folder: Path, finished: Path, expected: dict[int, str | None]
) -> None:
    results = read_json(folder / "results.json")
    own = results["components"][NAME]
    broken = list(expected.values())
    left, steps = LIMIT, []
    for name in ("clean", "pgd1", "pgd8"):
        left -= broken.count(name)
        steps.append({"attack": name, **wilson(left, LIMIT).as_dict()})
    assert own["after"] == steps
    assert own == {"after": steps, **wilson(left, LIMIT).as_dict()}
    before = read_json(finished / "results.json")
    del results["components"][NAME]
    assert results["components"] == before["components"]
    assert results["curve"] == before["curve"]


def test_images_of_several_atoms_in_one_call_have_the_same_rows(
    cascading: Job, folder: Path, tmp_path: Path
) -> None:
    for atoms in (1, 2):
        made = tmp_path / str(atoms)
        run({**cascading, "unit_atoms": atoms}, made)
        assert rows_in(made) == rows_in(folder)
        results = "results.json"
        assert (made / results).read_bytes() == (folder / results).read_bytes()
