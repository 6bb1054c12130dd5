from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rrl_dist.attacks.balls import L2, Ball, Linf
from rrl_dist.core.errors import UserError
from rrl_dist.objectives.rocl import RoCL
from rrl_dist.objectives.simclr import nt_xent
from tests.composing import compose
from tests.objectives.contrasting import EPS, rocl
from tests.objectives.harness import own_batch, small_encoder
from tests.objectives.test_simclr import literal_nt_xent


def contrasted(**options: Any) -> RoCL:
    """In train mode; its batch norms have seen images, so that eval mode differs."""
    torch.manual_seed(2)
    objective = rocl(small_encoder(1), **options)
    objective.train()
    batch = own_batch("rocl")
    with torch.no_grad():
        for _ in range(40):
            objective(batch.with_extras(rocl_worst=batch.images))
    return objective


def projections(objective: RoCL, *views: Tensor) -> tuple[Tensor, ...]:
    z = objective.projector(objective.encoder(torch.cat(views)))
    return F.normalize(z, dim=1).chunk(len(views))


def pair_loss(objective: RoCL, x: Tensor, b: Tensor) -> Tensor:
    """What is attacked, as the attack sees it."""
    objective.eval()
    zx, zb = projections(objective, x, b)
    objective.train()
    return nt_xent(zx, zb, temperature=0.5)


def test_the_loss_is_over_three_views_and_the_attacked_pair() -> None:
    objective = contrasted(weight=0.25)
    batch = objective.inner(own_batch("rocl"))
    with torch.no_grad():
        za, zb, worst = projections(objective, *batch.views, batch.extras["rocl_worst"])
    terms = objective(batch)
    three = literal_nt_xent(za, zb, worst, temperature=0.5)
    pair = literal_nt_xent(worst, zb, temperature=0.5)
    assert float(terms["contrastive_loss"]) == pytest.approx(three, rel=1e-5)
    assert float(terms["adversarial_loss"]) == pytest.approx(pair, rel=1e-5)
    found = float(terms["loss"].detach())
    assert found == pytest.approx(three + 0.25 * pair, rel=1e-5)
    torch.testing.assert_close(terms["view_similarity"], (za * zb).sum(1).mean())
    similarity = (worst * zb).sum(1).mean()
    torch.testing.assert_close(terms["adversarial_similarity"], similarity)


def test_each_step_goes_up_the_loss_against_the_second_view() -> None:
    """The ascent written out, network in eval mode; the second view stays."""
    objective = contrasted()
    given = own_batch("rocl")
    a, b = given.views
    x = Linf(EPS).start(a, seed=0, key=("rocl", 7), index=given.index)
    for _ in range(3):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(pair_loss(objective, x, b), x)
        x = (x.detach() + 0.25 * EPS * gradient.sign()).clamp(a - EPS, a + EPS)
        x = x.clamp(0, 1)
    batch = objective.inner(given)
    # A sign may flip where a gradient is next to nothing.
    same = ((batch.extras["rocl_worst"] - x).abs() < 1e-6).float().mean()
    assert float(same) > 0.99
    assert batch.views is given.views
    with torch.no_grad():
        raised = pair_loss(objective, batch.extras["rocl_worst"], b)
        assert float(raised) > float(pair_loss(objective, a, b)) + 0.01


@pytest.mark.parametrize("ball", [Linf(EPS), L2(0.5), Linf(0.0)])
def test_the_attacked_view_stays_in_the_ball(ball: Ball) -> None:
    given = own_batch("rocl")
    x = contrasted(ball=ball).inner(given).extras["rocl_worst"]
    assert not x.requires_grad
    assert float(ball.distance(x, given.views[0]).max()) <= ball.eps * (1 + 1e-5)
    assert 0 <= float(x.min()) <= float(x.max()) <= 1


def test_draws_differ_from_step_to_step() -> None:
    objective, given = contrasted(steps=1), own_batch("rocl")
    first, again, later = (
        objective.inner(replace(given, step=step)).extras["rocl_worst"]
        for step in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_the_attack_leaves_no_trace() -> None:
    objective = contrasted()
    next(objective.encoder.children()).eval()
    modes = [m.training for m in objective.modules()]
    state = {k: v.clone() for k, v in objective.state_dict().items()}
    objective.inner(own_batch("rocl"))
    assert [m.training for m in objective.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in objective.parameters())
    for key, value in objective.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_the_step_is_the_authors() -> None:
    config = compose("pretrain", "objective=rocl", "ball=linf_8_255")["objective"]
    step = config["relative_step"] * config["ball"]["eps"]
    assert step == pytest.approx(0.007, rel=1e-3)
    assert config["weight"] == 1 / 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "a term has weight=-1.0; set at least 0"),
        ({"temperature": -1.0}, "objective.temperature=-1.0; set more than 0"),
        ({"relative_step": 0.0}, "the inner attack has relative_step=0.0; set more"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as told:
        contrasted(**options)
    assert str(told.value).startswith(message)
    assert "\n" not in str(told.value)
