import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack.fab_projections import (
    projection_l1,
    projection_l2,
    projection_linf,
)
from scipy.optimize import linprog
from torch import Tensor

from rrl_dist.attacks.hyperplane import Hyperplane

ORDERS = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}
every_norm = pytest.mark.parametrize("norm", list(ORDERS))
Rows = tuple[Tensor, Tensor, Tensor]

pixels = st.sampled_from([0.0, 1.0, 0.5]) | st.floats(0, 1)
weights = st.sampled_from([0.0, 1.0, -1.0, 0.25]) | st.floats(-3, 3).map(
    lambda w: round(w, 2)  # a linear program tells no finer ones from 0
)


@st.composite
def problems(draw: st.DrawFn) -> Rows:
    """(x [M, d], w [M, d], value at x [M]) in float64, corner cases among them."""
    d, m = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    table = st.lists(st.lists(pixels, min_size=d, max_size=d), min_size=m, max_size=m)
    normal = st.lists(st.lists(weights, min_size=d, max_size=d), min_size=m, max_size=m)
    values = st.lists(
        st.sampled_from([0.0, 1e-3, -8.0]) | st.floats(-3, 3), min_size=m, max_size=m
    )
    rows = (draw(table), draw(normal), draw(values))
    x, w, value = (torch.tensor(column, dtype=torch.float64) for column in rows)
    return x, w, value


def length(shift: Tensor, norm: str) -> Tensor:
    return torch.linalg.vector_norm(shift, ORDERS[norm], dim=1)


def as_program(x: np.ndarray, w: np.ndarray, value: float, norm: str) -> float:
    """The least length, by linear programming over (shift, t) with |shift_i| <= t_i (in
    Linf all t_i are one); inf where there is no such shift."""
    d = len(x)
    bounded = np.eye(d) if norm == "l1" else np.ones((d, 1))
    width = bounded.shape[1]
    found = linprog(
        np.r_[np.zeros(d), np.ones(width)],
        A_ub=np.block([[np.eye(d), -bounded], [-np.eye(d), -bounded]]),
        b_ub=np.zeros(2 * d),
        A_eq=np.r_[w, np.zeros(width)][None],
        b_eq=[-value],
        bounds=[*zip(-x, 1 - x, strict=True), *[(0, None)] * width],
    )
    return float(found.fun) if found.status == 0 else np.inf


def by_bisection(x: np.ndarray, w: np.ndarray, value: float) -> float:
    """The least Euclidean length: by the conditions of Karush, Kuhn, Tucker the point
    is x - t w cut to the box, and its value falls with t."""

    def moved(t: float) -> np.ndarray:
        return np.clip(x - np.sign(value) * t * w, 0, 1) - x

    low, high = 0.0, 1e4
    if abs(value) > -np.sign(value) * w @ moved(high):
        return np.inf if abs(value) > 1e-12 else 0.0
    for _ in range(200):
        middle = (low + high) / 2
        reached = -np.sign(value) * w @ moved(middle) >= abs(value)
        low, high = (low, middle) if reached else (middle, high)
    return float(np.linalg.norm(moved(high)))


@every_norm
@settings(max_examples=150, deadline=None)
@given(problem=problems())
def test_no_point_of_both_is_nearer(norm: str, problem: Rows) -> None:
    x, w, value = problem
    shift = Hyperplane.of(x, w, value).shift(x, norm)
    assert (x + shift).min() >= -1e-15
    assert (x + shift).max() <= 1 + 1e-15
    reached = value + (w * shift).sum(1)
    for i in range(len(x)):
        args = x[i].numpy(), w[i].numpy(), float(value[i])
        least = by_bisection(*args) if norm == "l2" else as_program(*args, norm)
        if least < np.inf:
            assert float(length(shift, norm)[i]) == pytest.approx(least, abs=1e-6)
            assert abs(float(reached[i])) < 1e-6
        else:
            # The corner that comes nearest in value, and no move where none helps.
            side = -value[i].sign() * w[i]
            corner = torch.where(side > 0, 1 - x[i], torch.where(side < 0, -x[i], 0))
            torch.testing.assert_close(shift[i], corner, rtol=0, atol=1e-6)


@every_norm
def test_is_that_of_the_authors_code(norm: str) -> None:
    rng = torch.Generator().manual_seed(0)
    x, w = torch.rand(2, 40, 3072, generator=rng)
    w = 1e-3 * (w - 0.5)
    x[:5] = x[:5].round()
    value = 0.05 * torch.randn(40, generator=rng)
    project = {"linf": projection_linf, "l2": projection_l2, "l1": projection_l1}[norm]
    theirs = project(x, w, (w * x).sum(1) - value)
    ours = Hyperplane.of(x, w, value).shift(x, norm)
    assert (length(theirs, norm) > 0).all()
    torch.testing.assert_close(
        length(ours, norm), length(theirs, norm), rtol=1e-3, atol=0
    )
    # In float32 as exact as the value itself.
    assert (value + (w.double() * ours.double()).sum(1)).abs().max() < 1e-6
    assert (x + ours).min() >= 0
    assert (x + ours).max() <= 1


@every_norm
def test_from_another_point_of_the_same_hyperplane(norm: str) -> None:
    rng = torch.Generator().manual_seed(1)
    x, other, w = torch.rand(3, 9, 12, generator=rng, dtype=torch.float64)
    w = w - 0.5
    value = torch.randn(9, generator=rng, dtype=torch.float64)
    there = Hyperplane.of(other, w, value + (w * (other - x)).sum(1))
    torch.testing.assert_close(
        Hyperplane.of(x, w, value).shift(other, norm), there.shift(other, norm)
    )


@every_norm
@pytest.mark.parametrize("exponent", [-36, -20, 20, 36])
def test_the_size_of_the_normal_does_not_matter(norm: str, exponent: int) -> None:
    rng = torch.Generator().manual_seed(2)
    x, w = torch.rand(2, 6, 30, generator=rng)
    value = torch.linspace(-1, 1, 6)
    plain = Hyperplane.of(x, w - 0.5, value)
    size = 10.0**exponent
    scaled = Hyperplane.of(x, size * (w - 0.5), size * value)
    torch.testing.assert_close(scaled.shift(x, norm), plain.shift(x, norm))
    torch.testing.assert_close(scaled.distance(norm), plain.distance(norm))


@every_norm
def test_without_a_box_it_is_as_far_as_its_distance(norm: str) -> None:
    rng = torch.Generator().manual_seed(3)
    x = torch.full((20, 10), 0.5, dtype=torch.float64)
    w = torch.randn(20, 10, generator=rng, dtype=torch.float64)
    value = 0.1 * torch.randn(20, generator=rng, dtype=torch.float64)
    plane = Hyperplane.of(x, w, value)
    torch.testing.assert_close(length(plane.shift(x, norm), norm), plane.distance(norm))


@every_norm
def test_rows_do_not_mix(norm: str) -> None:
    rng = torch.Generator().manual_seed(4)
    x, w = torch.rand(2, 16, 3072, generator=rng)
    w, value = w - 0.5, 20 * torch.randn(16, generator=rng)
    whole = Hyperplane.of(x, w, value).shift(x, norm)
    turned = (column.roll(5, 0) for column in (x, w, value))
    assert torch.equal(
        Hyperplane.of(*turned).shift(x.roll(5, 0), norm), whole.roll(5, 0)
    )
    other = w.clone()
    other[1:] = 0
    alone = Hyperplane.of(x, other, value).shift(x, norm)
    assert torch.equal(alone[0], whole[0])
    assert not alone[1:].any()


@every_norm
def test_what_is_no_number_gives_a_finite_move(norm: str) -> None:
    x = torch.full((5, 4), 0.25)
    w = torch.ones(5, 4)
    w[0, 0], w[1, 0], w[2] = torch.nan, -torch.inf, 0
    value = torch.tensor([-0.1, -0.1, -1.0, torch.nan, torch.inf])
    plane = Hyperplane.of(x, w, value)
    shift = plane.shift(x, norm)
    assert shift[0, 0] == 0
    assert shift[1, 0] < 0
    assert not shift[2].any()
    # An unknown value is far below zero.
    assert (x + shift)[3:].tolist() == [[1.0] * 4, [0.0] * 4]
    assert plane.distance(norm)[2] == torch.inf
    assert (plane.distance(norm)[3:] > 1e37).all()
