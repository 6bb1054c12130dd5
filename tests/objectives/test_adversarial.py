from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rrl_dist.attacks.balls import L2, Ball, Linf
from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.objectives.adversarial import Adversarial
from rrl_dist.objectives.moco import MoCo
from rrl_dist.objectives.objective import Objective
from rrl_dist.objectives.ramp import Ramp
from rrl_dist.objectives.tarrl import TARRL
from tests.objectives.harness import SAMPLES, TWO_VIEWS, own_batch, small_objective
from tests.objectives.views import losses_on_one_batch

EPS = 8 / 255


def around(base: Objective | str, **changed: Any) -> Adversarial:
    """Adversarial in train mode."""
    options: dict[str, Any] = {
        "attacked": 2,
        "ball": Linf(EPS),
        "steps": 3,
        "relative_step": 0.25,
        "seed": 0,
    }
    inside = small_objective(base) if isinstance(base, str) else base
    made = Adversarial(base=inside, **{**options, **changed})
    made.train()
    return made


@torch.no_grad()
def attackers_loss(objective: Adversarial, batch: Batch) -> float:
    """The base's loss as the attack sees it."""
    objective.eval()
    loss = float(objective.base(batch)["loss"])
    objective.train()
    return loss


def starts(objective: Adversarial, batch: Batch) -> list[Tensor]:
    ball, index = objective.ball, batch.index
    return [
        ball.start(view, seed=0, key=("adversarial", batch.step, number), index=index)
        for number, view in enumerate(batch.views)
    ]


@pytest.mark.parametrize("attacked", [1, 2])
def test_the_loss_is_the_bases_on_the_attacked_views(attacked: int) -> None:
    objective = around("simclr", attacked=attacked)
    given = own_batch("simclr")
    batch = objective.inner(given)
    changed = [
        not torch.equal(a, b) for a, b in zip(batch.views, given.views, strict=True)
    ]
    assert changed == [True, attacked == 2]
    assert batch.images is given.images
    plain = small_objective("simclr").train()
    wanted = plain(replace(given, views=batch.views))
    terms = objective(batch)
    assert terms.keys() == {"loss", "simclr_loss", "view_similarity"}
    torch.testing.assert_close(terms["loss"], wanted["loss"])
    assert not terms["simclr_loss"].requires_grad
    assert float(terms["simclr_loss"]) == float(terms["loss"].detach())
    terms["loss"].backward()
    wanted["loss"].backward()
    for one, other in zip(objective.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("attacked", [1, 2])
@pytest.mark.parametrize("name", TWO_VIEWS)
def test_the_attack_raises_every_bases_loss(name: str, attacked: int) -> None:
    objective = around(name, attacked=attacked)
    batch = own_batch(name)
    for step in range(3):
        losses_on_one_batch(objective.base, batch, steps=step, lr=0.05)
        given = replace(batch, step=step)
        found = attackers_loss(objective, objective.inner(given))
        assert found > attackers_loss(objective, given), step
        views = starts(objective, given)[:attacked] + list(given.views[attacked:])
        at_start = attackers_loss(objective, replace(given, views=tuple(views)))
        assert found > at_start, step


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_the_gradient_that_is_followed_is_that_of_the_loss(name: str) -> None:
    """Against differences: a stopped gradient or an untracked slow copy is half."""
    objective, given = small_objective(name).train(), own_batch(name)
    losses_on_one_batch(objective, given, steps=3, lr=0.05)
    objective.eval().requires_grad_(False)

    def loss(*views: Tensor) -> Tensor:
        value: Tensor = objective(replace(given, views=views))["loss"]
        return value

    views = [view.clone().requires_grad_() for view in given.views]
    gradients = torch.autograd.grad(loss(*views), views)
    for place, gradient in enumerate(gradients):
        ends = []
        for side in (-1, 1):
            moved = list(given.views)
            moved[place] = moved[place] + side * 2e-3 * gradient.sign()
            ends.append(float(loss(*moved)))
        slope = (ends[1] - ends[0]) / 4e-3
        assert slope == pytest.approx(float(gradient.abs().sum()), rel=0.1)


@pytest.mark.parametrize("ball", [Linf(EPS), L2(0.5)], ids=["linf", "l2"])
@pytest.mark.parametrize("attacked", [1, 2])
def test_views_stay_in_the_ball(ball: Ball, attacked: int) -> None:
    objective = around("vicreg", ball=ball, attacked=attacked)
    given = own_batch("vicreg")
    for view, clean in zip(objective.inner(given).views, given.views, strict=True):
        assert not view.requires_grad
        assert float(ball.distance(view, clean).max()) <= ball.eps * (1 + 1e-5)
        assert 0 <= float(view.min()) <= float(view.max()) <= 1


def test_a_ball_of_one_point_leaves_the_views() -> None:
    given = own_batch("simclr")
    batch = around("simclr", ball=Linf(0.0)).inner(given)
    for view, clean in zip(batch.views, given.views, strict=True):
        assert torch.equal(view, clean)


def test_each_step_goes_up_the_loss_of_the_whole_batch() -> None:
    """The same ascent written out, both views at once."""
    objective = around("simclr")
    given = own_batch("simclr")
    views = starts(objective, given)
    objective.eval()
    for _ in range(3):
        views = [view.detach().requires_grad_() for view in views]
        loss = objective.base(replace(given, views=tuple(views)))["loss"]
        gradients = torch.autograd.grad(loss, views)
        views = [
            (view.detach() + 0.25 * EPS * gradient.sign())
            .clamp(clean - EPS, clean + EPS)
            .clamp(0, 1)
            for view, gradient, clean in zip(views, gradients, given.views, strict=True)
        ]
    objective.train()
    for found, wanted in zip(objective.inner(given).views, views, strict=True):
        # A sign may flip where a gradient is next to nothing.
        assert float(((found - wanted).abs() < 1e-6).float().mean()) > 0.99


def test_draws_differ_from_step_to_step_and_between_the_views() -> None:
    objective = around("simclr", steps=1)
    given = own_batch("simclr")
    same = replace(given, views=(given.views[0], given.views[0]))
    first, again = objective.inner(same), objective.inner(same)
    assert torch.equal(first.views[0], again.views[0])
    assert not torch.equal(first.views[0], first.views[1])
    later = objective.inner(replace(same, step=8))
    assert not torch.equal(first.views[0], later.views[0])


@pytest.mark.parametrize("name", ["byol", "moco"])
def test_inner_leaves_no_trace(name: str) -> None:
    objective = around(name)
    objective.encoder.backbone.layers[1].eval()  # type: ignore[union-attr,index]
    modes = [m.training for m in objective.modules()]
    trained = [p.requires_grad for p in objective.parameters()]
    assert True in trained
    assert False in trained
    state = {k: v.clone() for k, v in objective.state_dict().items()}
    objective.inner(own_batch(name))
    assert [m.training for m in objective.modules()] == modes
    assert [p.requires_grad for p in objective.parameters()] == trained
    assert all(p.grad is None for p in objective.parameters())
    for key, value in objective.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_the_queue_gets_the_keys_of_the_outer_pass_alone() -> None:
    """Those of inner passes are of eval mode, and of images on the way."""
    objective = around("moco")
    base = objective.base
    assert isinstance(base, MoCo)
    losses_on_one_batch(base, own_batch("moco"), steps=3, lr=0.1)
    batch = objective.inner(own_batch("moco"))
    keys = [F.normalize(base.slow(view), dim=1) for view in batch.views]
    objective(batch)
    objective.after_step(0.5)
    assert int(base.oldest) == SAMPLES
    torch.testing.assert_close(base.queues[:, :SAMPLES], torch.stack(keys))


def test_it_is_for_the_loop_what_is_inside() -> None:
    objective = around("byol")
    assert objective.encoder is objective.base.encoder is objective.trained()
    assert objective.moves_weights
    before = objective.base.target.module[0].backbone.layers[0].weight.clone()
    losses_on_one_batch(objective, own_batch("byol"), steps=1, lr=0.1)
    objective.after_step(0.1)
    assert not torch.equal(
        objective.base.target.module[0].backbone.layers[0].weight, before
    )


@pytest.mark.parametrize("attacked", [0, 3])
def test_another_number_of_views_is_refused(attacked: int) -> None:
    with pytest.raises(UserError) as told:
        around("simclr", attacked=attacked)
    assert str(told.value) == f"objective.attacked={attacked}; set 1 or 2"


def test_a_base_with_an_attack_of_its_own_is_refused() -> None:
    attack = {"ball": Linf(EPS), "steps": 1, "relative_step": 1.0, "seed": 0}
    inside = TARRL(
        base=small_objective("simclr"),
        weight=1.0,
        ramp=Ramp(start=0.0, end=0.0),
        distance="l2",
        **attack,
    )
    for base, name in ((inside, "TARRL"), (small_objective("deacl"), "DeACL")):
        with pytest.raises(UserError) as told:
            around(base)
        assert str(told.value).startswith(f"adversarial is around {name}, which is")
        assert "\n" not in str(told.value)


def test_a_base_of_one_view_is_refused() -> None:
    with pytest.raises(UserError) as told:
        around("supervised")
    assert str(told.value) == (
        "adversarial attacks pairs of views, and Supervised reads 1; choose another "
        "objective/base=, such as simclr"
    )
