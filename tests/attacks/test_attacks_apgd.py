from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from rrl_dist.attacks import APGD, L2, Ball, Linf
from rrl_dist.attacks.climb import Climb, intervals
from rrl_dist.attacks.margins import cross_entropy
from rrl_dist.attacks.trials import Samples
from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import Key
from tests.longer import covering

Data = tuple[Tensor, Tensor]
NAMES = {"linf": "Linf", "l2": "L2"}


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> int:
    """Images that are right, of 256."""
    return int((model(x).argmax(1) == y).sum())


SETTINGS: dict[str, Any] = {
    "steps": 100,
    "restarts": 1,
    "targets": 1,
    "seed": 0,
    "micro_batch": 64,
}


def official(model: nn.Module, ball: Ball, loss: str, seed: int = 0) -> APGDAttack:
    return APGDAttack(
        model, n_iter=100, norm=NAMES[ball.norm], eps=ball.eps, seed=seed, loss=loss
    )


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=Ball.label)
def test_targets_are_at_most_one_image_weaker_than_the_authors_code(
    ball: Ball, trained: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    settings = {**SETTINGS, "targets": 9, "steps": 20}
    attack = APGD(loss="targeted-dlr", ball=ball, **settings)
    ours = accuracy(trained, attack(trained, x, y), y)
    reference = APGDAttack_targeted(
        trained, n_iter=20, norm=NAMES[ball.norm], eps=ball.eps, seed=0
    )
    theirs = accuracy(trained, reference.perturb(x, y), y)
    assert theirs < accuracy(trained, x, y) - 15
    assert ours <= theirs + 1


@pytest.mark.parametrize(
    ("ball", "loss"),
    covering([Linf(0.05), Linf(0.1), L2(0.5), L2(0.3)], ["ce", "dlr"]),
)
def test_is_at_most_one_image_weaker_than_the_authors_code(
    ball: Ball, loss: str, trained: nn.Module, unseen: Data
) -> None:
    """In the mean over seeds: one seed's draws are worth an image or two."""
    x, y = unseen
    ours, theirs = [], []
    for seed in range(3):
        attack = APGD(loss=loss, ball=ball, **{**SETTINGS, "seed": seed})
        ours.append(accuracy(trained, attack(trained, x, y), y))
        reference = official(trained, ball, loss, seed)
        theirs.append(accuracy(trained, reference.perturb(x, y), y))
    assert max(theirs) < accuracy(trained, x, y) - 15
    assert sum(ours) <= sum(theirs) + 3


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
    reference = official(trained, ball, "ce")
    reference.init_hyperparam(x)
    top, right, _, _ = reference.attack_single_run(x, y, start_of_both(ball, x))
    attack = APGD(
        loss="ce", targets=1, ball=ball, steps=100, restarts=1, seed=0, micro_batch=64
    )
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
    zero = torch.zeros(4, dtype=torch.int64)
    samples = Samples(column, zero, zero, torch.zeros(4, 2))
    climb = Climb.begin(samples, zero, column, 1.0)
    climb = climb.at(column, torch.zeros(4), column)
    assert climb.steps.tolist() == climb.rises.tolist() == [0, 0, 0, 0]
    climb = climb.at(column + 10, torch.tensor([1.0, 1.0, -1.0, -1.0]), column + 20)
    assert climb.rises.tolist() == [1, 1, 0, 0]

    def checked(climb: Climb, *rises: int, length: int = 10) -> Climb:
        return climb._replace(rises=torch.tensor(rises)).checkpoint(zero + length)

    # Of 10 steps 7 rise: too few. Rows 2 and 3 are no better than at the start.
    first = checked(climb, 8, 7, 8, 7)
    assert first.halved.tolist() == [False, True, False, True]
    assert first.step_size.tolist() == [1.0, 0.5, 1.0, 0.5]
    assert first.rises.tolist() == [0, 0, 0, 0]
    # Halved rows are back at their top: row 1 at its second point, row 3 at the first.
    assert first.x[:, 0].tolist() == [10.0, 11.0, 12.0, 3.0]
    assert first.grad[:, 0].tolist() == [20.0, 21.0, 22.0, 3.0]
    # Enough steps rise, none to a new top; where the step was halved just now it stays.
    second = checked(first, 8, 8, 8, 8)
    assert second.halved.tolist() == [True, False, True, False]
    assert second.step_size.tolist() == [0.5, 0.5, 0.5, 0.5]
    # Three of four is still too few, as in the authors' code.
    assert checked(first, 9, 9, 9, 9, length=12).halved.all()
    third = second.at(column, torch.full((4,), 9.0), column)
    assert not checked(third, 8, 8, 8, 8).halved.any()
    # Between checkpoints nothing changes.
    between = third.checkpoint(zero)
    pairs = zip(between, third, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


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
    attack = APGD(
        loss="ce", targets=1, ball=ball, steps=100, restarts=2, seed=0, micro_batch=1
    )
    robust = attack.run(Ramp(0.7), x, y)
    # What is raised is the mean; along the surface it is flat at its top.
    assert robust.x_adv.mean() == pytest.approx(0.6, abs=1e-6)
    torch.testing.assert_close(robust.x_adv, x + 0.1, rtol=0, atol=1e-3)
    assert robust.queries.item() == 1 + 2 * 101
    fooled = attack.run(Ramp(0.59), x, y)
    assert fooled.x_adv.mean() >= 0.59
    assert fooled.queries.item() <= 1 + 1 + 22
    assert attack.run(Ramp(0.4), x, y).queries.item() == 1


def test_restarts_only_touch_what_is_right(trained: nn.Module, unseen: Data) -> None:
    x, y = unseen
    once, thrice = (
        APGD(
            loss="ce",
            targets=1,
            ball=Linf(0.1),
            steps=10,
            restarts=r,
            seed=0,
            micro_batch=64,
        ).run(trained, x, y)
        for r in (1, 3)
    )
    wrong = trained(once.x_adv).argmax(1) != y
    assert torch.equal(thrice.x_adv[wrong], once.x_adv[wrong])
    assert torch.equal(thrice.queries[wrong], once.queries[wrong])
    assert (thrice.queries[~wrong] > once.queries[~wrong]).all()
    before, after = (cross_entropy(trained(a.x_adv), y)[~wrong] for a in (once, thrice))
    assert (after > before).any()


@pytest.mark.parametrize("name", ["steps", "restarts", "targets", "micro_batch"])
def test_impossible_settings_are_refused(name: str) -> None:
    settings = {"steps": 10, "restarts": 1, "targets": 1, "micro_batch": 8}
    with pytest.raises(UserError, match=f"{name}=0"):
        APGD(loss="ce", ball=Linf(0.1), seed=0, **{**settings, name: 0})


@pytest.mark.parametrize(
    ("change", "found"),
    [({"loss": "mse"}, r"loss=mse; choose ce\|dlr"), ({"targets": 2}, "aims at none")],
)
def test_a_loss_that_is_none_or_aims_at_nothing_is_refused(
    change: dict[str, Any], found: str
) -> None:
    settings = {"loss": "ce", "steps": 1, "restarts": 1, "targets": 1, "seed": 0}
    with pytest.raises(UserError, match=found):
        APGD(ball=Linf(0.1), micro_batch=8, **{**settings, **change})
