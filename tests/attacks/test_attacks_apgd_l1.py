"""Auto-PGD in an L1 ball, next to its authors' code."""

import pytest
import torch
from pyautoattack.autopgd_base import (
    APGDAttack,
    APGDAttack_targeted,
    L1_projection,
)
from torch import Tensor, nn

from rrl_dist.attacks import APGD, L1
from rrl_dist.attacks.l1 import project
from rrl_dist.attacks.margins import cross_entropy
from rrl_dist.attacks.sparse_climb import RADII, timetable
from rrl_dist.core.randomness import normal
from tests.longer import covering

Data = tuple[Tensor, Tensor]


def attack(eps: float, **changes: object) -> APGD:
    settings = {"loss": "ce", "steps": 100, "restarts": 1, "targets": 1}
    settings |= {"seed": 0, "micro_batch": 16, **changes}
    return APGD(ball=L1(eps), **settings)


def official(model: nn.Module, eps: float) -> APGDAttack:
    return APGDAttack(model, norm="L1", eps=eps, seed=0, use_largereps=True)


def test_walks_as_the_authors_code_from_one_start(
    trained: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    shift = normal(0, "apgd-ce", "shift", index=torch.arange(len(x)), n=64)
    start = x + shift.reshape(x.shape)
    reference = official(trained, 2.0)
    reference.init_hyperparam(x)
    for radius, steps in zip(RADII, (30, 30, 40), strict=True):
        reference.n_iter, reference.eps = steps, radius * 2.0
        start = start + L1_projection(x, start - x, reference.eps)
        start, right, _, _ = reference.attack_single_run(x, y, x_init=start)
    x_adv = attack(2.0)(trained, x, y)
    clean_wrong = trained(x).argmax(1) != y
    still_right = trained(x_adv).argmax(1) == y
    assert ((right.bool() & ~clean_wrong) != still_right).sum() <= 2
    ours = cross_entropy(trained(x_adv), y)[still_right]
    theirs = cross_entropy(trained(start), y)[still_right]
    same = torch.isclose(ours, theirs, rtol=1e-2, atol=1e-4)
    assert 30 < int(still_right.sum()) < 200
    assert same.float().mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "eps"), covering(["ce", "targeted-dlr"], [1.5, 2.5]))
def test_breaks_as_many_as_the_authors_code(
    eps: float, loss: str, trained: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    ours, theirs = [], []
    for seed in range(3):
        targets = 1 if loss == "ce" else 5
        x_adv = attack(eps, loss=loss, targets=targets, seed=seed)(trained, x, y)
        ours.append(int((trained(x_adv).argmax(1) == y).sum()))
        kind = APGDAttack if loss == "ce" else APGDAttack_targeted
        reference = kind(trained, norm="L1", eps=eps, seed=seed, use_largereps=True)
        reference.n_target_classes = targets
        right = trained(reference.perturb(x.clone(), y)).argmax(1) == y
        theirs.append(int(right.sum()))
    print("right under ours", ours, "under theirs", theirs)
    assert sum(ours) <= sum(theirs) + 2 * len(ours)
    assert max(ours) < int((trained(x).argmax(1) == y).sum()) - 40


def test_steps_are_shared_out_over_three_radii() -> None:
    table = timetable(100)
    radius, step, every, last = table.unbind(1)
    assert radius.tolist() == [3] * 31 + [2] * 31 + [1] * 41
    assert step.tolist() == [*range(31), *range(31), *range(41)]
    assert last.nonzero()[:, 0].tolist() == [30, 61, 102]
    assert set(every.tolist()) == {1}
    assert set(timetable(1000)[:, 2].tolist()) == {12, 16}
    for steps in range(1, 40):
        radius, step, _, last = timetable(steps).unbind(1)
        assert radius[-1] == 1
        assert (step > 0).sum() == steps
        assert last.sum() == len(radius.unique())


def test_an_image_of_a_wider_ball_does_not_count(
    trained: nn.Module, unseen: Data
) -> None:
    """Within three and two radii most are wrong; only what is inside is kept."""
    x, y = (column[:64] for column in unseen)
    for steps in (1, 2, 3, 20):
        found = attack(1.0, steps=steps, restarts=2).run(trained, x, y)
        distance = (found.x_adv.double() - x.double()).abs().flatten(1).sum(1)
        assert (distance <= 1.0 * (1 + 1e-6)).all()
        assert int((trained(found.x_adv).argmax(1) == y).sum()) > 30


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_same_bits_for_any_batch_and_order(
    batch: int, trained: nn.Module, unseen: Data
) -> None:
    x, y = (column[:64] for column in unseen)
    made = attack(2.0, loss="targeted-dlr", steps=10, targets=3, restarts=2, seed=1)
    whole = made.run(trained, x, y)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(batch))
    parts = [made.run(trained, x[i], y[i], i) for i in order.split(batch)]
    assert torch.equal(torch.cat([p.x_adv for p in parts]), whole.x_adv[order])
    assert torch.equal(torch.cat([p.queries for p in parts]), whole.queries[order])


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 50.0])
@pytest.mark.parametrize("pixels", [1, 5, 48])
def test_projection_is_the_nearest_point(scale: float, pixels: int) -> None:
    """It is feasible, and moves on as a projection must: (x - p) . (z - p) <= 0 for all
    feasible z, here the corners of ball and box along every pixel, and draws."""
    generator = torch.Generator().manual_seed(pixels)
    center = torch.rand(200, pixels, generator=generator)
    center[:50] = center[:50].round()
    x = center + scale * torch.randn(200, pixels, generator=generator)
    radius = 2.0 * torch.rand(200, generator=generator).double()
    found = project(x, center, radius)
    distance = (found.double() - center.double()).abs().sum(1)
    assert (distance <= radius * (1 + 1e-6)).all()
    assert found.min() >= 0
    assert found.max() <= 1
    away = (x - found).double()
    for _ in range(20):
        draw = torch.rand(200, pixels, generator=generator)
        delta = (draw - center).double()
        share = (radius / delta.abs().sum(1).clamp_min(1e-30)).clamp_max(1)
        z = center.double() + delta * share[:, None]
        slope = (away * (z - found.double())).sum(1)
        assert (slope <= 1e-5 * (1 + scale)).all()
    for pixel in range(pixels):
        for sign in (-1, 1):
            z = center.double().clone()
            z[:, pixel] = (z[:, pixel] + sign * radius).clamp(0, 1)
            slope = (away * (z - found.double())).sum(1)
            assert (slope <= 1e-5 * (1 + scale)).all()
