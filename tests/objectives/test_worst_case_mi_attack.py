"""The inner maximization of worst-case mutual information, and the released one."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import L2, Ball, Linf
from rrl_dist.objectives.mutual_information import estimate
from rrl_dist.objectives.worst_case_mi import WorstCaseMI, highest
from tests.objectives.harness import own_batch, small_encoder
from tests.objectives.informed import EPS, informed

NAME = "worst_case_mi"
ESTIMATORS = ("dv", "nce", "jsd")


def made(**changes: Any) -> WorstCaseMI:
    """In train mode, after some steps on clean images: both ways from the image to the
    score matter then."""
    objective = informed(small_encoder(1), **changes)
    objective.load_state_dict(learned())
    objective.train()
    return objective


@cache
def learned() -> dict[str, Tensor]:
    encoder = small_encoder(1)
    torch.manual_seed(2)
    objective = informed(encoder, weight=0.0)
    objective.train()
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        objective(own_batch(NAME))["loss"].backward()
        optimizer.step()
    return objective.state_dict()


def attacked(objective: WorstCaseMI, **changes: Any) -> Tensor:
    batch = replace(own_batch(NAME), **changes)
    return objective.inner(batch).extras["worst_case_mi_x"]


@torch.no_grad()
def information(objective: WorstCaseMI, x: Tensor, estimator: str = "dv") -> float:
    """As the attack sees it."""
    objective.eval()
    local, whole = objective.local(x), objective.whole(objective.encoder(x))
    found = estimate(local, whole, estimator=estimator, faithful=objective.faithful)
    objective.train()
    return float(found)


@pytest.mark.parametrize("faithful", [False, True])
@pytest.mark.parametrize("ball", [Linf(EPS), L2(0.5)], ids=["linf", "l2"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_attack_lowers_the_estimate_and_stays_in_the_ball(
    estimator: str, ball: Ball, faithful: bool
) -> None:
    objective = made(estimator=estimator, ball=ball, faithful=faithful)
    x = own_batch(NAME).views[0]
    x_adv = attacked(objective)
    assert not x_adv.requires_grad
    assert float(ball.distance(x_adv, x).max()) <= ball.eps * (1 + 1e-5)
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    found = information(objective, x_adv, estimator)
    clean = information(objective, x, estimator)
    key, index = (NAME, 7), own_batch(NAME).index
    start = ball.start(x, seed=0, key=key, index=index)
    random = information(objective, start, estimator)
    assert found < clean - 0.1
    assert found < random - 0.1


def written_out(objective: WorstCaseMI, x: Tensor, shown: Tensor) -> Tensor:
    """The gradient of the estimate with respect to x; `shown` is the image that the
    local critic sees."""
    local, whole = objective.local(shown), objective.whole(objective.encoder(x))
    value = estimate(local, whole, estimator="dv", faithful=objective.faithful)
    return torch.autograd.grad(value, x)[0]


def test_each_step_goes_down_the_estimate() -> None:
    """The same descent written out, with both ways from the image to the score."""
    objective, x = made(), own_batch(NAME).views[0]
    found = attacked(objective)
    objective.eval()
    moved = Linf(EPS).start(x, seed=0, key=(NAME, 7), index=own_batch(NAME).index)
    for _ in range(3):
        moved = moved.detach().requires_grad_()
        step = -0.25 * EPS * written_out(objective, moved, moved).sign()
        moved = (moved.detach() + step).clamp(x - EPS, x + EPS).clamp(0, 1)
    # A sign may flip where a gradient is next to nothing.
    assert float(((found - moved).abs() < 1e-6).float().mean()) > 0.99


def test_as_released_each_step_leaves_the_local_way_out() -> None:
    objective, x = made(faithful=True, steps=1), own_batch(NAME).views[0]
    found = attacked(objective)
    objective.eval()
    at = x.clone().requires_grad_()
    step = -0.25 * EPS * written_out(objective, at, x).sign()
    moved = (x + step).clamp(x - EPS, x + EPS).clamp(0, 1)
    assert float(((found - moved).abs() < 1e-6).float().mean()) > 0.99
    both = -0.25 * EPS * written_out(objective, at, at).sign()
    assert float((both != step).float().mean()) > 0.05, "the ways are not told apart"


def silenced(objective: WorstCaseMI, part: str) -> WorstCaseMI:
    """With what it shows of an image the same for every image, by one of the ways."""
    module = {"encoder": objective.encoder, "local": objective.local}[part]
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
    return objective


@pytest.mark.parametrize("part", ["encoder", "local"])
def test_the_gradient_reaches_the_image_by_both_ways(part: str) -> None:
    objective, x = silenced(made(), part), own_batch(NAME).views[0]
    start = Linf(EPS).start(x, seed=0, key=(NAME, 7), index=own_batch(NAME).index)
    moved = (attacked(objective) - start).abs() > 1e-6
    assert float(moved.float().mean()) > 0.5


def test_as_released_it_begins_at_the_clean_image_and_follows_the_encoder_alone() -> (
    None
):
    x = own_batch(NAME).views[0]
    blind = silenced(made(faithful=True), "encoder")
    assert torch.equal(attacked(blind), x)
    seeing = silenced(made(faithful=True), "local")
    assert float((attacked(seeing) != x).float().mean()) > 0.5


def test_a_stronger_attack_is_what_the_mending_is_for() -> None:
    """On one network and one estimate, seven steps of both."""
    settings: dict[str, Any] = {"steps": 7, "relative_step": 0.31875}
    x_adv = attacked(made(**settings))
    released = attacked(made(**settings, faithful=True))
    judge = made()
    assert information(judge, x_adv) < information(judge, released) - 0.1


@pytest.mark.parametrize("step_size", [0.05, 0.3, 2.0])
def test_the_iterate_of_the_highest_value_is_kept_for_the_whole_batch(
    step_size: float,
) -> None:
    """Of a value with its peak at 0.6, which long steps pass."""
    center, ball = torch.tensor([[0.4], [0.55], [0.9]]), Linf(0.5)
    seen: list[Tensor] = []

    def each(x: Tensor) -> Tensor:
        return -(x - 0.6).abs()

    def value(x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return each(x).sum()

    found = highest(value, center, ball=ball, steps=6, step_size=step_size)
    assert len(seen) == 7
    assert torch.equal(seen[0], center)
    best = max(seen, key=lambda x: float(each(x).sum()))
    assert torch.equal(found, best)
    image_by_image = each(torch.cat(seen, 1)).amax(1).sum()
    if step_size == 0.3:
        assert float(each(found).sum()) < float(image_by_image) - 0.01


def test_inner_leaves_no_trace() -> None:
    for changes in ({}, {"faithful": True}, {"weight": 0.5}):
        objective = made(**changes)
        objective.local.get_submodule("layers.1").eval()
        modes = [m.training for m in objective.modules()]
        state = {k: v.clone() for k, v in objective.state_dict().items()}
        objective.inner(own_batch(NAME))
        assert [m.training for m in objective.modules()] == modes
        assert all(p.requires_grad and p.grad is None for p in objective.parameters())
        for name, value in objective.state_dict().items():
            assert torch.equal(value, state[name]), name


def test_random_starts_differ_from_step_to_step_and_belong_to_samples() -> None:
    objective = made()
    first = attacked(objective)
    assert torch.equal(attacked(objective), first)
    assert not torch.equal(attacked(objective, step=8), first)
    other = own_batch(NAME).index + 1
    assert not torch.equal(attacked(objective, index=other), first)
    released = made(faithful=True)
    assert torch.equal(attacked(released, step=8), attacked(released))


def test_all_images_of_the_batch_move_together() -> None:
    """The estimate couples them: an image's attack depends on its companions."""
    whole = attacked(made())
    x, index = own_batch(NAME).views[0][:12], own_batch(NAME).index[:12]
    half = attacked(made(), views=(x,), images=x, index=index)
    assert float((half != whole[:12]).float().mean()) > 0.01
