"""Corrupted images: their rows, and the means of them."""

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rrl_dist.attacks.balls import Linf
from rrl_dist.core.aggregate import wilson
from rrl_dist.core.columns import Columns
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json
from rrl_dist.data.corruptions import corrupt, corruption_names
from rrl_dist.evaluate.corruption import (
    Corruption,
    corruption_errors,
    corruptions_of,
    error_of,
    is_imagenet,
    labels_of,
)
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.evaluate.surrogates import suite_identity
from rrl_dist.training.build import load_classifier
from tests.composing import compose
from tests.evaluate.jobs import LIMIT, Job, chosen, job_of, made, of_suite, rows_in, run

KINDS = ("gaussian_noise", "contrast")
CORRUPTED = (
    "suite=corruptions",
    f"suite.corruptions.kinds=[{','.join(KINDS)}]",
    "suite.corruptions.severities=[1,5]",
    "suite.micro_batch=32",
)
NAMES = [f"{kind}@{severity}" for kind in KINDS for severity in (1, 5)]


@pytest.fixture(scope="module")
def job(classifier: Path) -> Job:
    return of_suite(job_of(classifier), *CORRUPTED)


@pytest.fixture(scope="module")
def corrupted(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corrupted")
    run(job, folder)
    return folder


def test_rows_are_a_direct_forward_of_corrupted_images(
    job: Job, corrupted: Path
) -> None:
    model, _ = load_classifier(job["classifier"].path)
    x, y, index = chosen(job)
    table = {(row.component, row.index): row for row in rows_in(corrupted)}
    assert len(table) == LIMIT * (1 + len(NAMES))
    for name in NAMES:
        kind, _, severity = name.partition("@")
        moved = corrupt(x, kind, int(severity), seed=job["seed"], index=index)
        with torch.no_grad():
            logits = model(moved)
            far = (model.encoder(moved) - model.encoder(x)).norm(dim=1)
        gap = (moved - x).abs().flatten(1).amax(1)
        for k, i in enumerate(index.tolist()):
            row = table[name, i]
            assert (row.corruption, row.severity) == (kind, int(severity))
            assert (row.predicted, row.label) == (int(logits[k].argmax()), int(y[k]))
            assert row.correct == (row.predicted == row.label)
            assert row.distance == float(gap[k])
            assert row.displacement == pytest.approx(float(far[k]), rel=1e-4)
            assert (row.queries, row.broken_by) == (0, None)
    clean = [row for (name, _), row in table.items() if name == "clean"]
    assert {(row.corruption, row.severity) for row in clean} == {(None, None)}


def test_results_are_worked_out_by_hand(corrupted: Path) -> None:
    rows, results = rows_in(corrupted), read_json(corrupted / "results.json")
    wrong: dict[str, dict[int, bool]] = {}
    for row in rows:
        wrong.setdefault(row.component, {})[row.index] = not row.correct
    found = results["corruptions"]
    assert found["generated"] == "regenerated"
    assert set(found["kinds"]) == set(KINDS)
    total = sum(sum(wrong[name].values()) for name in NAMES)
    assert found["error"]["value"] == pytest.approx(total / LIMIT / 4, rel=1e-5)
    for kind in KINDS:
        one, five = wrong[f"{kind}@1"], wrong[f"{kind}@5"]
        levels = found["kinds"][kind]["severities"]
        assert levels == {
            "1": wilson(sum(one.values()), LIMIT).as_dict(),
            "5": wilson(sum(five.values()), LIMIT).as_dict(),
        }
        means = [(one[i] + five[i]) / 2 for i in one]
        half = 1.959964 * statistics.stdev(means) / LIMIT**0.5
        mean = found["kinds"][kind]["error"]
        assert mean["value"] == pytest.approx(statistics.mean(means), rel=1e-5)
        assert mean["high"] == pytest.approx(mean["value"] + half, rel=1e-4)
        assert mean["count"] == LIMIT
    assert found["error"]["value"] > 1 - results["worst"]["value"]


def test_corruptions_are_no_part_of_the_worst_case(corrupted: Path) -> None:
    results = read_json(corrupted / "results.json")
    assert set(results["components"]) == {"clean"}
    clean = [row.correct for row in rows_in(corrupted) if row.component == "clean"]
    assert results["worst"]["value"] == pytest.approx(sum(clean) / LIMIT, abs=1e-6)
    assert (results["curve"], results["bound"]) == ([], [])


def test_rows_do_not_depend_on_how_they_are_cut(
    job: Job, corrupted: Path, tmp_path: Path
) -> None:
    run({**job, "unit_atoms": 2}, tmp_path)
    assert rows_in(tmp_path) == rows_in(corrupted)
    mine, theirs = (folder / "results.json" for folder in (tmp_path, corrupted))
    assert mine.read_bytes() == theirs.read_bytes()


def test_they_stand_beside_attacks_and_a_curve(job: Job) -> None:
    with_attacks = compose("evaluate", "suite=pgd_apgd")["suite"]
    both = {**with_attacks, "corruptions": job["suite"]["corruptions"]}
    alone, joined = (
        build_suite(suite, job["ball"], seed=0) for suite in (with_attacks, both)
    )
    assert [name for name in joined.attacks if name not in alone.attacks] == NAMES
    assert joined == replace(
        alone, attacks=joined.attacks, corruptions=joined.corruptions
    )
    assert list(joined.corruptions) == NAMES
    assert alone.corruptions == {}


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"kinds": ["rain"], "severities": [1]}, r"no corruption 'rain'; choose gauss"),
        ({"kinds": ["contrast"], "severities": [0]}, "severities 1 to 5, not 0"),
        ({"kinds": ["contrast"], "severities": [1.5]}, "severities 1 to 5, not 1.5"),
        ({"kinds": [], "severities": [1]}, r"suite.corruptions.kinds=\[\]; give"),
        ({"kinds": ["contrast"]}, "suite.corruptions.severities=None; give"),
        ({"kinds": "contrast", "severities": [1]}, "kinds=contrast; give a list"),
        (
            {"kinds": ["contrast"], "severities": [1], "level": 2},
            "suite.corruptions has no level; it has kinds and severities, and perhaps",
        ),
    ],
)
def test_a_mistake_is_told_when_the_suite_is_built(
    config: dict[str, Any], match: str
) -> None:
    suite = compose("evaluate", "suite=corruptions")["suite"]
    ball = {"_target_": f"{Linf.__module__}.Linf", "eps": 0.1}
    with pytest.raises(UserError, match=match):
        build_suite({**suite, "corruptions": config}, ball, seed=0)


def test_null_is_the_same_as_none_of_them() -> None:
    assert corruptions_of(None) == {}
    assert corruption_errors({}, {}) is None
    suite = {"attacks": {}, "curve": None}
    null = {**suite, "corruptions": None, "vulnerability": None}
    assert suite_identity(null, {}) == suite_identity(suite, {}) == suite


def test_the_suite_has_every_kind_that_the_files_name() -> None:
    config = compose("evaluate", "suite=corruptions")["suite"]["corruptions"]
    found = corruptions_of(config)
    assert len(found) == 5 * len(set(config["kinds"]))
    assert {each.corruption for each in found.values()} <= set(corruption_names())
    assert found["contrast@3"] == Corruption("contrast", 3)


flags = st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2)


@given(flags=flags, places=st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_the_mean_error_is_over_images(flags: list[list[bool]], places: Any) -> None:
    """flags: by image, whether it is right at each of three severities."""
    components = [
        Columns.of_rows([made(i, "x", rights[level]) for i, rights in enumerate(flags)])
        for level in range(3)
    ]
    shares = [sum(not right for right in rights) / 3 for rights in flags]
    found = error_of(components)
    mean = sum(shares) / len(shares)
    assert found["value"] == pytest.approx(mean, abs=2e-6)
    assert found["count"] == len(flags)
    assert 0 <= found["low"] <= found["value"] + 1e-9
    assert found["value"] - 1e-9 <= found["high"] <= 1
    assert found["low"] < found["high"] or len(set(shares)) == 1
    places.shuffle(components)
    assert error_of(components) == found
    for columns in components:
        wrong = int((~columns.correct).sum())
        assert error_of([columns]) == wilson(wrong, len(columns)).as_dict()


def drawn_columns(names: Any, count: int) -> dict[str, Columns]:
    """Of images that are right or wrong at random, some more often than others."""
    draws = np.random.default_rng(7)
    share = draws.uniform(0.2, 0.9, count)
    return {
        name: Columns.of_rows(
            [made(i, name, bool(draws.random() < share[i])) for i in range(count)]
        )
        for name in names
    }


def test_mean_corruption_errors_are_over_the_fifteen_in_both_conventions() -> None:
    """Validation kinds stand apart; AlexNet's errors divide ImageNet's alone."""
    config = {"kinds": [*corruption_names()], "severities": [1, 2, 3, 4, 5]}
    asked = corruptions_of(config)
    components = drawn_columns(asked, 30)
    found = corruption_errors(components, asked, imagenet=True)
    assert found is not None
    rate = {name: float((~c.correct).mean()) for name, c in components.items()}

    def kind(name: str) -> float:
        return statistics.mean(rate[f"{name}@{s}"] for s in range(1, 6))

    whole = [kind(name) for name in corruption_names("test")]
    mce = found["mce"]
    assert mce["cifar_c"]["value"] == pytest.approx(statistics.mean(whole), abs=1e-5)
    alexnet = (
        *(0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360),
        *(0.866816, 0.826572, 0.819324, 0.564592, 0.853204, 0.646056, 0.717840),
        0.606500,
    )
    over = statistics.mean(e / a for e, a in zip(whole, alexnet, strict=True))
    assert mce["imagenet_c"]["value"] == pytest.approx(over, abs=1e-5)
    each = [
        statistics.mean(
            (not components[f"{name}@{s}"].correct[i]) / a
            for name, a in zip(corruption_names("test"), alexnet, strict=True)
            for s in range(1, 6)
        )
        for i in range(30)
    ]
    half = 1.959964 * statistics.stdev(each) / 30**0.5
    assert mce["imagenet_c"]["high"] == pytest.approx(over + half, rel=1e-4)
    held_out = statistics.mean(kind(name) for name in corruption_names("validation"))
    assert found["validation"]["value"] == pytest.approx(held_out, abs=1e-5)
    assert (found["generated"], found["frost"]) == ("regenerated", "synthetic frost")
    plain = corruption_errors(components, asked)
    assert plain is not None
    assert plain["mce"] == {"cifar_c": mce["cifar_c"], "imagenet_c": None}
    fewer = {n: each for n, each in asked.items() if n != "snow@2"}
    less = corruption_errors(components, fewer, imagenet=True)
    assert less is not None
    assert less["mce"] is None, "not of all of them"


def test_imagenet_is_known_by_its_thousand_names() -> None:
    names = [f"n{place:08d}" for place in range(1000)]
    assert is_imagenet(names)
    assert not is_imagenet(names[:999])
    assert not is_imagenet([*names[:999], "dog"])


def test_frost_of_files_is_told_apart_from_made_up_frost(tmp_path: Path) -> None:
    config = {"kinds": ["frost", "fog"], "severities": [1]}
    ice = corruptions_of({**config, "frost": str(tmp_path)})
    assert labels_of(ice) == {"generated": "regenerated", "frost": "textures"}
    assert ice["frost@1"].frost == str(tmp_path)
    assert ice["fog@1"] == Corruption("fog", 1)
    assert labels_of(corruptions_of(config))["frost"] == "synthetic frost"
    fog = corruptions_of({**config, "kinds": ["fog"]})
    assert labels_of(fog) == {"generated": "regenerated", "frost": None}


def test_of_images_that_are_all_right_the_interval_has_a_width() -> None:
    right = Columns.of_rows([made(i, "x@1", correct=True) for i in range(50)])
    found = error_of([right, right])
    assert (found["value"], found["low"]) == (0, 0)
    assert found["high"] == pytest.approx(wilson(0, 50).high, abs=1e-6)
