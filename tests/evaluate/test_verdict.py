"""The verdict on networks that hide gradients, and on such that are robust."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from rrl_dist.attacks import PGD, Attack, Linf, Transfer
from rrl_dist.attacks.transfer import MI_FGSM
from rrl_dist.core.columns import Columns
from rrl_dist.evaluate import evaluate
from rrl_dist.evaluate.plan import Suite
from rrl_dist.evaluate.verdict.checks import transfer
from rrl_dist.evaluate.verdict.evidence import evidence_of
from tests.evaluate.jobs import columns, made
from tests.evaluate.masked import digits, held_out, masked_networks, robust_networks
from tests.evaluate.test_verdict_checks import HONEST

pytestmark = pytest.mark.slow
IMAGES = 64
ROBUST = ("convolutional, Linf", "smooth, L2", "dense, Linf")
# By network the checks that fail; others may, too.
MASKED = {
    "saturated logits": {"zero_gradients", "more_steps", "growing_radius"},
    "8-level input": {"zero_gradients", "more_steps", "growing_radius"},
    "noise layer": {"randomized"},
}


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    robust = robust_networks(digits())
    return robust | masked_networks(robust[ROBUST[0]])


def judged(model: nn.Module, out: Path, **settings: Any) -> dict[str, Any]:
    data = held_out(digits(), IMAGES)
    told: dict[str, Any] = {"suite": "quick", "ball": Linf(0.1), "threads": 1}
    return evaluate(model, data, out=out, verdict=True, **{**told, **settings})


@pytest.mark.parametrize("name", ROBUST)
def test_adversarially_trained_networks_pass(
    name: str, networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    found = judged(networks[name], tmp_path)
    for check, each in found["verdict"]["checks"].items():
        print(name, check, each["level"], each["told"])
    # Else there is nothing to be told apart.
    assert found["components"]["clean"]["value"] > 0.8
    assert 0.2 < found["worst"]["value"] < found["components"]["clean"]["value"]
    assert found["verdict"]["level"] == "pass"


@pytest.mark.parametrize("name", MASKED)
def test_networks_that_hide_gradients_fail(
    name: str, networks: dict[str, nn.Module], tmp_path: Path
) -> None:
    verdict = judged(networks[name], tmp_path)["verdict"]
    for check, each in verdict["checks"].items():
        print(name, check, each["level"], each["told"])
    failed = {k for k, each in verdict["checks"].items() if each["level"] == "fail"}
    assert verdict["level"] == "fail"
    assert failed >= MASKED[name]
    assert all(verdict["checks"][check]["stronger"] for check in failed)


@pytest.mark.parametrize(
    ("name", "expected"), [("8-level input", "fail"), ("dense, Linf", "ok")]
)
def test_images_of_another_network_break_what_hides_its_gradients(
    name: str, expected: str, networks: dict[str, nn.Module]
) -> None:
    """Made on the network that is behind the rounding, and on another that is not."""
    model, source = networks[name], networks["convolutional, Linf"]
    settings: dict[str, Any] = {"ball": Linf(0.1), "seed": 0, "micro_batch": 32}
    own = PGD(steps=10, relative_step=0.25, restarts=1, random_start=True, **settings)
    theirs = Transfer(surrogate=source, source="it", attack=MI_FGSM, **settings)
    x, y = held_out(digits(), IMAGES).tensors
    attacks: dict[str, Attack | None] = {"clean": None, "own": own, "theirs": theirs}
    rows = {
        k: answers(model, a(model, x, y) if a else x, y) for k, a in attacks.items()
    }
    suite = Suite(attacks, tuple(attacks), (), (), None, "own")
    found = transfer.check(evidence_of(HONEST, rows, suite))
    assert found is not None
    print(name, found.told)
    assert found.level.word == expected


def answers(model: nn.Module, x: Tensor, y: Tensor) -> Columns:
    right = (model(x).argmax(1) == y).tolist()
    return columns([made(i, "x", ok) for i, ok in enumerate(right)])["x"]
