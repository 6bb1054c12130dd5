"""What is measured for a verdict, and what rows say of each image."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.attacks import L1, L2, Ball, Linf
from rrl_dist.attacks.passes import Costed
from rrl_dist.core.columns import Columns
from rrl_dist.evaluate.calls import ball_config
from rrl_dist.evaluate.plan import Suite, build_suite
from rrl_dist.evaluate.suites import suite_config
from rrl_dist.evaluate.verdict.evidence import evidence_of, full_parts, kind_of
from rrl_dist.evaluate.verdict.planned import SHARE, planned, prober_of
from rrl_dist.evaluate.verdict.probes import (
    QUERIES,
    STEPS,
    Prober,
    Probes,
    growing,
    work_of_probes,
)
from tests.evaluate.jobs import columns, made
from tests.evaluate.test_verdict_checks import HONEST

SIZE, BALL = 16, Linf(0.08)


class Net(nn.Module):
    """Of 4 x 4 images, with a batch norm and a kink."""

    def __init__(self, last: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.norm = nn.BatchNorm2d(3)
        self.first, self.second = nn.Linear(48, 24), nn.Linear(24, 4)
        with torch.no_grad():
            for layer in (self.first, self.second):
                nn.init.normal_(layer.weight, std=0.4, generator=generator)
                layer.bias.zero_()
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.second(self.first(self.norm(x).flatten(1)).relu())
        return logits if self.last is None else self.last(logits)


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor, Tensor]:
    """22 images, of which the network is right about all but the first two."""
    x = torch.rand(22, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = Net().eval()(x).argmax(1)
    y[:2] = (y[:2] + 1) % 4
    return x, y, torch.arange(22) + 100


Images = tuple[Tensor, Tensor, Tensor]


def measured(model: nn.Module, rows: Images, ball: Ball = BALL) -> Probes:
    return Prober(model, ball, 0, SIZE, square=True).measure(*rows)


@pytest.fixture(scope="module")
def honest(images: Images) -> Probes:
    return measured(Net().eval(), images)


def test_losses_are_those_of_steps_taken_one_by_one(
    honest: Probes, images: Images
) -> None:
    model = Net().eval()
    assert honest.right == [False] * 2 + [True] * 20
    for place, (x, y, _) in enumerate(zip(*images, strict=True)):
        if place < 2:
            continue
        x, y = x[None], y[None]
        at, losses = x.clone(), []
        for step in range(STEPS + 1):
            at.requires_grad_()
            loss = F.cross_entropy(model(at), y)
            (grad,) = torch.autograd.grad(loss, at)
            losses.append(loss.item())
            if step == 0:
                once = (x + BALL.eps * grad.sign()).clamp(0, 1)
                one = F.cross_entropy(model(once), y).item()
            moved = at.detach() + 0.25 * BALL.eps * grad.sign()
            at = (x + (moved - x).clamp(-BALL.eps, BALL.eps)).clamp(0, 1)
        row = place - 2
        assert honest.clean[row] == pytest.approx(losses[0], rel=1e-4, abs=1e-6)
        assert honest.one[row] == pytest.approx(one, rel=1e-4, abs=1e-6)
        assert honest.many[row] == pytest.approx(max(losses), rel=1e-4, abs=1e-6)
    assert not any(honest.still)
    assert honest.change == 0
    assert (honest.forward, honest.backward) > (QUERIES, 20 * STEPS)


def test_an_image_is_judged_alike_beside_any_others(
    honest: Probes, images: Images
) -> None:
    order = torch.randperm(22, generator=torch.Generator().manual_seed(1))[:13]
    part = measured(Net().eval(), tuple(column[order] for column in images))  # type: ignore[arg-type]
    place = {sample: row for row, sample in enumerate(_right(honest))}
    rows = [place[sample] for sample in _right(part)]
    for name in ("still", "clean", "one", "many", "left", "square"):
        whole = getattr(honest, name)
        assert getattr(part, name) == [whole[row] for row in rows]


def _right(probes: Probes) -> list[int]:
    pairs = zip(probes.index, probes.right, strict=True)
    return [sample for sample, right in pairs if right]


def test_the_model_is_given_back_as_it_was(images: Images) -> None:
    model = Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured(model, images)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_what_hides_gradients_is_seen(images: Images) -> None:
    saturated = measured(Net(lambda z: 1e5 * z).eval(), images)
    assert all(saturated.still)
    assert saturated.many == saturated.clean == [0.0] * 20
    # Noise: the place of the draw is the call's.
    noisy = measured(Net(lambda z: z + 0.2 * torch.randn_like(z)).eval(), images)
    assert noisy.change > 0.01
    # Without a graph there is nothing to be climbed, and Square is asked all the same.
    blind = measured(Net(lambda z: z.detach()).eval(), images)
    assert not blind.differentiable
    assert blind.still == blind.many == blind.radii == []
    assert blind.square is not None
    assert len(blind.square) == 20
    probabilities = measured(Net(lambda z: 50 * z.softmax(1)).eval(), images)
    assert probabilities.smallest >= 0
    assert probabilities.sums < 1e-5


@pytest.mark.filterwarnings("ignore:the model returned infinite")
def test_infinite_logits_are_told_as_numbers(images: Images) -> None:
    huge = measured(Net(lambda z: 1e38 * z).eval(), images)
    assert np.isfinite([*huge.clean, *huge.many, huge.largest, huge.change]).all()


@pytest.mark.parametrize(
    ("ball", "norm", "first", "last"),
    [
        (Linf(0.008), "linf", 0.04, 1.0),
        (L2(2.0), "l2", 2 * 2 ** (1 / 3), 4.0),
        (L1(1.0), "l2", 16 ** (1 / 3) / 4, 4.0),
    ],
)
def test_the_last_radius_holds_all_images(
    ball: Ball, norm: str, first: float, last: float
) -> None:
    balls = growing(ball, pixels=16)
    assert [each.norm for each in balls] == [norm] * 3
    assert (balls[0].eps, balls[-1].eps) == pytest.approx((first, last))
    corner, other = torch.zeros(1, 16), torch.ones(1, 16)
    assert float(balls[-1].distance(corner, other)) <= last + 1e-6
    assert growing(Linf(1.0), pixels=16) == []


composed = cache(suite_config)


def suite_of(name: str, ball: Ball = BALL) -> Suite:
    return build_suite(composed(name), ball_config(ball), seed=0)


@pytest.mark.parametrize("name", ["pgd20", "quick", "autoattack", "autoattack_rand"])
def test_passes_are_what_the_suite_says(name: str) -> None:
    """Of all attacks, whether they are made in turn or at other radii."""
    suite, job = suite_of(name), {"verdict": "auto", "verdict_images": 64}
    parts = full_parts(suite)
    costs = [part.cost(10) for part in parts if isinstance(part, Costed)]
    each = sum(cost.forward + cost.backward for cost in costs)
    square = all(kind_of(part) == "white" for part in parts)
    enough = 64 * work_of_probes(square=square) / (SHARE * each)
    few, many = int(enough * 0.95), int(enough * 1.05) + 1
    if few > 64:  # else fewer images are measured, too
        assert planned(job, suite, samples=few, classes=10) is None
    found = planned(job, suite, samples=max(many, 64), classes=10)
    assert found is not None
    assert found.count == 64


@pytest.mark.parametrize(
    ("job", "suite", "eps"),
    [
        ({}, "quick", 0.1),
        ({"verdict": False, "verdict_images": 64}, "quick", 0.1),
        ({"verdict": True, "verdict_images": 64}, "corruptions", 0.1),
        ({"verdict": True, "verdict_images": 64}, "quick", 0.0),
    ],
)
def test_what_claims_no_robustness_has_no_verdict(
    job: dict[str, Any], suite: str, eps: float
) -> None:
    found = suite_of(suite, Linf(eps))
    assert planned(job, found, samples=10_000, classes=10) is None


def test_square_is_asked_where_the_suite_does_not() -> None:
    asked = {
        name: prober_of(suite_of(name), Net(), 0, SIZE).square
        for name in ("quick", "sweep", "autoattack", "autoattack_rand")
    }
    assert asked == {
        "quick": True,
        "sweep": False,
        "autoattack": False,
        "autoattack_rand": True,
    }


def of_rows(name: str, broken_by: dict[int, str]) -> Columns:
    """Ten images, of one component of several attacks in turn."""
    rows = [
        replace(made(i, name, i not in broken_by), broken_by=broken_by.get(i))
        for i in range(10)
    ]
    return columns(rows)[name]


def test_of_attacks_in_turn_each_has_what_it_broke() -> None:
    suite = suite_of("autoattack")
    (name,) = set(suite.full) - {"clean"}
    broken = {0: "clean", 1: "apgd-ce", 2: "fab-t", 3: "square", 4: "square"}
    clean = {"clean": columns([made(i, "clean", i > 0) for i in range(10)])["clean"]}
    found = evidence_of(HONEST, {**clean, name: of_rows(name, broken)}, suite)
    assert found.white is not None
    assert found.black is not None
    assert np.flatnonzero(found.white).tolist() == [1, 2]
    assert np.flatnonzero(found.black).tolist() == [3, 4]
    assert (found.alone, found.scale_free, found.averaged) == (False, True, False)
    assert found.transferred is found.curve is None
    # Square first: what the others would have done is not known.
    attack: Any = suite.attacks[name]
    attacks = {**suite.attacks, name: attack.reordered(["square", *attack.names[1:-1]])}
    rows = {**clean, name: of_rows(name, broken)}
    found = evidence_of(HONEST, rows, replace(suite, attacks=attacks))
    assert found.black is None


def test_attacks_side_by_side_are_put_together() -> None:
    suite = suite_of("sweep")
    broken = {"apgd-ce": {1, 2}, "apgd-t": {2, 3}, "square": {4}, "pgd20": {5}}
    rows = {}
    for name in suite.attacks:
        wrong = {0} | broken.get(name.rpartition("-linf")[0], set())
        rows |= columns([made(i, name, i not in wrong) for i in range(10)])
    found = evidence_of(HONEST, rows, suite)
    assert found.white is not None
    assert found.black is not None
    assert found.curve is not None
    assert np.flatnonzero(found.white).tolist() == [0, 1, 2, 3, 5]
    assert np.flatnonzero(found.black).tolist() == [0, 4]
    assert np.flatnonzero(found.right).tolist() == list(range(1, 10))
    assert found.curve.shape == (3, 10)
    assert found.alone
    rand = suite_of("autoattack_rand")
    (name,) = set(rand.full) - {"clean"}
    some = {"clean": rows["clean"], name: of_rows(name, {})}
    assert evidence_of(HONEST, some, rand).averaged
