"""The Square Attack next to its authors' code."""

import math
from dataclasses import replace

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from rrl_dist.attacks import L2, Ball, Linf
from rrl_dist.attacks.square import HALVINGS, levels
from tests.attacks.square_by_hand import P_INIT, share, square

Data = tuple[Tensor, Tensor]


def official(model: nn.Module, ball: Ball, queries: int) -> SquareAttack:
    norm = {"linf": "Linf", "l2": "L2"}[ball.norm]
    return SquareAttack(model, norm=norm, eps=ball.eps, n_queries=queries, seed=0)


@pytest.mark.parametrize(
    ("ball", "queries"),
    [
        (Linf(0.05), 300),
        (Linf(0.1), 300),
        (L2(0.3), 300),
        (L2(0.5), 300),
        pytest.param(Linf(0.1), 5000, marks=pytest.mark.slow),
        pytest.param(L2(0.5), 5000, marks=pytest.mark.slow),
    ],
)
def test_is_at_most_two_images_weaker_than_the_authors_code(
    ball: Ball, queries: int, trained: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    attack = square(ball, queries, size=128)
    ours = (trained(attack(trained, x, y)).argmax(1) == y).sum()
    x_adv = official(trained, ball, queries).perturb(x, y)
    theirs = (trained(x_adv).argmax(1) == y).sum()
    assert theirs < (trained(x).argmax(1) == y).sum() - 10
    assert ours <= theirs + 2


@pytest.mark.slow
@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=Ball.label)
def test_takes_no_more_queries_than_the_authors_code(
    ball: Ball, trained: nn.Module, unseen: Data
) -> None:
    """By a tenth at most, of the samples that each of 16 runs breaks."""
    right = trained(unseen[0]).argmax(1) == unseen[1]
    x, y = (column[right] for column in unseen)
    ours, theirs = [], []
    for seed in range(8):
        attack = replace(square(ball, 400, size=256), seed=seed)
        ours.append(attack.run(trained, x, y).queries - 1)
        reference = official(trained, ball, 399)
        reference.init_hyperparam(x)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            theirs.append(reference.attack_single_run(x.clone(), y)[0])
    queries = torch.stack([torch.stack(ours), torch.stack(theirs)]).float()
    broken = (queries < 400).all(0).all(0)
    assert broken.sum() > 30
    mean = queries[:, :, broken].log().mean((1, 2))
    assert mean[0] <= mean[1] + math.log(1.1)


def test_schedule_is_the_authors(trained: nn.Module) -> None:
    for queries in (10_000, 5_000, 1_000):
        theirs = official(trained, Linf(0.1), queries)
        made = torch.arange(queries)
        level = levels(made, queries).tolist()
        assert level[0] == 0
        for i in range(queries):
            assert share(i, queries) == P_INIT / 2 ** level[i]
            # They round a quotient of floats, which may fall short of a whole number.
            near = {theirs.p_selection(j) for j in (i, i + 1)}
            assert P_INIT / 2 ** level[i] in near
    assert levels(torch.tensor([9_999]), 10_000).item() == len(HALVINGS)
