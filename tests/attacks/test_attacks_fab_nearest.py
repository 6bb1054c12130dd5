"""The distances that the fast adaptive boundary attack finds."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks import L2, Ball, Linf
from rrl_dist.attacks.fab import nearest
from rrl_dist.attacks.hyperplane import Hyperplane
from tests.attacks.fab_by_hand import (
    Data,
    aims,
    every_ball,
    fab,
    linear,
    literal_fab,
    official,
    wrong,
)


@every_ball
def test_distances_are_those_of_the_authors_code(
    ball: Ball, trained: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    right = ~wrong(trained, x, y)
    attack = fab(ball)
    x_adv, found = nearest(attack, trained, x, y)
    theirs = official(trained, attack).attack_single_run(x, y)
    distance = ball.distance(theirs, x)
    both = right & wrong(trained, theirs, y) & wrong(trained, x_adv, y)
    assert both.sum() >= right.sum() - 2
    torch.testing.assert_close(found[both], ball.distance(x_adv, x)[both])
    ratio = (found / distance)[both]
    assert abs(found[both].median() / distance[both].median() - 1) < 0.02
    # The last visits, which theirs has not, may be nearer.
    assert (ratio < 1.001).float().mean() > 0.97
    assert (ratio > 0.999).float().mean() > 0.85


@every_ball
@pytest.mark.parametrize(("classes", "targets"), [(2, None), (2, 9), (5, None), (5, 4)])
def test_finds_the_distance_of_a_linear_model(
    classes: int, targets: int | None, ball: Ball
) -> None:
    model = linear(classes, 64)
    generator = torch.Generator().manual_seed(0)
    # Far from black and white, which would keep an image from the nearest wrong one.
    x = 0.5 + 0.01 * torch.randn(40, 1, 8, 8, generator=generator)
    logits = model(x)
    y, rows = logits.argmax(1), x.flatten(1)
    exact = torch.full((40,), torch.inf)
    for k in range(classes):
        w = model[1].weight[k] - model[1].weight[y]
        plane = Hyperplane.of(
            rows, w, logits[:, k] - logits.gather(1, y[:, None])[:, 0]
        )
        shift = plane.shift(rows, ball.norm)
        size = ball.distance(shift, torch.zeros_like(shift))
        exact = torch.where(y == k, exact, torch.minimum(exact, size))
    x_adv, found = nearest(fab(ball, targets=targets), model, x, y)
    assert (model(x_adv).argmax(1) != y).all()
    assert (found >= exact * (1 - 1e-5)).all()
    # Beyond the boundary by 1.05 times the rest that a step back has left.
    assert (found <= exact * 1.006).all()


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=Ball.label)
@aims
def test_equals_a_literal_loop_over_samples(
    ball: Ball, targets: int | None, trained: nn.Module, unseen: Data
) -> None:
    x, y = (column[:12] for column in unseen)
    attack = fab(ball, steps=12, targets=None if targets is None else 1)
    _, found = nearest(attack, trained, x, y)
    for i in range(12):
        order = trained(x[[i]])[0].argsort(descending=True).tolist()
        if order[0] != y[i]:
            assert found[i] == 0
            continue
        rivals = order[1:] if targets is None else order[1:2]
        least = literal_fab(trained, attack, x[[i]], int(y[i]), rivals)
        assert float(found[i]) == pytest.approx(least, rel=1e-3)


def test_more_trials_are_never_further(trained: nn.Module, unseen: Data) -> None:
    x, y = (column[:64] for column in unseen)
    attack = fab(L2(0.5), targets=2, steps=8)
    one, two, many = (
        nearest(replace(attack, **change), trained, x, y)[1]
        for change in ({"targets": 1}, {}, {"restarts": 2})
    )
    assert (two <= one).all()
    assert (two < one).any()
    assert (many <= two).all()
    assert (many < two).any()
    moved = nearest(replace(attack, restarts=2, seed=4), trained, x, y)[1]
    assert (moved != many).any()


def test_what_is_wrong_is_its_own_nearest(trained: nn.Module, unseen: Data) -> None:
    x = unseen[0][:20]
    y = (trained(x).argmax(1) + 1) % 10
    x_adv, distance = nearest(fab(Linf(0.1)), trained, x, y)
    assert torch.equal(x_adv, x)
    assert not distance.any()


class Unmoved(nn.Module):
    """Class 0 everywhere, without a slope but with a graph."""

    def forward(self, x: Tensor) -> Tensor:
        flat = 0 * x.flatten(1).sum(1)
        return torch.stack([flat + 2, flat, flat], 1)


@every_ball
@aims
def test_a_flat_model_stays_right(ball: Ball, targets: int | None) -> None:
    x = torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(5, dtype=torch.int64)
    attack = fab(ball, targets=targets)
    assert torch.equal(attack(Unmoved(), x, y), x)
    x_adv, distance = nearest(attack, Unmoved(), x, y)
    assert torch.equal(x_adv, x)
    assert (distance == torch.inf).all()


class Scaled(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.change = linear(3, 16), change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.linear(x))


@every_ball
@aims
@pytest.mark.parametrize("big", [1e-36, 1e36, torch.inf])
def test_logits_of_any_size_give_images(
    ball: Ball, targets: int | None, big: float
) -> None:
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = Scaled(lambda z: z)
    y = plain(x).argmax(1)
    attack = fab(ball, targets=targets)
    if big == torch.inf:
        sure = Scaled(lambda z: torch.cat([z[:, :1] * big, z[:, 1:]], 1))
        with pytest.warns(UserWarning, match="infinite logits"):
            x_adv = attack(sure, x, sure(x).argmax(1))
        assert x_adv.isfinite().all()
        assert (ball.distance(x_adv, x) <= ball.eps * (1 + 1e-6)).all()
        return
    found = nearest(attack, Scaled(lambda z: big * z), x, y)[1]
    torch.testing.assert_close(
        found, nearest(attack, plain, x, y)[1], rtol=1e-3, atol=0
    )
