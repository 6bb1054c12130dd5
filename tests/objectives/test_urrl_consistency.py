"""URRL's consistency against the equations written out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rrl_dist.objectives.urrl import jensen_shannon
from tests.objectives.harness import TWO_VIEWS, own_batch
from tests.objectives.urrl_runs import (
    around,
    assert_equal_with_gradients,
    literal_divergence,
)

DISTRIBUTIONS = ("simclr", "moco", "supervised")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    scale=st.sampled_from([0.01, 1.0, 5.0, 100.0]),
    parts=st.integers(2, 4),
    shift=st.floats(-50, 50),
)
def test_the_divergence_is_that_of_the_probabilities(
    seed: int, scale: float, parts: int, shift: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(parts, 4, 6, generator=generator)
    found = jensen_shannon(list(logits))
    wanted = torch.stack([literal_divergence(list(logits[:, i])) for i in range(4)])
    torch.testing.assert_close(found.double(), wanted, atol=2e-6, rtol=1e-4)
    assert bool((found >= 0).all())
    assert bool((found <= math.log(parts) + 1e-5).all())
    torch.testing.assert_close(
        jensen_shannon([each + shift for each in logits]), found, atol=2e-5, rtol=1e-3
    )
    turned = jensen_shannon([*logits[1:], logits[0]])
    torch.testing.assert_close(turned, found, atol=1e-6, rtol=1e-5)


def test_the_divergence_of_equals_is_nothing_and_of_opposites_log_three() -> None:
    logits = 10 * torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    assert float(jensen_shannon([logits] * 3).max()) < 2e-6
    apart = 1000 * torch.eye(3)
    found = jensen_shannon([each[None] for each in apart])
    assert float(found) == pytest.approx(math.log(3))
    far = [each[None].clone().requires_grad_() for each in apart]
    gradients = torch.autograd.grad(jensen_shannon(far).sum(), far)
    assert all(bool(each.isfinite().all()) for each in gradients)


def test_half_precision_does_not_reach_the_divergence() -> None:
    logits = 4 * torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    halves = list(logits.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        found = jensen_shannon(halves)
    assert found.dtype == torch.float32
    assert torch.equal(found, jensen_shannon([each.float() for each in halves]))


@pytest.mark.parametrize("name", [*TWO_VIEWS, "supervised", "deacl"])
def test_the_loss_is_the_bases_and_the_weighted_consistency(name: str) -> None:
    objective = around(name)
    batch = objective.inner(own_batch(name))
    assert_equal_with_gradients(objective, batch, 12.0, name in DISTRIBUTIONS)


@pytest.mark.parametrize("name", ["simclr", "supervised"])
def test_features_may_be_compared_where_there_is_a_distribution(name: str) -> None:
    objective = around(name, form="features")
    batch = objective.inner(own_batch(name))
    assert_equal_with_gradients(objective, batch, 12.0, js=False)


def test_no_gradient_goes_into_clean_features() -> None:
    objective = around("vicreg", form="features")
    batch = objective.inner(own_batch("vicreg"))
    held: list[Tensor] = []
    handle = objective.encoder.register_forward_hook(lambda _, __, h: held.append(h))
    loss = objective(batch)["loss"]
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, held[-1])
    clean, *mixed = gradient.chunk(3)
    assert float(clean.abs().max()) == 0
    assert all(float(part.abs().max()) > 0 for part in mixed)
