"""The spectral penalty, against singular value decompositions of written-out layers."""

from itertools import pairwise

import pytest
import torch

from rrl_dist.core.modes import evaluating
from rrl_dist.objectives.moco import MoCo
from rrl_dist.objectives.spectral import Spectral
from tests.gloo import run_workers
from tests.objectives.harness import SIZE, own_batch, small_objective
from tests.objectives.spectral_runs import (
    LAYERS,
    around,
    encoder_of,
    exact_sum,
    losses_and_weights,
    trained,
    vectors,
)


@pytest.mark.parametrize("base", ["simclr", "supervised", "deacl"])
def test_loss_is_the_bases_plus_the_weighted_sum(base: str) -> None:
    spectral = around(small_objective(base), weight=0.3, warm_up=300)
    batch = own_batch(base)
    alone = small_objective(base)
    expected = alone(alone.inner(batch))["loss"] + 0.3 * 0.5 * exact_sum(
        encoder_of(alone)
    )
    terms = spectral(spectral.inner(batch))  # half way up the ramp
    torch.testing.assert_close(terms["loss"], expected, rtol=1e-3, atol=0)
    assert float(terms["spectral_weight"]) == pytest.approx(0.15)
    assert not any(t.requires_grad for name, t in terms.items() if name != "loss")


def test_gradient_is_that_of_the_singular_values() -> None:
    spectral = around(small_objective("simclr"), weight=2.0, warm_up=2000, ramp=(0, 0))
    encoder = encoder_of(spectral)
    kernels = [p for p in encoder.parameters() if p.ndim == 4]
    expected = torch.autograd.grad(2.0 * exact_sum(encoder), kernels)
    batch = own_batch("simclr")
    with evaluating(spectral):
        whole = torch.autograd.grad(spectral(batch)["loss"], kernels)
        base = torch.autograd.grad(spectral.base(batch)["loss"], kernels)
    for one, other, known in zip(whole, base, expected, strict=True):
        assert float((one - other - known).norm()) < 1e-2 * float(known.norm())


def test_iterations_rise_to_the_sum_from_below() -> None:
    spectral = around(small_objective("simclr"), warm_up=1)
    exact = float(exact_sum(encoder_of(spectral)).detach())
    batch = own_batch("simclr")
    logged = []
    for _ in range(60):
        logged.append(float(spectral(batch)["spectral_sum"]))
        between = float(spectral.last_sum)
        assert between <= exact * (1 + 1e-5)
        spectral.after_step(0.5)
        # |A v|^2 <= |A^T A v| <= |A v'|^2 for the v' that A^T A v points to.
        assert logged[-1] <= float(spectral.last_sum) * (1 + 1e-5)
    assert all(b >= a * (1 - 1e-5) for a, b in pairwise(logged))
    assert logged[0] < 0.8 * exact
    assert 0.98 * exact < logged[-1] <= exact * (1 + 1e-5)


def test_vectors_follow_weights_that_move() -> None:
    """An iteration a step is enough where steps are small."""
    spectral = around(small_objective("simclr"), warm_up=300)
    encoder = encoder_of(spectral)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        with torch.no_grad():
            for p in encoder.parameters():
                noise = torch.randn(p.shape, generator=generator)
                p.add_(0.01 * p.std() * noise if p.ndim > 1 else 0 * p)
        spectral(own_batch("simclr"))
        spectral.after_step(0.5)
    exact = float(exact_sum(encoder).detach())
    found = float(spectral(own_batch("simclr"))["spectral_sum"])
    assert 0.98 * exact < found <= exact * (1 + 1e-5)


def test_a_layer_of_zeros_is_followed_when_it_grows() -> None:
    base = small_objective("simclr")
    kernel = next(p for p in base.encoder.parameters() if p.ndim == 4)
    grown = kernel.detach().clone()
    with torch.no_grad():
        kernel.zero_()
    spectral = around(base, warm_up=20)
    assert float(exact_sum(encoder_of(base)).detach()) > float(spectral.last_sum)
    with torch.no_grad():
        kernel.copy_(grown)
    for _ in range(100):
        spectral(own_batch("simclr"))
        spectral.after_step(0.5)
    exact = float(exact_sum(encoder_of(base)).detach())
    assert float(spectral.last_sum) > 0.99 * exact


def test_vectors_have_unit_length_and_are_in_the_state() -> None:
    spectral = around(small_objective("simclr"))
    found = vectors(spectral)
    assert len(found) == LAYERS
    assert found["vector/encoder/backbone/layers/0"].shape == (3, SIZE, SIZE)
    for value in found.values():
        assert float(value.norm()) == pytest.approx(1, rel=1e-5)
    assert set(found) <= {name for name, _ in spectral.named_buffers()}
    assert not [k for k in spectral.trained().state_dict() if "vector" in k]


def test_a_step_changes_nothing_but_the_vectors() -> None:
    spectral = around(small_objective("simclr"), weight=1.0).train()
    encoder_of(spectral).backbone.eval()
    modes = [m.training for m in spectral.modules()]
    spectral(own_batch("simclr"))
    before = {k: v.clone() for k, v in spectral.state_dict().items()}
    spectral.after_step(0.5)
    assert [m.training for m in spectral.modules()] == modes
    assert all(p.grad is None for p in spectral.parameters())
    changed = {
        k for k, v in spectral.state_dict().items() if not torch.equal(v, before[k])
    }
    assert changed == {*vectors(spectral), "last_sum"}


def test_at_weight_zero_training_is_the_bases_to_the_last_bit() -> None:
    alone, state = trained(small_objective("simclr"), steps=3)
    spectral = around(small_objective("simclr"), weight=0.0)
    losses, around_state = trained(spectral, steps=3)
    assert losses == alone
    for name, value in state.items():
        assert torch.equal(around_state[f"base.{name}"], value), name
    assert float(around_state["last_sum"]) > 1


def test_a_state_goes_on_to_the_last_bit() -> None:
    def made() -> Spectral:
        return around(small_objective("simclr"), weight=0.1, every=2)

    losses, whole = trained(made(), steps=5)
    first, half = trained(made(), steps=2)
    second = made()
    second.load_state_dict(half)
    rest, state = trained(second, steps=3, start=2)
    assert first + rest == losses
    for name, value in whole.items():
        assert torch.equal(state[name], value), name


def test_the_sum_stays_at_less_than_half_of_what_it_is_without() -> None:
    sums = {}
    for weight in (0.0, 0.5):
        spectral = around(small_objective("simclr"), weight=weight, ramp=(0, 0.1))
        trained(spectral, steps=30)
        sums[weight] = float(exact_sum(encoder_of(spectral)).detach())
        assert float(spectral.last_sum) <= sums[weight] * (1 + 1e-5)
    assert sums[0.5] < 0.5 * sums[0.0]


def test_the_base_moves_and_attacks_as_it_would_alone() -> None:
    spectral = around(small_objective("moco"))
    assert spectral.reads_weights
    assert spectral.moves_weights
    assert isinstance(spectral.base, MoCo)
    spectral(spectral.inner(own_batch("moco")))
    spectral.after_step(0.5)
    assert int(spectral.base.oldest) > 0
    deacl = around(small_objective("deacl"))
    assert deacl.inner(own_batch("deacl")).extras


def test_under_autocast_it_is_computed_in_float32() -> None:
    spectral = around(small_objective("simclr"))
    exact = spectral(own_batch("simclr"))["spectral_sum"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = spectral(own_batch("simclr"))
        spectral.after_step(0.5)
    assert low["spectral_sum"].dtype == torch.float32
    assert torch.equal(low["spectral_sum"], exact)
    assert low["loss"].dtype == torch.float32
    assert all(v.dtype == torch.float32 for v in vectors(spectral).values())


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2])
def test_zero_3_with_biases_equals_ddp(every: int) -> None:
    """Whose weights are whole in a layer's own pass, and in `after_step`, alone."""
    kinds = {k: run_workers(2, losses_and_weights, k, every) for k in ("ddp", "zero3")}
    (expected, weights), other = kinds["ddp"]
    assert other[0] == expected
    for found, state in kinds["zero3"]:
        assert found == pytest.approx(expected, rel=1e-5)
        for name, value in weights.items():
            torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-6)
    moved = [k for k in weights if k.startswith("vector/")]
    assert len(moved) == 3
