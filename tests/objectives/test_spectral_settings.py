"""What the spectral penalty's settings do, and what it is around."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating
from rrl_dist.objectives.spectral import Spectral
from rrl_dist.objectives.supervised import Supervised
from tests.composing import compose, steps, tiny_model
from tests.objectives.harness import own_batch, small_encoder, small_objective
from tests.objectives.labelling import labelled
from tests.objectives.spectral_runs import (
    LAYERS,
    around,
    encoder_of,
    exact_sum,
    vectors,
)


@pytest.mark.parametrize("base", ["simclr", "moco", "byol", "supervised", "deacl"])
def test_heads_and_slow_copies_are_left_out(base: str) -> None:
    inside = small_objective(base)
    spectral = around(inside, scope="features")
    kernels = {id(p) for p in inside.encoder.parameters() if p.ndim == 4}
    assert len(kernels) == LAYERS
    assert {id(o.layer.weight) for o in spectral.operators.values()} == kernels
    wider = around(inside, scope="all")
    heads = {
        id(p)
        for p in inside.parameters()
        if p.ndim == 2 and p.requires_grad and id(p) not in kernels
    }
    assert {id(o.layer.weight) for o in wider.operators.values()} == kernels | heads
    assert bool(heads) == (base != "deacl")  # it has no head


def test_scope_all_adds_the_heads_singular_values() -> None:
    base = small_objective("supervised")
    assert isinstance(base, Supervised)
    spectral = around(base, scope="all", warm_up=300)
    head = float(torch.linalg.svdvals(base.head.weight.detach())[0]) ** 2
    exact = float(exact_sum(encoder_of(base)).detach()) + head
    assert float(spectral.last_sum) == pytest.approx(exact, rel=1e-3)


def at(step: int, progress: float = 0.5) -> Batch:
    batch = own_batch("simclr")
    return Batch(batch.images, batch.views, batch.labels, batch.index, step, progress)


def test_between_the_steps_of_the_cadence_the_vectors_follow_alone() -> None:
    spectral = around(small_objective("simclr"), weight=1.0, every=3, warm_up=1)
    moved, weights = [], []
    for step in range(7):
        before = {k: v.clone() for k, v in vectors(spectral).items()}
        terms = spectral(at(step))
        added = float(terms["loss"].detach() - terms["simclr_loss"])
        weight, total = float(terms["spectral_weight"]), float(terms["spectral_sum"])
        assert added == pytest.approx(weight * total, rel=1e-4)
        assert total > 1
        weights.append(weight)
        spectral.after_step(0.5)
        after = vectors(spectral)
        moved.append(any(not torch.equal(after[k], v) for k, v in before.items()))
    assert weights == [0.5, 0, 0, 0.5, 0, 0, 0.5]
    assert all(moved)


def test_at_a_sparse_cadence_the_sum_is_that_of_the_weights_there() -> None:
    """With momentum, and other views at each step."""
    spectral = around(small_objective("simclr"), weight=0.01, every=24).train()
    optimizer = torch.optim.SGD(spectral.parameters(), lr=0.01, momentum=0.9)
    shares = []
    for step in range(97):
        generator = torch.Generator().manual_seed(step)
        batch = at(step)
        views = tuple(torch.rand(v.shape, generator=generator) for v in batch.views)
        exact = float(exact_sum(encoder_of(spectral.base)).detach())
        terms = spectral(replace(batch, views=views))
        if step % 24 == 0:
            shares.append(float(terms["spectral_sum"].detach()) / exact)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        spectral.after_step(0.5)
    assert len(shares) == 5
    assert min(shares) > 0.95
    assert max(shares) < 1 + 1e-4


def test_the_weight_follows_its_ramp() -> None:
    spectral = around(small_objective("simclr"), weight=0.2, ramp=(0.4, 0.8))
    shares = {0.0: 0.0, 0.4: 0.0, 0.5: 0.25, 0.8: 1.0, 0.99: 1.0}
    kernel = next(p for p in spectral.encoder.parameters() if p.ndim == 4)
    for progress, share in shares.items():
        with evaluating(spectral):
            terms = spectral(at(0, progress))
            base = spectral.base(at(0))["loss"]
        assert float(terms["spectral_weight"]) == pytest.approx(0.2 * share)
        expected = base + 0.2 * share * terms["spectral_sum"]
        torch.testing.assert_close(terms["loss"], expected)
        (one,) = torch.autograd.grad(terms["loss"], kernel)
        (other,) = torch.autograd.grad(base, kernel)
        assert torch.equal(one, other) == (share == 0)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"weight": -1.0}, "a term has weight=-1.0; set at least 0"),
        ({"weight": float("nan")}, "a term has weight=nan; set at least 0"),
        ({"scope": "heads"}, "spectral has scope=heads; choose features or all"),
        ({"every": 0}, "spectral has every=0; set at least 1"),
        ({"warm_up": 0}, "spectral has warm_up=0; set at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        around(small_objective("simclr"), **settings)


def test_a_frozen_encoder_has_nothing_to_regularize_but_its_head() -> None:
    base = labelled("supervised", small_encoder(1), train_encoder=False)
    with pytest.raises(UserError, match="no trained layer up to the features; train"):
        around(base)
    assert list(around(base, scope="all").operators) == ["head"]


@pytest.mark.parametrize(
    "choices",
    [
        ("objective=spectral", "objective/base=supervised", "views=none"),
        ("objective=spectral", "objective/base=adversarial"),
        (
            "objective=spectral",
            "objective/base=tarrl",
            "objective/base@objective.base.base=barlow",
        ),
        (
            "objective=tarrl",
            "objective/base=spectral",
            "objective/base@objective.base.base=simsiam",
        ),
    ],
)
def test_it_composes(choices: tuple[str, ...]) -> None:
    stage = compose("pretrain", *choices, "optim=sgd")
    made = steps({**stage, "teacher": None}, model=tiny_model(), size=16)
    found = [m for m in made.modules() if isinstance(m, Spectral)]
    assert len(found) == 1
    assert len(found[0].operators) == LAYERS
