import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rrl_dist.core.aggregate import wilson
from rrl_dist.core.storage import read_json
from rrl_dist.evaluate.evaluation import like_guessing
from rrl_dist.evaluate.plan import Suite, build_suite
from rrl_dist.evaluate.summary import summarize
from rrl_dist.training.build import build, load_classifier
from tests.evaluate.jobs import (
    COMPONENTS,
    LIMIT,
    Counter,
    Job,
    by_sample,
    chosen,
    columns,
    made,
    made_of,
    rows_in,
    run,
)


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
    model, _ = load_classifier(job["classifier"].path)
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
    model, _ = load_classifier(job["classifier"].path)
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
    found = summarize(columns(rows), suite, SURVEY)
    assert found["worst"]["value"] == 0.25
    assert found["components"]["a"]["value"] == 0.5
    assert [point["value"] for point in found["curve"]] == [0.75, 0.0]
    assert set(found["components"]) == {"clean", "a", "b"}
    again = summarize(columns(rows[::-1]), suite, SURVEY)
    assert again == found


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


@pytest.mark.parametrize(
    ("right", "count", "guessed"),
    [(10, 100, True), (15, 100, True), (40, 100, False), (2, 20, False), (0, 50, True)],
)
def test_an_accuracy_like_guessing_is_noticed(
    right: int, count: int, guessed: bool
) -> None:
    """Of ten classes; of too few images nothing is said."""
    assert like_guessing(wilson(right, count).as_dict(), 10) == guessed


def test_a_model_that_guesses_is_told_of(job: Job, tmp_path: Path) -> None:
    """One that expects other pixels than it gets, say."""
    told: list[str] = []
    nothing = {**job["suite"], "attacks": {}, "curve": None}
    alone = {**job, "gallery": 0, "suite": nothing}
    run(alone, tmp_path / "a", notify=told.append)
    assert not any("guessing" in line for line in told)
    evaluation = made_of(alone, tmp_path / "b")
    evaluation.models.subject.head.weight.data.zero_()
    evaluation.models.subject.head.bias.data.copy_(torch.eye(10)[3])
    evaluation.run(Counter(), told.append)
    (line,) = (line for line in told if "guessing" in line)
    assert "normalizes them as it was trained" in line
