from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.objectives.terms import divergence
from tests.objectives.harness import own_batch, small_encoder
from tests.objectives.labelling import EPS, labelled


def literal_divergence(p: Tensor, q: Tensor) -> Tensor:
    """sum of p log(p / q) of two rows of logits, one class at a time."""
    p, q = torch.exp(p) / torch.exp(p).sum(), torch.exp(q) / torch.exp(q).sum()
    total = p.new_zeros(())
    for a, b in zip(p, q, strict=True):
        total = total + a * torch.log(a / b)
    return total


def literal_loss(logits: Tensor, moved: Tensor, labels: Tensor) -> Tensor:
    """With a weight of 6; logits in float64."""
    total = logits.new_zeros(())
    for row, other, label in zip(logits, moved, labels, strict=True):
        natural = -torch.log(torch.exp(row[label]) / torch.exp(row).sum())
        total = total + natural + 6 * literal_divergence(row, other)
    return total / len(logits)


def test_loss_and_gradient_equal_the_literal_formula() -> None:
    """With gradients into both arguments of the divergence, and a pass for each."""
    objective = labelled("trades", small_encoder(1)).train()
    batch = objective.inner(own_batch("trades"))
    model = objective.trained()
    logits = model(batch.views[0]).double()
    moved = model(batch.extras["trades_x"]).double()
    expected = literal_loss(logits, moved, batch.labels)
    names, weights = zip(*objective.named_parameters(), strict=True)
    wanted = torch.autograd.grad(expected, weights, retain_graph=True)
    terms = objective(batch)
    torch.testing.assert_close(terms["loss"].double(), expected, rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(terms["loss"], weights)
    for name, one, other in zip(names, found, wanted, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-3, atol=3e-6, msg=name)
    total = terms["cross_entropy"] + 6 * terms["divergence"]
    torch.testing.assert_close(terms["loss"].detach(), total)
    # The test tells a detached argument apart.
    arguments = [(logits, moved), (logits.detach(), moved), (logits, moved.detach())]
    head = []
    for pair in arguments:
        rows = zip(*pair, strict=True)
        apart = torch.stack([literal_divergence(p, q) for p, q in rows]).mean()
        weight = objective.head.weight
        head.append(torch.autograd.grad(apart, weight, retain_graph=True)[0])
    assert not any(torch.allclose(one, head[0], rtol=1e-2) for one in head[1:])


ROW = st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4)


@given(ROW, ROW)
def test_the_divergence_is_never_negative_and_zero_at_equality(
    one: list[float], other: list[float]
) -> None:
    a, b = torch.tensor([one]), torch.tensor([other])
    assert float(divergence(a, a)) == 0
    assert float(divergence(a, a + 1.5)) == pytest.approx(0, abs=1e-5)
    found = float(divergence(a, b))
    assert found >= 0
    expected = float(literal_divergence(a[0].double(), b[0].double()))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_first_argument_is_where_the_mean_is_taken() -> None:
    sure, unsure = torch.tensor([[5.0, 0.0, 0.0]]), torch.zeros(1, 3)
    assert float(divergence(sure, unsure)) < 0.7 * float(divergence(unsure, sure))


def test_a_sum_that_rounds_below_zero_still_has_its_gradient() -> None:
    """Clamped, it has none, and an image that starts there would stay."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, 10, generator=generator)
    near = logits + 1e-4 * torch.randn(1000, 10, generator=generator)
    log_p, log_q = logits.log_softmax(1), near.log_softmax(1)
    below = (log_p.exp() * (log_p - log_q)).sum(1) < 0
    assert bool(below.any()), "none rounds below 0: the test is of nothing"
    near.requires_grad_()
    value = divergence(logits, near)
    assert bool((value >= 0).all())
    (gradient,) = torch.autograd.grad(value.sum(), near)
    assert bool((gradient[below].abs().amax(1) > 0).all())


def test_the_attack_starts_at_the_image_plus_noise() -> None:
    objective = labelled("trades", small_encoder(1), steps=1, relative_step=1e-12)
    batch = own_batch("trades")
    inside = replace(batch, views=(0.1 + 0.8 * batch.views[0],))
    noise = objective.inner(inside).extras["trades_x"] - inside.views[0]
    assert float(noise.std()) == pytest.approx(0.001, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0, abs=1e-4)
    assert float(noise.abs().max()) < EPS / 4
    later = objective.inner(replace(inside, step=9)).extras["trades_x"]
    assert not torch.equal(later - inside.views[0], noise)


def test_the_weight_trades_accuracy_for_a_steady_answer() -> None:
    found = {}
    for weight in (0.0, 6.0):
        objective = labelled("trades", small_encoder(1), weight=weight).train()
        optimizer = torch.optim.SGD(objective.parameters(), lr=0.05)
        for step in range(40):
            batch = objective.inner(replace(own_batch("trades"), step=step))
            optimizer.zero_grad()
            terms = objective(batch)
            terms["loss"].backward()
            optimizer.step()
        found[weight] = terms
    assert float(found[6.0]["divergence"]) < 0.7 * float(found[0.0]["divergence"])
    assert float(found[6.0]["cross_entropy"]) > float(found[0.0]["cross_entropy"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"weight": -1.0}, "a term has weight=-1.0; set at least 0"),
        ({"start_std": 0.0}, r"objective\.start_std=0\.0: .*; set more than 0$"),
        ({"steps": 0}, "the inner attack has steps=0; set at least 1"),
    ],
)
def test_what_would_not_attack_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        labelled("trades", small_encoder(1), **settings)
