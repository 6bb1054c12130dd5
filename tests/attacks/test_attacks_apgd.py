from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor, nn

from rrl_dist.attacks import APGD, L2, Ball, Linf
from rrl_dist.attacks.apgd import Climb, intervals
from rrl_dist.attacks.margins import cross_entropy
from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import Key

Data = tuple[Tensor, Tensor]
NAMES = {"linf": "Linf", "l2": "L2"}


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Images that are right, of 256."""
    return int((model(x).argmax(1) == y).sum())


def official(model: nn.Module, ball: Ball) -> APGDAttack:
    return APGDAttack(
        model, n_iter=100, norm=NAMES[ball.norm], eps=ball.eps, seed=0, loss="ce"
    )


@pytest.mark.parametrize(
    "ball", [Linf(0.05), Linf(0.1), L2(0.3), L2(0.5)], ids=Ball.label
)
def test_is_at_most_one_image_weaker_than_the_authors_code(
    ball: Ball, trained: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    attack = APGD(loss="ce", ball=ball, steps=100, restarts=1, seed=0, micro_batch=64)
    ours = accuracy(trained, attack(trained, x, y), y)
    theirs = accuracy(trained, official(trained, ball).perturb(x, y), y)
    assert theirs < accuracy(trained, x, y) - 15
    assert ours <= theirs + 1


def start_of_both(ball: Ball, center: Tensor) -> Tensor:
    """A start that depends on the image alone, on the ball's surface."""
    shift = torch.sin(1e4 * center) + 0.1
    return ball.project(center + 10 * ball.eps * shift, center)


@dataclass(frozen=True)
class FixedLinf(Linf):
    def surface_start(
        self, center: Tensor, *, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        return start_of_both(self, center)


@dataclass(frozen=True)
class FixedL2(L2):
    def surface_start(
        self, center: Tensor, *, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        return start_of_both(self, center)


@pytest.mark.parametrize("ball", [FixedLinf(0.1), FixedL2(0.5)], ids=Ball.label)
def test_walks_as_the_authors_code_from_one_start(
    ball: Ball, trained: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    reference = official(trained, ball)
    reference.init_hyperparam(x)
    top, right, _, _ = reference.attack_single_run(x, y, start_of_both(ball, x))
    attack = APGD(loss="ce", ball=ball, steps=100, restarts=1, seed=0, micro_batch=64)
    x_adv = attack(trained, x, y)
    clean_wrong = trained(x).argmax(1) != y
    still_right = trained(x_adv).argmax(1) == y
    assert ((right.bool() & ~clean_wrong) != still_right).sum() <= 1
    ours = cross_entropy(trained(x_adv), y)[still_right]
    theirs = cross_entropy(trained(top), y)[still_right]
    same = torch.isclose(ours, theirs, rtol=1e-3, atol=1e-5)
    assert same.float().mean() > 0.97


def test_checkpoints_are_the_papers() -> None:
    lengths = list(intervals(100))
    assert torch.tensor(lengths).cumsum(0).tolist() == [
        *(22, 41, 57, 70, 80, 87, 93, 99),  # 100 p_j
        100,
    ]
    for steps in range(1, 60):
        assert sum(intervals(steps)) == steps
        assert min(intervals(steps)) > 0


def test_step_size_is_halved_on_the_papers_two_conditions() -> None:
    column = torch.arange(4.0)[:, None]
    climb = Climb.begin(
        center=column,
        y=torch.zeros(4, dtype=torch.int64),
        x=column,
        value=torch.zeros(4),
        grad=column,
        step_size=torch.ones(4),
    )
    climb = climb.at(column + 10, torch.tensor([1.0, 1.0, -1.0, -1.0]), column + 20)
    # Of 10 steps 7 rise: too few. Rows 2 and 3 are no better than at the start.
    first = climb.checkpoint(torch.tensor([8.0, 7.0, 8.0, 7.0]), 10)
    assert first.halved.tolist() == [False, True, False, True]
    assert first.step_size.tolist() == [1.0, 0.5, 1.0, 0.5]
    # Halved rows are back at their top: row 1 at its second point, row 3 at the first.
    assert first.x[:, 0].tolist() == [10.0, 11.0, 12.0, 3.0]
    assert first.grad[:, 0].tolist() == [20.0, 21.0, 22.0, 3.0]
    # Enough steps rise, none to a new top; where the step was halved just now it stays.
    second = first.checkpoint(torch.full((4,), 8.0), 10)
    assert second.halved.tolist() == [True, False, True, False]
    assert second.step_size.tolist() == [0.5, 0.5, 0.5, 0.5]
    # Three of four is still too few, as in the authors' code.
    assert first.checkpoint(torch.full((4,), 9.0), 12).halved.all()
    third = second.at(column, torch.full((4,), 9.0), column)
    assert not third.checkpoint(torch.full((4,), 8.0), 10).halved.any()


class Ramp(nn.Module):
    """Class 0 loses to class 1 above a mean pixel of `edge`."""

    def __init__(self, edge: float) -> None:
        super().__init__()
        self.edge = edge

    def forward(self, x: Tensor) -> Tensor:
        score = self.edge - x.flatten(1).mean(1)
        return torch.stack([score, torch.zeros_like(score)], 1)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.4)], ids=Ball.label)
def test_finds_the_best_corner_and_stops_at_a_success(ball: Ball) -> None:
    x = torch.full((1, 1, 4, 4), 0.5)  # L2: 16 pixels that move by 0.4 / 4 each
    y = torch.zeros(1, dtype=torch.int64)
    attack = APGD(loss="ce", ball=ball, steps=100, restarts=2, seed=0, micro_batch=1)
    robust = attack.run(Ramp(0.7), x, y)
    torch.testing.assert_close(robust.x_adv, x + 0.1, rtol=0, atol=1e-4)
    assert robust.queries.item() == 1 + 2 * 101
    fooled = attack.run(Ramp(0.59), x, y)
    assert fooled.x_adv.mean() >= 0.59
    assert fooled.queries.item() <= 1 + 1 + 22
    assert attack.run(Ramp(0.4), x, y).queries.item() == 1


def test_restarts_only_touch_what_is_right(trained: nn.Module, unseen: Data) -> None:
    x, y = unseen
    once, thrice = (
        APGD(
            loss="ce", ball=Linf(0.1), steps=10, restarts=r, seed=0, micro_batch=64
        ).run(trained, x, y)
        for r in (1, 3)
    )
    wrong = trained(once.x_adv).argmax(1) != y
    assert torch.equal(thrice.x_adv[wrong], once.x_adv[wrong])
    assert torch.equal(thrice.queries[wrong], once.queries[wrong])
    assert (thrice.queries[~wrong] > once.queries[~wrong]).all()
    before, after = (cross_entropy(trained(a.x_adv), y)[~wrong] for a in (once, thrice))
    assert (after > before).any()


@pytest.mark.parametrize("name", ["steps", "restarts", "micro_batch"])
def test_impossible_settings_are_refused(name: str) -> None:
    settings = {"steps": 10, "restarts": 1, "micro_batch": 8, name: 0}
    with pytest.raises(UserError, match=f"{name}=0"):
        APGD(loss="ce", ball=Linf(0.1), seed=0, **settings)
