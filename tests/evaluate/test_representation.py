"""The suite for representations: the bound, and the nearest adversarial image."""

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rrl_dist.core.records import Row
from rrl_dist.core.storage import read_json
from rrl_dist.evaluate.images import chosen_images
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.training.build import load_classifier
from tests.evaluate.jobs import LIMIT, REPRESENTATION, Job, job_of, rows_in, run

HALF = ("clean", "pgd4-linf@0.015", "feature4-linf@0.015")
WHOLE = (
    "clean",
    "pgd4-linf@0.03",
    "apgd-ce-linf@0.03",
    "apgd-dlr-linf@0.03",
    "feature4-linf@0.03",
)
SEARCH = "search8-l2@4"


@pytest.fixture
def job(classifier: Path) -> Job:
    return job_of(classifier, *REPRESENTATION)


@pytest.fixture
def results(represented: Path) -> dict[str, Any]:
    return read_json(represented / "results.json")


@pytest.fixture
def tables(represented: Path) -> dict[str, dict[int, Row]]:
    """By component, then by sample."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows_in(represented):
        found.setdefault(row.component, {})[row.index] = row
    return found


def mean(values: list[float]) -> dict[str, Any]:
    value = sum(values) / len(values)
    half = 1.959964 * statistics.stdev(values) / math.sqrt(len(values))
    ends = {"value": value, "low": value - half, "high": value + half}
    return {**{k: pytest.approx(v, rel=1e-4) for k, v in ends.items()}, "count": LIMIT}


def test_every_component_is_there(tables: dict[str, dict[int, Row]]) -> None:
    assert set(tables) == {*HALF, *WHOLE, SEARCH}
    assert all(len(table) == LIMIT for table in tables.values())


def test_the_bound_is_worked_out_by_hand(
    job: Job, results: dict[str, Any], tables: dict[str, dict[int, Row]]
) -> None:
    model, _ = load_classifier(job["classifier"].path)
    norm = float(np.linalg.svd(model.head.weight.detach().numpy())[1][0])
    images = chosen_images(job).images
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255
    with torch.no_grad():
        h = model.encoder(x).double().numpy()
    spread = math.sqrt(((h - h.mean(0)) ** 2).sum(1).mean())
    assert [entry["eps"] for entry in results["bound"]] == pytest.approx([0.015, 0.03])
    for entry, names in zip(results["bound"], (HALF, WHOLE), strict=True):
        moved, bounds, losses = [], [], []
        for i, clean in tables["clean"].items():
            found = [tables[name][i] for name in names]
            moved.append(max(row.displacement for row in found))
            bounds.append(clean.loss + math.sqrt(2) * norm * moved[-1])
            losses.append(max(row.loss for row in found))
            assert losses[-1] <= bounds[-1] * (1 + 1e-6)
        assert entry["displacement"] == mean(moved)
        assert entry["relative_displacement"] == mean([d / spread for d in moved])
        assert entry["bound"] == mean(bounds)
        assert entry["loss"] == mean(losses)
        clean_losses = [row.loss for row in tables["clean"].values()]
        assert entry["clean_loss"] == mean(clean_losses)
        assert entry["head_norm"] == pytest.approx(norm, rel=1e-4)
    half, whole = results["bound"]
    for key in ("displacement", "loss", "bound"):
        assert half["clean_loss"]["value"] < half["loss"]["value"]
        assert half[key]["value"] < whole[key]["value"]


def test_features_move_furthest_under_the_attack_on_them(
    tables: dict[str, dict[int, Row]],
) -> None:
    total = {
        name: sum(row.displacement for row in tables[name].values()) for name in WHOLE
    }
    assert max(total, key=lambda name: total[name]) == "feature4-linf@0.03"
    assert total["clean"] == 0


def test_the_search_stays_out_of_the_worst_case(results: dict[str, Any]) -> None:
    assert set(results["components"]) == set(WHOLE)
    assert [point["eps"] for point in results["curve"]] == [0.0, 0.015, 0.03]


def test_the_distance_is_a_mean_over_all_images(
    job: Job, results: dict[str, Any], tables: dict[str, dict[int, Row]]
) -> None:
    rows = tables[SEARCH]
    model, _ = load_classifier(job["classifier"].path)
    suite = build_suite(job["suite"], job["ball"], seed=job["seed"])
    images = chosen_images(job)
    x = torch.from_numpy(images.images).permute(0, 3, 1, 2).contiguous().float() / 255
    y, index = torch.from_numpy(images.labels), torch.from_numpy(images.index)
    x_adv = suite.attacks[SEARCH](model, x, y, index)
    far = (x_adv - x).flatten(1).norm(dim=1)
    with torch.no_grad():
        wrong, before = model(x_adv).argmax(1) != y, model(x).argmax(1) != y
    assert before.any()
    assert (far[before] == 0).all()
    assert [not rows[i].correct for i in index.tolist()] == wrong.tolist()
    expected = torch.where(wrong, far, torch.full_like(far, 4.0)).tolist()
    found = dict(results["distance"])
    assert found.pop("norm") == "l2"
    assert found.pop("radius") == 4.0
    assert found.pop("censored") == int((~wrong).sum())
    assert found.pop("attack") == SEARCH
    assert found.pop("median") == pytest.approx(statistics.median(expected), rel=1e-4)
    for point in found.pop("curve"):
        left = sum(each > point["eps"] for each in far[wrong].tolist())
        censored = int((~wrong).sum())
        assert point["value"] == pytest.approx((left + censored) / LIMIT, abs=1e-6)
    assert found == mean(expected)


def test_what_is_never_broken_counts_with_the_largest_radius(
    classifier: Path, tmp_path: Path
) -> None:
    job = job_of(classifier, *REPRESENTATION, "suite.search.ball.eps=0.01")
    suite = {**job["suite"], "attacks": {}, "curve": None}
    found = run({**job, "limit": 20, "suite": suite}, tmp_path)
    rows = [row for row in rows_in(tmp_path) if row.component == "search8-l2@0.01"]
    right = sum(row.correct for row in rows)
    assert found["distance"]["censored"] == right > 0
    assert found["distance"]["value"] >= 0.01 * right / 20
    assert found["distance"]["value"] <= 0.01
    assert found["bound"] == []


def test_measures_of_the_encoder(job: Job, results: dict[str, Any]) -> None:
    found = results["representation"]
    assert 0 < found["feature_std"] < 1
    total = sum(sigma**2 for sigma in found["sigmas"].values())
    assert found["sigma_squared_sum"] == pytest.approx(total, rel=1e-4)
    model, _ = load_classifier(job["classifier"].path)
    assert 1 < found["effective_rank"] <= model.encoder.num_features
    convolutions = [
        name
        for name, module in model.encoder.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    assert list(found["sigmas"]) == sorted(convolutions)


def test_two_evaluations_are_equal_to_the_last_byte(
    job: Job, represented: Path, tmp_path: Path
) -> None:
    run({**job, "unit_atoms": 2}, tmp_path)
    for name in ("results.json", "survey.json"):
        assert (tmp_path / name).read_bytes() == (represented / name).read_bytes()
