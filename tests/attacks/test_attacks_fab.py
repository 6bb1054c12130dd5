from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from rrl_dist.attacks import L2, Ball, Linf
from rrl_dist.attacks.trials import Samples
from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import uniform
from tests.attacks.fab_by_hand import (
    DUAL_ORDERS,
    Data,
    aims,
    every_ball,
    fab,
    linear,
    official,
    wrong,
)


@every_ball
@aims
def test_robust_images_are_those_of_the_authors_code(
    ball: Ball, targets: int | None, trained: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    attack = fab(ball, targets=targets)
    ours = ~wrong(trained, attack(trained, x, y), y)
    theirs = ~wrong(trained, official(trained, attack).perturb(x, y), y)
    assert 20 < theirs.sum() < (~wrong(trained, x, y)).sum() - 15
    assert ours.sum() <= theirs.sum() + 1
    assert (ours != theirs).sum() <= 3


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=Ball.label)
@aims
def test_a_sample_is_broken_inside_the_ball_or_as_it_was(
    ball: Ball, targets: int | None, trained: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    x_adv = fab(ball, targets=targets)(trained, x, y)
    changed = (x_adv != x).flatten(1).any(1)
    assert 20 < changed.sum() < 200
    assert torch.equal(wrong(trained, x_adv, y), changed | wrong(trained, x, y))
    distance = ball.distance(x_adv.double(), x.double())
    assert (distance <= ball.eps * (1 + 1e-6)).all()


@pytest.mark.parametrize("ball", [Linf(1.0), L2(1.0)], ids=Ball.label)
@torch.no_grad()
def test_ends_inside_the_ball(ball: Ball) -> None:
    """The first step goes 1.05 times as far as it must: to a ball of 1.02 of that
    distance the last visit is what is needed."""
    model = linear(2, 16)
    x = torch.full((1, 1, 4, 4), 0.5)
    y = model(x).argmax(1)
    slope = model[1].weight.diff(dim=0).norm(DUAL_ORDERS[ball.norm])
    exact = float(model(x).diff().abs() / slope)
    attack = fab(ball, steps=1, alpha_max=0.0)
    for share, reached, visits in ((0.99, 0.0, 4), (1.02, 1.02, 4), (1.06, 1.05, 2)):
        inside = replace(attack, ball=ball.with_eps(share * exact))
        found = inside.run(model, x, y)
        distance = float(ball.distance(found.x_adv, x)) / exact
        assert distance == pytest.approx(reached, rel=1e-4)
        assert found.queries.item() == 1 + visits
        assert (model(found.x_adv).argmax(1) == y) == (share < 1)


def test_trials_are_restarts_of_targets() -> None:
    logits = torch.tensor([[4.0, 1.0, 3.0, 2.0], [0.0, 5.0, 5.0, 7.0]])
    y = torch.tensor([0, 3])
    x = torch.full((2, 1, 5, 5), 0.5)
    attack = fab(Linf(0.2), targets=9, restarts=3)
    assert attack.trials(4) == 9
    assert fab(Linf(0.2), restarts=3).trials(4) == 3
    assert attack.trials(1) == 0
    samples = Samples(x, y, torch.tensor([7, 8]), logits)
    begun = [attack.begin(samples, torch.full((2,), n)) for n in range(9)]
    assert [state.target.tolist() for state in begun] == 3 * [[2, 1], [3, 2], [1, 0]]
    assert all(torch.equal(state.x, x) for state in begun[:3])
    for state in begun[3:]:
        distance = attack.ball.distance(state.x, x)
        torch.testing.assert_close(distance, torch.full((2,), 0.1))
        assert not torch.equal(state.x[0], state.x[1])
    assert len({state.x[0, 0, 0, 0].item() for state in begun[3:]}) == 6
    index = torch.tensor([7 + (5 << 40)])
    draw = 2 * uniform(3, "fab-t", index=index, n=25) - 1
    torch.testing.assert_close(
        begun[5].x[:1].flatten(1), 0.5 + 0.1 * draw / draw.abs().max()
    )
    mixed = attack.begin(samples, torch.tensor([1, 5]))
    assert torch.equal(mixed.x, torch.stack([x[0], begun[5].x[1]]))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"steps": 0}, "steps=0"),
        ({"restarts": 0}, "restarts=0"),
        ({"targets": 0}, "targets=0"),
        ({"micro_batch": 0}, "micro_batch=0"),
        ({"alpha_max": 1.5}, r"alpha_max=1.5; set it in \[0, 1\]"),
        ({"alpha_max": torch.nan}, "alpha_max=nan"),
        ({"eta": 0.9}, "eta=0.9"),
        ({"eta": torch.inf}, "eta=inf"),
        ({"beta": 1.0}, "beta=1.0"),
        ({"beta": 0.0}, "beta=0.0"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], found: str) -> None:
    with pytest.raises(UserError, match=found):
        fab(L2(0.1), **change)


class L3(L2):
    norm = "l3"


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(UserError, match=r"no norm l3; choose linf\|l2\|l1"):
        fab(L3(0.1))


def test_names_are_autoattacks() -> None:
    assert fab(L2(0.1)).name == "fab"
    assert fab(L2(0.1), targets=9).name == "fab-t"


def test_in_turn_breaks_the_same_samples(trained: nn.Module, unseen: Data) -> None:
    x, y = unseen
    attack = fab(Linf(0.1), targets=2, steps=8)
    free, in_turn = (
        replace(attack, in_turn=turn).run(trained, x, y) for turn in (False, True)
    )
    broken = wrong(trained, in_turn.x_adv, y)
    assert torch.equal(broken, wrong(trained, free.x_adv, y))
    assert torch.equal(free.x_adv[~broken], x[~broken])
    distance = attack.ball.distance(in_turn.x_adv, x)
    assert (distance <= attack.ball.distance(free.x_adv, x)).all()
    # Every trial that began was walked to its end.
    assert set((in_turn.queries - 1).tolist()) <= {0, 18, 36}
