"""Every kind of attack, with few steps, for tests of what holds for all."""

from collections.abc import Callable

import pytest
from torch import Tensor

from rrl_dist.attacks import (
    APGD,
    FAB,
    L2,
    PGD,
    Attack,
    Ball,
    FeatureAttack,
    Linf,
    Search,
)
from rrl_dist.attacks.square import Square

Data = tuple[Tensor, Tensor]
Kind = Callable[..., Attack]


def pgd(ball: Ball, *, seed: int = 0, micro_batch: int = 64) -> Attack:
    return PGD(
        ball=ball,
        steps=5,
        relative_step=0.25,
        restarts=2,
        random_start=True,
        seed=seed,
        micro_batch=micro_batch,
    )


def apgd(ball: Ball, *, seed: int = 0, micro_batch: int = 64) -> Attack:
    return APGD(
        loss="ce",
        ball=ball,
        steps=12,
        restarts=2,
        targets=1,
        seed=seed,
        micro_batch=micro_batch,
    )


def feature(ball: Ball, *, seed: int = 0, micro_batch: int = 64) -> Attack:
    return FeatureAttack(
        ball=ball,
        steps=5,
        relative_step=0.25,
        restarts=2,
        seed=seed,
        micro_batch=micro_batch,
    )


def search(ball: Ball, *, seed: int = 0, micro_batch: int = 64) -> Attack:
    return Search(
        ball=ball,
        steps=10,
        relative_start=0.5,
        change=0.1,
        seed=seed,
        micro_batch=micro_batch,
    )


def square(ball: Ball, *, seed: int = 0, micro_batch: int = 64) -> Attack:
    return Square(
        ball=ball,
        queries=120,
        schedule=120,
        p_init=0.8,
        restarts=2,
        seed=seed,
        micro_batch=micro_batch,
    )


def fab(
    ball: Ball, *, seed: int = 0, micro_batch: int = 64, targets: int | None = None
) -> Attack:
    return FAB(
        ball=ball,
        steps=5,
        restarts=2,
        targets=targets,
        alpha_max=0.1,
        eta=1.05,
        beta=0.9,
        seed=seed,
        micro_batch=micro_batch,
    )


def fab_t(ball: Ball, *, seed: int = 0, micro_batch: int = 64) -> Attack:
    return fab(ball, seed=seed, micro_batch=micro_batch, targets=2)


KINDS = [pgd, apgd, feature, search, square]
every_kind = pytest.mark.parametrize("kind", [*KINDS, fab, fab_t])
# That it fools the head is nothing that the attack on features promises.
fooling = pytest.mark.parametrize("kind", [pgd, apgd, search, square, fab, fab_t])
# FAB begins at the clean image, and gives that back where it has not succeeded.
drawing = pytest.mark.parametrize("kind", KINDS)
every_ball = pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=Ball.label)
