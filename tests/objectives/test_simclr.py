import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from lightly.loss import NTXentLoss

from rrl_dist.objectives.simclr import nt_xent
from tests.objectives.harness import own_batch, small_objective


def literal_nt_xent(*views: torch.Tensor, temperature: float) -> float:
    """Eq. 1 of the paper, one anchor at a time, and one partner at a time."""
    z = [row for view in views for row in view.detach().double()]
    n, total = len(views[0]), 0.0
    for i, anchor in enumerate(z):
        others = sum(
            math.exp(float(anchor @ other) / temperature)
            for k, other in enumerate(z)
            if k != i
        )
        for j in range(i % n, len(z), n):
            if j != i:
                similar = math.exp(float(anchor @ z[j]) / temperature)
                total -= math.log(similar / others)
    return total / len(z)


def unit_views(count: int, n: int, dims: int, *, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, n, dims, generator=generator)
    return list(F.normalize(z, dim=2).unbind())


@settings(deadline=None, max_examples=25)
@given(
    views=st.integers(2, 4),
    n=st.integers(2, 9),
    seed=st.integers(0, 99),
    temperature=st.floats(0.1, 2.0),
)
def test_equals_the_papers_formula(
    views: int, n: int, seed: int, temperature: float
) -> None:
    z = unit_views(views, n, 5, seed=seed)
    expected = literal_nt_xent(*z, temperature=temperature)
    assert float(nt_xent(*z, temperature=temperature)) == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("views", [2, 3])
def test_every_side_of_a_similarity_gets_its_gradient(views: int) -> None:
    """Against differences; keys without gradient, as in RoCL's code, would fail."""
    z = [view.requires_grad_() for view in unit_views(views, 4, 3, seed=1)]
    gradients = torch.autograd.grad(nt_xent(*z, temperature=0.5), z)
    way = unit_views(views, 4, 3, seed=2)
    ends = [
        literal_nt_xent(
            *(
                view.detach().double() + side * w
                for view, w in zip(z, way, strict=True)
            ),
            temperature=0.5,
        )
        for side in (-1e-5, 1e-5)
    ]
    slope = sum(float((g * w).sum()) for g, w in zip(gradients, way, strict=True))
    assert slope == pytest.approx((ends[1] - ends[0]) / 2e-5, rel=1e-3)
    assert abs(slope) > 0.05


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_equals_lightlys(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    za, zb = (F.normalize(torch.randn(6, 4, generator=generator)) for _ in range(2))
    theirs = NTXentLoss(temperature=temperature)(za, zb)
    torch.testing.assert_close(nt_xent(za, zb, temperature=temperature), theirs)


def test_does_not_depend_on_which_view_comes_first() -> None:
    generator = torch.Generator().manual_seed(0)
    za, zb = (F.normalize(torch.randn(6, 4, generator=generator)) for _ in range(2))
    forth, back = nt_xent(za, zb, temperature=0.2), nt_xent(zb, za, temperature=0.2)
    assert float(forth) == pytest.approx(float(back), rel=1e-6)


def test_the_network_is_the_papers() -> None:
    """Both views pass encoder and head together, so batch norm sees 2N images."""
    objective = small_objective("simclr").train()
    a, b = own_batch("simclr").views
    with torch.no_grad():
        z = F.normalize(objective.projector(objective.encoder(torch.cat([a, b]))))
    za, zb = z[: len(a)], z[len(a) :]
    terms = objective(own_batch("simclr"))
    expected = literal_nt_xent(za, zb, temperature=0.2)
    assert float(terms["loss"].detach()) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(terms["view_similarity"], (za * zb).sum(1).mean())


def test_training_on_one_batch_brings_its_views_together() -> None:
    objective = small_objective("simclr").train()
    batch = own_batch("simclr")
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    losses = []
    for _ in range(30):
        loss = objective(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3
