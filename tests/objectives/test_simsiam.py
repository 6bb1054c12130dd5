import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NegativeCosineSimilarity
from torch import nn

from rrl_dist.objectives.simsiam import SimSiam, simsiam_loss
from rrl_dist.objectives.terms import spread
from tests.objectives.harness import own_batch, small_objective
from tests.objectives.views import losses_on_one_batch, rows, two_views


def literal_cosine(p: list[float], z: list[float]) -> float:
    product = sum(a * b for a, b in zip(p, z, strict=True))
    return product / math.sqrt(sum(a * a for a in p) * sum(b * b for b in z))


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_papers_formula_and_lightlys(seed: int) -> None:
    pa, pb = two_views(7, 5, seed=seed)
    za, zb = two_views(7, 5, seed=seed + 100)
    total = 0.0
    for i in range(7):
        total -= literal_cosine(rows(pa)[i], rows(zb)[i]) / 2
        total -= literal_cosine(rows(pb)[i], rows(za)[i]) / 2
    loss = float(simsiam_loss(pa, pb, za, zb))
    assert loss == pytest.approx(total / 7, rel=1e-5)
    theirs = NegativeCosineSimilarity()
    assert loss == pytest.approx(float(theirs(pa, zb) + theirs(pb, za)) / 2, rel=1e-6)


def test_the_network_is_the_papers() -> None:
    objective = small_objective("simsiam").train()
    assert isinstance(objective, SimSiam)
    last = objective.projector.mlp[-1]  # type: ignore[union-attr,index]
    assert isinstance(last, nn.modules.batchnorm._BatchNorm)
    assert not last.affine
    a, b = own_batch("simsiam").views
    # Algorithm 1, line by line.
    z1, z2 = (objective.projector(objective.encoder(x)) for x in (a, b))
    p1, p2 = objective.predictor(z1), objective.predictor(z2)
    unit = [F.normalize(t, dim=1) for t in (p1, p2, z1.detach(), z2.detach())]
    forth = -(unit[0] * unit[3]).sum(dim=1).mean()
    back = -(unit[1] * unit[2]).sum(dim=1).mean()
    loss = objective(own_batch("simsiam"))["loss"]
    torch.testing.assert_close(loss, forth / 2 + back / 2)
    weights = list(objective.parameters())
    wanted = torch.autograd.grad(forth / 2 + back / 2, weights)
    for one, other in zip(torch.autograd.grad(loss, weights), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_training_on_one_batch_brings_its_views_together() -> None:
    objective = small_objective("simsiam").train()
    losses = losses_on_one_batch(objective, own_batch("simsiam"), steps=30, lr=0.1)
    assert losses[-1] < losses[0] - 0.3


def test_spread_tells_collapse_from_directions_all_over_the_sphere() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 16, generator=generator)
    assert float(spread(z)) == pytest.approx(1 / math.sqrt(16), rel=0.02)
    assert float(spread(5 * z)) == pytest.approx(float(spread(z)), rel=1e-5)
    assert float(spread(z[:1].expand(9, -1))) == pytest.approx(0, abs=1e-6)
    by_hand = F.normalize(z, dim=1).std(0, correction=0).mean()
    torch.testing.assert_close(spread(z), by_hand)
