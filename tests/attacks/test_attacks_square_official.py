"""The Square Attack next to its authors' code, at AutoAttack's schedule."""

import math
from dataclasses import replace

import pytest
import torch
from pyautoattack import AutoAttack as TheirAutoAttack
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from rrl_dist.attacks import L1, L2, Ball, Linf
from rrl_dist.attacks.square import HALVINGS, levels
from tests.attacks.square_by_hand import P_INIT, share, square
from tests.longer import long

Data = tuple[Tensor, Tensor]
SCHEDULE = 10_000  # AutoAttack's
SEEDS = 8
SOAK = (pytest.mark.slow, pytest.mark.long)
# Hard enough that the median image takes tens of queries.
HARD = [Linf(0.15), L2(0.5), L1(2.0)]


class Reaching(SquareAttack):
    """The authors' code, but with windows that reach the last row and column."""

    def random_int(
        self, low: int = 0, high: int = 1, shape: tuple[int, ...] = (1,)
    ) -> Tensor:
        return super().random_int(low, high + 1, shape)


def official(
    model: nn.Module,
    ball: Ball,
    queries: int,
    *,
    kind: type[SquareAttack] = SquareAttack,
    rescaled: bool = False,
) -> SquareAttack:
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}[ball.norm]
    return kind(
        model,
        norm=norm,
        eps=ball.eps,
        n_queries=queries,
        seed=0,
        resc_schedule=rescaled,
    )


@pytest.mark.parametrize(
    ("ball", "queries"),
    [
        (Linf(0.05), 300),
        (Linf(0.1), 300),
        (L2(0.3), 300),
        (L2(0.5), 300),
        (L1(0.7), 300),
        (L1(2.0), 300),
        pytest.param(Linf(0.1), 5000, marks=SOAK),
        pytest.param(L2(0.5), 5000, marks=SOAK),
        pytest.param(L1(1.0), 5000, marks=SOAK),
    ],
)
def test_is_no_weaker_than_the_authors_code(
    ball: Ball, queries: int, trained: nn.Module, unseen: Data
) -> None:
    """Within three standard errors: images that one run's draws break and the other's
    do not are a coin's throws."""
    x, y = unseen
    attack = square(ball, queries, schedule=SCHEDULE, size=128)
    ours = trained(attack(trained, x, y)).argmax(1) == y
    x_adv = official(trained, ball, queries).perturb(x, y)
    theirs = trained(x_adv).argmax(1) == y
    assert theirs.sum() < (trained(x).argmax(1) == y).sum() - 5
    chance = int((ours != theirs).sum())
    print("right", int(ours.sum()), int(theirs.sum()), "by one alone", chance)
    assert chance <= 0.12 * len(x)
    assert ours.sum() - theirs.sum() <= 3 * math.sqrt(chance)


def queries_taken(
    model: nn.Module, ball: Ball, data: Data, kind: type[SquareAttack]
) -> Tensor:
    """[2, SEEDS, N] by ours and theirs, of 400 at most, for images that the model is
    right about."""
    right = model(data[0]).argmax(1) == data[1]
    x, y = (column[right] for column in data)
    ours, theirs = [], []
    for seed in range(SEEDS):
        attack = replace(square(ball, 400, schedule=SCHEDULE, size=256), seed=seed)
        ours.append(attack.run(model, x, y).queries - 1)
        reference = official(model, ball, 399, kind=kind)
        reference.init_hyperparam(x)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            theirs.append(reference.attack_single_run(x.clone(), y)[0])
    return torch.stack([torch.stack(ours), torch.stack(theirs)]).float()


def medians(queries: Tensor) -> tuple[float, float]:
    """Ours and theirs, of the images that all runs break: another choice would count
    against an attack that it breaks the hard ones, too."""
    broken = (queries < 400).all(0).all(0)
    assert broken.sum() > 30
    ours, theirs = (float(taken[:, broken].median()) for taken in queries)
    return ours, theirs


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("ball", HARD, ids=Ball.label)
def test_takes_no_more_queries_than_the_authors_code(
    ball: Ball, trained: nn.Module, unseen: Data
) -> None:
    ours, theirs = medians(queries_taken(trained, ball, unseen, SquareAttack))
    assert theirs > 10
    assert ours <= 1.1 * theirs


@pytest.mark.slow
@pytest.mark.parametrize("ball", [HARD[0], *map(long, HARD[1:])], ids=Ball.label)
def test_is_the_authors_code_but_for_the_far_edges(
    ball: Ball, trained: nn.Module, unseen: Data
) -> None:
    """As many queries where theirs reaches the last row and column too, and as many
    images broken, within three standard errors: images that some seeds break and
    others do not are a coin's throws."""
    taken = queries_taken(trained, ball, unseen, Reaching)
    ours, theirs = medians(taken)
    assert ours == pytest.approx(theirs, rel=0.1)
    broken = taken < 400
    mean = broken.sum(2).float().mean(1)
    share = broken.float().mean((0, 1))
    error = float((2 * share * (1 - share) / SEEDS).sum().sqrt())
    assert error < 2
    assert float(mean[0]) == pytest.approx(float(mean[1]), abs=3 * error)


def test_rescaled_schedule_is_the_authors(trained: nn.Module) -> None:
    for queries in (10_000, 5_000, 1_000):
        theirs = official(trained, Linf(0.1), queries, rescaled=True)
        level = levels(torch.arange(queries), queries).tolist()
        assert level[0] == 0
        for i in range(queries):
            assert share(i, queries) == P_INIT / 2 ** level[i]
            # They round a quotient of floats, which may fall short of a whole number.
            near = {theirs.p_selection(j) for j in (i, i + 1)}
            assert P_INIT / 2 ** level[i] in near
    assert levels(torch.tensor([9_999]), 10_000).item() == len(HALVINGS)


def test_schedule_of_10_000_is_that_of_autoattack(trained: nn.Module) -> None:
    theirs = TheirAutoAttack(trained, norm="Linf", eps=0.1, seed=0).square
    assert theirs.n_queries == 5000
    level = levels(torch.arange(12_000), SCHEDULE).tolist()
    shares = [theirs.p_selection(made) for made in range(12_000)]
    assert shares == [P_INIT / 2**halved for halved in level]
    assert level[4_999] == 7
