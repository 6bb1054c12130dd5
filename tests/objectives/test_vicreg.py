import math
from statistics import fmean, variance

import pytest
import torch
from lightly.loss import VICRegLoss

from rrl_dist.objectives.vicreg import VICReg, vicreg_terms
from tests.objectives.harness import own_batch, small_objective
from tests.objectives.views import losses_on_one_batch, rows, two_views

EPS = 1e-4


def literal_terms(za: torch.Tensor, zb: torch.Tensor) -> tuple[float, float, float]:
    """The authors' code in plain numbers: one column, one pair of columns at a time."""
    a, b = rows(za), rows(zb)
    n, d = za.shape
    pairs = zip(a, b, strict=True)
    apart = sum((p - q) ** 2 for x, y in pairs for p, q in zip(x, y, strict=True))
    hinge, coupled = 0.0, 0.0
    for view in (a, b):
        columns = list(zip(*view, strict=True))
        for i, left in enumerate(columns):
            hinge += max(0.0, 1 - math.sqrt(variance(left) + EPS)) / d / 2
            for j, right in enumerate(columns):
                if i != j:
                    x = [value - fmean(left) for value in left]
                    y = [value - fmean(right) for value in right]
                    cov = sum(p * q for p, q in zip(x, y, strict=True)) / (n - 1)
                    coupled += cov**2 / d
    return apart / (n * d), hinge, coupled


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_formula_written_out_and_lightlys(seed: int) -> None:
    za, zb = two_views(9, 6, seed=seed)
    terms = vicreg_terms(za, zb, eps=EPS)
    expected = literal_terms(za, zb)
    for found, wanted in zip(terms, expected, strict=True):
        assert float(found) == pytest.approx(wanted, rel=1e-4)
        assert wanted > 1e-3
    mine = 25 * terms[0] + 10 * terms[1] + 3 * terms[2]
    theirs = VICRegLoss(lambda_param=25, mu_param=10, nu_param=3, eps=EPS)(za, zb)
    assert float(mine) == pytest.approx(float(theirs), rel=1e-5)


def test_no_term_is_negative_and_equal_views_have_no_invariance_term() -> None:
    za, _ = two_views(9, 6)
    for scale in (0.0, 1e-3, 1.0, 1e3):
        terms = vicreg_terms(scale * za, scale * za, eps=EPS)
        assert float(terms[0]) == 0
        assert min(float(term) for term in terms) >= 0


def test_the_gradient_is_finite_where_all_rows_are_one() -> None:
    z = torch.ones(6, 4, requires_grad=True)
    sum(vicreg_terms(z, z, eps=EPS)).backward()  # type: ignore[union-attr]
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


def test_the_objective_weighs_its_terms() -> None:
    objective = small_objective("vicreg").train()
    assert isinstance(objective, VICReg)
    a, b = own_batch("vicreg").views
    expected = literal_terms(
        objective.projector(objective.encoder(a)).detach(),
        objective.projector(objective.encoder(b)).detach(),
    )
    terms = objective(own_batch("vicreg"))
    for name, wanted in zip(
        ("invariance", "variance", "covariance"), expected, strict=True
    ):
        assert float(terms[name]) == pytest.approx(wanted, rel=1e-3)
    total = 25 * expected[0] + 25 * expected[1] + expected[2]
    assert float(terms["loss"].detach()) == pytest.approx(total, rel=1e-3)


def test_training_on_one_batch_lowers_the_loss() -> None:
    objective = small_objective("vicreg").train()
    losses = losses_on_one_batch(objective, own_batch("vicreg"), steps=30, lr=0.01)
    assert losses[-1] < 0.7 * losses[0]
