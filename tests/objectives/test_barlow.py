import math
from statistics import fmean

import pytest
import torch
from lightly.loss import BarlowTwinsLoss

from rrl_dist.objectives.barlow import Barlow, barlow_terms, standardize
from tests.objectives.harness import own_batch, small_objective
from tests.objectives.views import losses_on_one_batch, rows, two_views

EPS = 1e-5


def literal_terms(za: torch.Tensor, zb: torch.Tensor) -> tuple[float, float]:
    """Eq. 1 and 2 of the paper, one entry of the matrix at a time."""
    a, b = rows(za), rows(zb)
    columns_a, columns_b = list(zip(*a, strict=True)), list(zip(*b, strict=True))
    on, off = 0.0, 0.0
    for i, left in enumerate(columns_a):
        for j, right in enumerate(columns_b):
            x = [value - fmean(left) for value in left]
            y = [value - fmean(right) for value in right]
            product = sum(p * q for p, q in zip(x, y, strict=True))
            norms = math.sqrt(sum(p * p for p in x)) * math.sqrt(sum(q * q for q in y))
            c = product / norms
            on += (1 - c) ** 2 if i == j else 0.0
            off += c**2 if i != j else 0.0
    return on, off


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_papers_formula_and_lightlys(seed: int) -> None:
    za, zb = two_views(9, 6, seed=seed)
    on, off = barlow_terms(standardize(za, eps=EPS), standardize(zb, eps=EPS))
    expected = literal_terms(za, zb)  # without eps
    assert float(on) == pytest.approx(expected[0], rel=1e-3)
    assert float(off) == pytest.approx(expected[1], rel=1e-3)
    theirs = BarlowTwinsLoss(lambda_param=0.3)(za, zb)
    assert float(on + 0.3 * off) == pytest.approx(float(theirs), rel=1e-5)


def test_columns_are_standardized_as_by_batch_norm() -> None:
    za, _ = two_views(9, 6)
    norm = torch.nn.BatchNorm1d(6, affine=False, eps=1e-3)
    torch.testing.assert_close(standardize(za, eps=1e-3), norm(za))


def test_the_loss_is_zero_for_equal_views_with_independent_columns() -> None:
    za = torch.linalg.qr(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
    z = za.Q - za.Q.mean(0)
    z = torch.linalg.qr(z).Q * math.sqrt(8)  # centered, and C is the identity
    on, off = barlow_terms(z, z)
    assert float(on) == pytest.approx(0, abs=1e-6)
    assert float(off) == pytest.approx(0, abs=1e-6)


def test_the_objective_weighs_its_terms() -> None:
    objective = small_objective("barlow").train()
    assert isinstance(objective, Barlow)
    a, b = own_batch("barlow").views
    on, off = literal_terms(
        objective.projector(objective.encoder(a)).detach(),
        objective.projector(objective.encoder(b)).detach(),
    )
    terms = objective(own_batch("barlow"))
    expected = 0.1 * (on + 5e-3 * off)
    assert float(terms["loss"].detach()) == pytest.approx(expected, rel=1e-2)
    assert float(terms["invariance"]) == pytest.approx(on, rel=1e-2)
    assert float(terms["redundancy"]) == pytest.approx(off, rel=1e-2)


def test_training_on_one_batch_lowers_the_loss() -> None:
    objective = small_objective("barlow").train()
    losses = losses_on_one_batch(objective, own_batch("barlow"), steps=30, lr=0.1)
    assert losses[-1] < 0.5 * losses[0]
