"""An early end over rows that go beyond it: of an attempt with another rule or none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from rrl_dist.attacks import Linf
from rrl_dist.evaluate import evaluate
from rrl_dist.evaluate.status import Status

TARGET = "rrl_dist.attacks.projected_gradient.PGD"
RULE = {"stop_when": "below 0.9 with 95 %", "stop_every": 64}


def pgd(steps: int, relative_step: float, **more: Any) -> dict[str, Any]:
    fixed = {"restarts": 1, "random_start": True}
    return {
        "_target_": TARGET,
        "steps": steps,
        "relative_step": relative_step,
        **fixed,
        **more,
    }


IN_TURN = {
    "_target_": "rrl_dist.attacks.cascade.Cascade",
    "label": "two",
    "attacks": {
        "weak": pgd(1, 0.05, _partial_=True),
        "strong": pgd(10, 0.25, _partial_=True),
    },
}
SETTINGS: dict[str, Any] = {
    "ball": Linf(0.05),
    "suite": {
        "attacks": {"two": IN_TURN, "pgd": pgd(3, 0.3)},
        "micro_batch": 32,
        "curve": None,
    },
    "threads": 1,
    "unit_seconds": 1e-9,  # an atom a unit
}


class EndedHereError(Exception):
    """The process ends."""


def after(units: int) -> Callable[[Status], None]:
    left = iter(range(units))

    def watch(status: Status) -> None:
        if next(left, None) is None:
            raise EndedHereError

    return watch


@pytest.fixture(scope="module")
def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(108, 4)).eval()


@pytest.fixture(scope="module")
def data(net: nn.Module) -> TensorDataset:
    x = torch.rand(640, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return TensorDataset(x, net(x).argmax(1))


@pytest.fixture(scope="module")
def stopped(
    net: nn.Module, data: TensorDataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """By the rule from the start."""
    out = tmp_path_factory.mktemp("stopped")
    found = evaluate(net, data, out=out, **RULE, **SETTINGS)
    assert 0 < found["stopped"]["attacked"] < 640
    assert {one["count"] for one in found["components"].values()} == {
        found["stopped"]["attacked"]
    }
    return found


@pytest.mark.parametrize("units", [3, 8, 15, 25, 32])
def test_a_rule_that_comes_after_an_interrupt_without_one(
    units: int,
    net: nn.Module,
    data: TensorDataset,
    stopped: dict[str, Any],
    tmp_path: Path,
) -> None:
    with pytest.raises(EndedHereError):
        evaluate(net, data, out=tmp_path, watch=after(units), **SETTINGS)
    assert evaluate(net, data, out=tmp_path, **RULE, **SETTINGS) == stopped


def test_a_rule_that_comes_after_the_end(
    net: nn.Module, data: TensorDataset, stopped: dict[str, Any], tmp_path: Path
) -> None:
    whole = evaluate(net, data, out=tmp_path, **SETTINGS)
    assert whole["worst"]["count"] == 640
    assert evaluate(net, data, out=tmp_path, **RULE, **SETTINGS) == stopped
    assert evaluate(net, data, out=tmp_path, **SETTINGS) == whole


def test_rows_that_are_lost_beyond_the_look_change_nothing(
    net: nn.Module, data: TensorDataset, stopped: dict[str, Any], tmp_path: Path
) -> None:
    evaluate(net, data, out=tmp_path, **SETTINGS)
    last = sorted((tmp_path / "rows").rglob("*pgd10*/*.parquet"))
    assert last
    for file in last[len(last) // 2 :]:
        file.unlink()
    assert evaluate(net, data, out=tmp_path, **RULE, **SETTINGS) == stopped
