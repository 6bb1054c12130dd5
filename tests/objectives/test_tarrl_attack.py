"""The inner maximization of TARRL."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from rrl_dist.attacks.balls import L2, Ball, Linf
from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.objectives.moco import MoCo
from tests.objectives.apart import literal_scale
from tests.objectives.harness import SAMPLES, own_batch, small_objective
from tests.objectives.tarrl_runs import BALL, EPS, around, distances


@pytest.mark.parametrize("ball", [Linf(EPS), L2(0.5)], ids=["linf", "l2"])
@pytest.mark.parametrize("distance", ["l2", "cosine", "kl"])
def test_the_attack_moves_features_and_stays_in_the_ball(
    distance: str, ball: Ball
) -> None:
    objective = around(small_objective("simclr"), distance=distance, ball=ball)
    batch = own_batch("simclr")
    x = batch.views[0]
    moved = objective.inner(batch).extras["tarrl_moved"]
    assert not moved.requires_grad
    assert float(ball.distance(moved, x).max()) <= ball.eps * (1 + 1e-5)
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    found = distances(objective, x, moved, distance)
    start = ball.start(x, seed=0, key=("tarrl", 7), index=batch.index)
    assert bool((found > 0).all()), "never below the clean value, which is 0"
    at_start = distances(objective, x, start, distance)
    assert float(found.mean()) > 1.5 * float(at_start.mean())


def test_each_step_goes_up_the_distance() -> None:
    """The same ascent written out."""
    objective = around(small_objective("simclr"))
    batch = own_batch("simclr")
    x = batch.views[0]
    objective.eval()
    with torch.no_grad():
        h = objective.encoder(x)
    moved = BALL.start(x, seed=0, key=("tarrl", 7), index=batch.index)
    for _ in range(3):
        moved.requires_grad_()
        apart = (objective.encoder(moved) - h).norm(dim=1).sum() / literal_scale(h)
        (gradient,) = torch.autograd.grad(apart, moved)
        moved = moved.detach() + 0.25 * EPS * gradient.sign()
        moved = moved.clamp(x - EPS, x + EPS).clamp(0, 1)
    objective.train()
    found = objective.inner(batch).extras["tarrl_moved"]
    # A sign may flip where a gradient is next to nothing.
    assert float(((found - moved).abs() < 1e-6).float().mean()) > 0.99


def test_a_ball_of_one_point_leaves_the_base_alone() -> None:
    objective = around(small_objective("simclr"), ball=Linf(0.0))
    batch = objective.inner(own_batch("simclr"))
    assert torch.equal(batch.extras["tarrl_moved"], batch.views[0])
    terms = objective(batch)
    assert float(terms["tarrl_distance"]) == 0
    terms["loss"].backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all()), name


def test_inner_leaves_no_trace_and_the_queue_as_it_was() -> None:
    objective = around(small_objective("moco"))
    objective.encoder.backbone.layers[1].eval()  # type: ignore[union-attr,index]
    modes = [m.training for m in objective.modules()]
    state = {k: v.clone() for k, v in objective.state_dict().items()}
    trained = [p.requires_grad for p in objective.parameters()]
    batch = objective.inner(own_batch("moco"))
    assert [m.training for m in objective.modules()] == modes
    assert [p.requires_grad for p in objective.parameters()] == trained
    assert all(p.grad is None for p in objective.parameters())
    for name, value in objective.state_dict().items():
        assert torch.equal(value, state[name]), name
    objective(batch)
    objective.after_step(0.5)
    assert isinstance(objective.base, MoCo)
    assert int(objective.base.oldest) == SAMPLES, "one batch of keys came in"


def test_draws_belong_to_samples_and_differ_from_step_to_step() -> None:
    objective = around(small_objective("simclr"))
    batch = own_batch("simclr")
    first = objective.inner(batch).extras["tarrl_moved"]
    assert torch.equal(objective.inner(batch).extras["tarrl_moved"], first)
    later = objective.inner(replace(batch, step=8)).extras["tarrl_moved"]
    assert not torch.equal(later, first)
    views = tuple(view[8:] for view in batch.views)
    half = Batch(batch.images[8:], views, batch.labels[8:], batch.index[8:], step=7)
    alone = objective.inner(half).extras["tarrl_moved"]
    assert float(((alone - first[8:]).abs() < 1e-6).float().mean()) > 0.99


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"weight": -1.0}, "a term has weight=-1.0; set at least 0"),
        ({"steps": 0}, "the inner attack has steps=0; set at least 1"),
        ({"relative_step": 0.0}, "has relative_step=0.0; set more than 0"),
    ],
)
def test_what_would_not_attack_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        around(small_objective("simclr"), **settings)
