import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rrl_dist.attacks import L1, L2, Ball, Linf
from rrl_dist.core.errors import UserError

BALLS = (Linf, L2, L1)
radii = st.sampled_from([0.0, 1e-4, 1 / 255, 8 / 255, 0.05, 0.3, 0.5, 1.0, 3.0])


@st.composite
def images(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """(x, center): near and far, of few and many pixels, noise and single colours."""
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shape = draw(st.sampled_from([(1, 1), (3, 2, 4, 4), (2, 3, 32, 32)]))
    center = torch.rand(shape, generator=rng)
    if draw(st.booleans()):
        center = torch.full(shape, draw(st.sampled_from([0.0, 0.1, 0.7, 0.99, 1.0])))
    delta = torch.randn(shape, generator=rng)
    if draw(st.booleans()):
        delta = torch.full(shape, draw(st.sampled_from([-1.0, 0.0, 1.0])))
    return center + draw(st.sampled_from([1e-5, 0.01, 0.3, 10.0])) * delta, center


@pytest.mark.parametrize("kind", BALLS)
@settings(max_examples=150, deadline=None)
@given(pair=images(), eps=radii)
def test_projection_is_in_the_ball_and_in_range(
    kind: type[Ball], pair: tuple[Tensor, Tensor], eps: float
) -> None:
    x, center = pair
    projected = kind(eps).project(x, center)
    # In float64: the distance itself must not round the excess away.
    distance = kind(eps).distance(projected.double(), center.double())
    assert (distance <= eps * (1 + 1e-6)).all()
    assert projected.min() >= 0
    assert projected.max() <= 1
    if eps == 0:
        assert torch.equal(projected, center)


@pytest.mark.parametrize("kind", BALLS)
@settings(max_examples=60, deadline=None)
@given(pair=images(), eps=radii)
def test_points_of_the_ball_stay_where_they_are(
    kind: type[Ball], pair: tuple[Tensor, Tensor], eps: float
) -> None:
    x, center = pair
    inside = kind(eps).project(x, center)
    again = kind(eps).project(inside, center)
    torch.testing.assert_close(again, inside, rtol=0, atol=2e-7)


@pytest.mark.parametrize("kind", BALLS)
def test_no_point_of_the_ball_is_nearer(kind: type[Ball]) -> None:
    rng = torch.Generator().manual_seed(0)
    center = torch.full((500, 6), 0.5)
    ball = kind(0.3)
    x = center + 0.4 * torch.randn(500, 6, generator=rng)
    projected = ball.project(x, center)
    index = torch.arange(500)
    for seed in range(20):
        other = ball.start(center, seed=seed, key=(), index=index)
        mid = ball.project((other + projected) / 2, center)
        for candidate in (other, mid):
            assert ((x - projected).norm(dim=1) <= (x - candidate).norm(dim=1)).all()


@pytest.mark.parametrize("kind", BALLS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), exponent=st.integers(-37, 37))
def test_steepest_step_has_length_one_and_beats_others(
    kind: type[Ball], seed: int, exponent: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    direction = torch.randn(4, 3, 5, generator=rng)
    step = kind(1.0).steepest(direction * 10.0**exponent)
    length = kind(1.0).distance(step, torch.zeros_like(step))
    torch.testing.assert_close(length, torch.ones(4), rtol=1e-5, atol=0)
    other = torch.randn(4, 3, 5, generator=rng)
    size = kind(1.0).distance(other, torch.zeros_like(other))
    other = other / size[:, None, None]
    gain = (direction * step).flatten(1).sum(1)
    assert (gain >= (direction * other).flatten(1).sum(1) - 1e-5).all()


@pytest.mark.parametrize("kind", BALLS)
def test_steepest_of_zero_and_of_what_is_no_number_is_finite(kind: type[Ball]) -> None:
    grad = torch.zeros(4, 2, 2)
    grad[1] = torch.nan
    grad[2, 0, 0] = torch.inf
    grad[3] = torch.tensor([[3.0, torch.nan], [0.0, 0.0]])
    step = kind(1.0).steepest(grad)
    assert not step[:2].any()
    assert step[2:, 0, 0].tolist() == [1.0, 1.0]
    assert step.isfinite().all()


@pytest.mark.parametrize("kind", BALLS)
@settings(max_examples=60, deadline=None)
@given(pair=images(), eps=radii, seed=st.integers(0, 2**32))
def test_starts_are_in_the_ball_and_in_range(
    kind: type[Ball], pair: tuple[Tensor, Tensor], eps: float, seed: int
) -> None:
    ball, center = kind(eps), pair[1]
    index = torch.arange(len(center))
    for draw in (ball.start, ball.surface_start):
        x = draw(center, seed=seed, key=("k", 1), index=index)
        assert (ball.distance(x, center) <= eps * (1 + 1e-6)).all()
        assert x.min() >= 0
        assert x.max() <= 1


@pytest.mark.parametrize("kind", BALLS)
def test_starts_belong_to_samples(kind: type[Ball]) -> None:
    ball, center = kind(0.2), torch.full((6, 3, 4), 0.5)
    index = torch.tensor([5, 17, 2, 900, 0, 1])
    order = torch.tensor([3, 0, 4])
    for draw in (ball.start, ball.surface_start):
        x = draw(center, seed=1, key=("k",), index=index)
        part = draw(center[order], seed=1, key=("k",), index=index[order])
        assert torch.equal(part, x[order])
        assert len(x.unique(dim=0)) == 6
        for seed, key in ((2, ("k",)), (1, ("k", 0))):
            other = draw(center, seed=seed, key=key, index=index)
            assert (other != x).flatten(1).any(1).all()


def test_linf_start_is_uniform_in_the_cube() -> None:
    center = torch.full((4000, 5), 0.5)
    x = Linf(0.4).start(center, seed=0, key=(), index=torch.arange(4000))
    shift = (x - center) / 0.4
    assert shift.abs().max() <= 1 + 1e-6
    # Standard errors: 0.004 of the mean, 0.002 of the second moment.
    assert abs(shift.mean()) < 0.02
    assert abs(shift.square().mean() - 1 / 3) < 0.01


def test_l2_start_is_uniform_in_the_ball() -> None:
    center = torch.full((4000, 5), 0.5)
    x = L2(0.4).start(center, seed=0, key=(), index=torch.arange(4000))
    shift = (x - center) / 0.4
    volume = shift.norm(dim=1) ** 5  # uniform in [0, 1]
    assert abs(volume.mean() - 0.5) < 0.02
    assert abs(volume.square().mean() - 1 / 3) < 0.02
    assert shift.mean(0).abs().max() < 0.03


@pytest.mark.parametrize("kind", BALLS)
def test_surface_start_is_on_the_surface(kind: type[Ball]) -> None:
    center = torch.full((50, 2, 3), 0.5)
    x = kind(0.3).surface_start(center, seed=0, key=(), index=torch.arange(50))
    distance = kind(0.3).distance(x, center)
    torch.testing.assert_close(distance, torch.full((50,), 0.3), rtol=1e-5, atol=0)


def test_distances_are_those_of_the_norms() -> None:
    x = torch.tensor([[[0.3, 0.4]], [[0.0, 1.0]]])
    center = torch.zeros(2, 1, 2)
    torch.testing.assert_close(Linf(1).distance(x, center), torch.tensor([0.4, 1.0]))
    torch.testing.assert_close(L2(1).distance(x, center), torch.tensor([0.5, 1.0]))


def test_labels_and_other_radii() -> None:
    assert Linf(8 / 255).label() == "linf@0.03137"
    assert L2(0.1).with_eps(0.5).label() == "l2@0.5"
    assert Linf(0.1) == Linf(0.1) != L2(0.1)


@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", BALLS)
def test_impossible_radius_is_refused(kind: type[Ball], eps: float) -> None:
    with pytest.raises(UserError, match=f"eps={eps}"):
        kind(eps)
