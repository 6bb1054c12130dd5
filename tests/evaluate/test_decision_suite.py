"""suite=decision: distances by answers alone, as rows and as results."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from rrl_dist.attacks import L2, tangent
from rrl_dist.evaluate import evaluate
from rrl_dist.evaluate.suites import suite_config
from tests.evaluate.jobs import rows_in

QUERIES, DIRECTIONS, COUNT = 30, 8, 40


@pytest.fixture(scope="module")
def model() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    generator = torch.Generator().manual_seed(0)
    nn.init.normal_(model[1].weight, std=0.3, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def images(model: nn.Module) -> TensorDataset:
    """Of which a few are wrong from the start."""
    x = torch.rand(COUNT, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model(x).argmax(1)
    y[::8] = (y[::8] + 1) % 3
    return TensorDataset(x, y)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decision")


@pytest.fixture(scope="module")
def results(model: nn.Module, images: TensorDataset, folder: Path) -> dict[str, Any]:
    suite = suite_config("decision")
    suite["search"]["attack"] |= {"queries": QUERIES, "directions": DIRECTIONS}
    return evaluate(model, images, ball=L2(0.5), suite=suite, out=folder, threads=1)


def test_rows_hold_the_distances_of_the_attack(
    model: nn.Module, images: TensorDataset, folder: Path, results: dict[str, Any]
) -> None:
    x, y = images.tensors
    expected = tangent(model, x, y, queries=QUERIES, directions=DIRECTIONS)
    component = f"tangent{QUERIES}-l2@4"
    assert results["distance"]["attack"] == component
    rows = {r.index: r for r in rows_in(folder) if r.component == component}
    assert sorted(rows) == [*range(COUNT)]
    for i, row in rows.items():
        assert row.distance == float(expected.distance[i])
        assert row.queries == int(expected.queries[i]) == (1 if i % 8 == 0 else QUERIES)
        assert not row.correct
        assert (row.distance == 0) == (i % 8 == 0)


def test_results_are_worked_out_of_the_rows(
    folder: Path, results: dict[str, Any]
) -> None:
    found = results["distance"]
    rows = [r for r in rows_in(folder) if r.component == found["attack"]]
    mean = sum(row.distance for row in rows) / COUNT
    assert found["value"] == pytest.approx(mean, rel=1e-5)
    assert (found["count"], found["censored"]) == (COUNT, 0)
    for point in found["curve"]:
        left = sum(row.distance > point["eps"] for row in rows)
        assert point["value"] == pytest.approx(left / COUNT)
    # It is no part of the worst case, and its first point is the clean accuracy.
    assert [*results["components"]] == ["clean"]
    assert found["curve"][0]["value"] == results["worst"]["value"]
