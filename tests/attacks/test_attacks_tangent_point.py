"""The tangent point next to a search for it."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from rrl_dist.attacks.tangent_point import largest_radius, tangent_point

D = 4


def crossing(
    x: np.ndarray, point: np.ndarray, normal: np.ndarray, k: np.ndarray
) -> float:
    """Distance from x to where the way from x to k meets the hyperplane."""
    before, behind = normal @ (x - point), normal @ (k - point)
    return float(-before / (behind - before) * np.linalg.norm(k - x))


def searched(
    x: np.ndarray, point: np.ndarray, normal: np.ndarray, radius: float
) -> float:
    """The least such distance over the half ball behind the hyperplane, from many
    starts, without knowledge of tangents."""

    def inside(free: np.ndarray) -> np.ndarray:
        moved = free / max(1.0, np.linalg.norm(free) / radius)
        height = normal @ moved
        return point + moved - min(2 * height, 0) * normal

    rng = np.random.default_rng(0)
    return min(
        minimize(
            lambda free: crossing(x, point, normal, inside(free)),
            2 * radius * rng.standard_normal(D),
            method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 1500, "adaptive": True},
        ).fun
        for _ in range(4)
    )


def some_case(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """x, point, normal [1, D] in float64, the image before the hyperplane."""
    generator = torch.Generator().manual_seed(seed)
    x, point, normal = torch.randn(3, 1, D, generator=generator, dtype=torch.float64)
    normal = normal / normal.norm()
    return x, point, torch.where(((x - point) * normal).sum() > 0, -normal, normal)


def some_cases() -> tuple[Tensor, Tensor, Tensor]:
    """[50, D] each."""
    x, point, normal = zip(*map(some_case, range(50)), strict=True)
    return torch.cat(x), torch.cat(point), torch.cat(normal)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_no_point_of_the_half_ball_leads_nearer(seed: int, share: float) -> None:
    x, point, normal = some_case(seed)
    radius = share * largest_radius(x, point, normal)
    k = tangent_point(x, point, normal, radius)
    flat = [column[0].numpy() for column in (x, point, normal)]
    ours = crossing(*flat, k[0].numpy())
    assert ours == pytest.approx(searched(*flat, float(radius)), rel=1e-4)


def test_the_line_touches_the_ball_behind_the_hyperplane() -> None:
    x, point, normal = some_cases()
    radius = 0.5 * largest_radius(x, point, normal)
    k = tangent_point(x, point, normal, radius)
    torch.testing.assert_close((k - point).norm(dim=1), radius)
    across = ((k - point) * (x - k)).sum(1)
    torch.testing.assert_close(across, torch.zeros_like(across))
    assert (((k - point) * normal).sum(1) > 0).all()


def test_at_the_largest_radius_it_is_the_foot_of_the_perpendicular() -> None:
    x, point, normal = some_cases()
    k = tangent_point(x, point, normal, largest_radius(x, point, normal))
    foot = x + ((point - x) * normal).sum(1, keepdim=True) * normal
    torch.testing.assert_close(k, foot)


def test_a_normal_that_is_nothing_is_no_direction() -> None:
    x, point, _ = some_case(0)
    none = torch.zeros_like(x)
    k = tangent_point(x, point, none, 0.5 * largest_radius(x, point, none))
    assert math.isfinite(float(k.sum()))
