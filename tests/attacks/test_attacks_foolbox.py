"""PGD next to foolbox's: equal steps, step sizes and starts.

Rauber et al. 2017, arXiv:1707.04131.
"""

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks import L2, Ball, Linf, ascend, pgd
from rrl_dist.attacks.margins import cross_entropy
from tests.attacks.three_models import seeded

with warnings.catch_warnings():
    # An attack that is not used here imports a name that scipy has moved.
    warnings.simplefilter("ignore", DeprecationWarning)
    from foolbox.attacks import L2PGD, LinfPGD
    from foolbox.models.pytorch import PyTorchModel

Data = tuple[Tensor, Tensor]
ATTACKS = {"linf": LinfPGD, "l2": L2PGD}
both_balls = pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=Ball.label)


def foolbox(
    model: nn.Module,
    data: Data,
    ball: Ball,
    *,
    steps: int,
    relative_step: float,
    seed: int | None,
) -> Tensor:
    """Its last iterates; from the clean images without a seed."""
    attack = ATTACKS[ball.norm](
        steps=steps, rel_stepsize=relative_step, random_start=seed is not None
    )
    bounded = PyTorchModel(model, bounds=(0, 1), device="cpu")
    with seeded(seed or 0):
        x_adv: Tensor = attack(bounded, *data, epsilons=ball.eps)[1]
    return x_adv


def right_at(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return model(x).argmax(1) == y


def right(model: nn.Module, x: Tensor, y: Tensor) -> int:
    return int(right_at(model, x, y).sum())


@both_balls
def test_climbs_to_the_same_images_from_the_clean_ones(
    ball: Ball, trained: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    theirs = foolbox(trained, unseen, ball, steps=10, relative_step=0.25, seed=None)
    ours = ascend(
        lambda x: cross_entropy(trained(x), y),
        x,
        x,
        ball=ball,
        steps=10,
        step_size=0.25 * ball.eps,
    )
    assert (ball.distance(theirs, x) > 0.5 * ball.eps).all()
    same = ball.distance(ours, theirs) < 1e-4 * ball.eps
    # One sign of a gradient near zero sends an image another way.
    assert same.float().mean() > 0.97


@both_balls
@pytest.mark.parametrize("seed", range(3))
def test_leaves_as_many_images_as_foolbox(
    ball: Ball, seed: int, trained: nn.Module, unseen: Data
) -> None:
    """By the last iterate, as foolbox, within three standard errors: starts differ,
    and images that one start breaks and another does not are a coin's throws. `pgd`
    keeps the strongest of all iterates, and leaves no more than its last one does."""
    x, y = unseen
    settings = {"steps": 20, "relative_step": 0.25}
    theirs = foolbox(trained, unseen, ball, seed=seed, **settings)
    index = torch.arange(len(x))
    last = ascend(
        lambda x: cross_entropy(trained(x), y),
        ball.start(x, seed=seed, key=("pgd20", 0), index=index),
        x,
        ball=ball,
        steps=20,
        step_size=0.25 * ball.eps,
    )
    ours = pgd(trained, x, y, ball=ball, seed=seed, **settings)
    best, left, left_theirs = (right(trained, z, y) for z in (ours, last, theirs))
    print(ball.label(), "right", best, "by the last", left, "foolbox", left_theirs)
    assert left_theirs < right(trained, x, y) - 40
    chance = int((right_at(trained, last, y) != right_at(trained, theirs, y)).sum())
    assert chance <= 0.04 * len(x)
    assert abs(left - left_theirs) <= 3 * math.sqrt(chance)
    assert best <= left
