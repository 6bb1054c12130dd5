import pytest
import torch
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.objectives.distances import DISTANCES, distance_of, feature_scale
from tests.objectives.apart import LITERAL, literal_distances, literal_scale

every = pytest.mark.parametrize("name", sorted(DISTANCES))


def features(seed: int = 0, *, shift: float = 0.3) -> tuple[Tensor, Tensor]:
    """Moved and original features that no one has centered or scaled, [7, 5] each."""
    generator = torch.Generator().manual_seed(seed)
    h, change = torch.randn(2, 7, 5, generator=generator)
    h = 3 * h * torch.rand(5, generator=generator) + 2
    return h + shift * change, h


def measured(name: str, moved: Tensor, h: Tensor) -> Tensor:
    return distance_of(name)(moved, h, feature_scale(h))


def test_every_distance_is_written_out_here() -> None:
    assert LITERAL.keys() == DISTANCES.keys()


@pytest.mark.parametrize("seed", range(3))
@every
def test_values_and_gradients_equal_the_formula_written_out(
    name: str, seed: int
) -> None:
    moved, h = (x.requires_grad_() for x in features(seed))
    found, expected = measured(name, moved, h), literal_distances(name, moved, h)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    wanted = torch.autograd.grad(expected.sum(), (moved, h))
    for one, other in zip(
        torch.autograd.grad(found.sum(), (moved, h)), wanted, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert float(one.abs().max()) > 1e-3


def test_the_scale_is_that_of_the_spread_and_not_of_the_size() -> None:
    _, h = features()
    expected = float(literal_scale(h.double()))
    assert float(feature_scale(h)) == pytest.approx(expected, rel=1e-6)
    assert float(feature_scale(h + 100)) == pytest.approx(expected, rel=1e-4)
    assert float(feature_scale(-5 * h)) == pytest.approx(5 * expected, rel=1e-6)


@every
def test_equal_features_are_at_zero_and_none_are_nearer(name: str) -> None:
    for seed in range(20):
        for shift in (0.0, 1e-7, 1e-6, 1e-5, 1e-3, 1.0):
            found = measured(name, *features(seed, shift=shift))
            assert float(found.min()) >= 0
            assert shift > 0 or float(found.max()) == 0


@every
def test_further_is_larger(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    h, change = torch.randn(2, 7, 5, generator=generator)
    nearer, further = (measured(name, h + s * change, h) for s in (0.1, 0.4))
    assert bool((further > 2 * nearer).all())


@pytest.mark.parametrize("factor", [1e-4, 0.1, 30.0, 1e4])
@every
def test_features_of_another_scale_are_as_far_apart(name: str, factor: float) -> None:
    moved, h = features()
    torch.testing.assert_close(
        measured(name, factor * moved, factor * h),
        measured(name, moved, h),
        rtol=1e-4,
        atol=1e-6,
    )


@every
def test_no_step_gains_by_shrinking_the_features(name: str) -> None:
    """The value would not tell a scale that is held fixed: only its gradient does."""
    moved, h = features()
    factor = torch.ones((), requires_grad=True)
    (gradient,) = torch.autograd.grad(
        measured(name, factor * moved, factor * h).sum(), factor
    )
    assert float(gradient) == pytest.approx(0, abs=1e-4)


@every
def test_features_that_are_all_one_give_numbers(name: str) -> None:
    h = torch.ones(4, 3, requires_grad=True)
    found = measured(name, h + 0, h)
    (gradient,) = torch.autograd.grad(found.sum(), h)
    assert bool(found.isfinite().all())
    assert bool(gradient.isfinite().all())


@every
def test_half_precision_features_are_measured_in_float32(name: str) -> None:
    moved, h = features()
    found = measured(name, moved.bfloat16(), h.bfloat16())
    expected = measured(name, moved.bfloat16().float(), h.bfloat16().float())
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_an_unknown_distance_is_told_with_those_there_are() -> None:
    with pytest.raises(UserError) as told:
        distance_of("euclid")
    assert str(told.value) == "there is no distance=euclid; choose l2|cosine|kl"
