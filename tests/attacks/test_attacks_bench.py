"""`rrl bench attack`: what it measures, and what it refuses."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks import Linf
from rrl_dist.cli.bench_attack import bench_attack
from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.attack_bench import (
    THEIRS,
    Case,
    compare,
    measured,
    sentence,
    theirs,
)
from tests.composing import compose

ROOT = Path(__file__).parents[2]
Data = tuple[Tensor, Tensor]


@pytest.fixture
def case(model: nn.Module, unseen: Data) -> Case:
    """A ball in which the first attack leaves nothing right."""
    x, y = (column[:16] for column in unseen)
    return Case(model, x, y, Linf(0.6), "standard", 0, 16)


def test_all_are_run_in_turn_and_judged_alike(case: Case) -> None:
    state, told = torch.random.get_rng_state(), []
    found = compare(case, ["fp32", "bf16"], 2, told.append)
    assert torch.equal(torch.random.get_rng_state(), state)
    order = [line.split()[2] for line in told]
    assert order == [THEIRS, "fp32", "bf16", "fp32", "bf16", THEIRS]
    for name, one in found.items():
        assert len(one["runs"]) == 2
        for run in one["runs"]:
            assert run["robust"] == 0
            assert run["wrong"] == tuple(range(16))
            assert run["forward"] > 1
            assert run["backward"] > 1
        assert ("ratio" in one) == (name != THEIRS)
    ratio = found["fp32"]["ratio"]
    assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
    about = {"images": 16, "threads": 1, "model": "M", "ball": case.ball.label()}
    quoted = sentence({**about, "contenders": found})
    assert "leaves 0 of 16 right" in quoted
    assert f"{ratio['median']:.2f}" in quoted


def test_images_that_are_outside_are_no_comparison(case: Case) -> None:
    ours = measured(case, lambda model, x, y: x)
    assert ours.robust + len(ours.wrong) == 16
    with pytest.raises(UserError, match="outside the ball"):
        measured(case, lambda model, x, y: x + 0.61)


def test_what_cannot_be_compared_is_told_first(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="rounds=0"):
        compare(case, ["fp32"], 0)
    with pytest.raises(UserError, match="precision=fp8"):
        compare(case, ["fp8"], 1)
    with pytest.raises(UserError, match=r"attack\.artefact is not set"):
        bench_attack(compose("bench_attack"), "")
    monkeypatch.setitem(sys.modules, "pyautoattack.autoattack", None)
    with pytest.raises(UserError, match="pip install"):
        theirs(case)


def test_the_pages_quote_what_was_measured() -> None:
    found = json.loads((ROOT / "docs/attacks-bench.json").read_text())
    for page in ("README.md", "docs/attacks.md"):
        assert sentence(found) in " ".join((ROOT / page).read_text().split())
    ours = [run for name, told in found["contenders"].items() for run in told["runs"]]
    right = [run["robust"] for run in ours]
    assert max(right) - min(right) <= 1
