import pytest
import torch
from lightly.loss import NegativeCosineSimilarity

from rrl_dist.objectives.byol import BYOL, byol_loss
from tests.objectives.harness import own_batch, small_objective
from tests.objectives.views import losses_on_one_batch, rows, two_views


def literal_distance(p: torch.Tensor, t: torch.Tensor) -> float:
    """Eq. 2: mean squared distance of unit vectors, one sample at a time."""
    total = 0.0
    for x, y in zip(rows(p), rows(t), strict=True):
        length, other = (sum(v * v for v in row) ** 0.5 for row in (x, y))
        pairs = zip(x, y, strict=True)
        total += sum((a / length - b / other) ** 2 for a, b in pairs)
    return total / len(p)


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_papers_formula_and_lightlys(seed: int) -> None:
    pa, pb = two_views(7, 5, seed=seed)
    ta, tb = two_views(7, 5, seed=seed + 100)
    loss = float(byol_loss(pa, pb, ta, tb))
    expected = literal_distance(pa, tb) + literal_distance(pb, ta)
    assert loss == pytest.approx(expected, rel=1e-5)
    theirs = NegativeCosineSimilarity()  # -1 where the distance is 0, 1 where it is 4
    both = float(theirs(pa, tb) + theirs(pb, ta))
    assert loss == pytest.approx(4 + 2 * both, rel=1e-5, abs=1e-6)


@pytest.fixture
def objective() -> BYOL:
    """With a slow copy that is no longer a copy."""
    made = small_objective("byol").train()
    assert isinstance(made, BYOL)
    losses_on_one_batch(made, own_batch("byol"), steps=3, lr=0.1)
    made.after_step(0.3)
    return made


def test_the_network_is_the_papers(objective: BYOL) -> None:
    a, b = own_batch("byol").views
    encoder, projector = objective.target.module  # type: ignore[misc]
    pa, pb = (
        objective.predictor(objective.projector(objective.encoder(x))) for x in (a, b)
    )
    ta, tb = (projector(encoder(x)) for x in (a, b))
    expected = literal_distance(pa.detach(), tb) + literal_distance(pb.detach(), ta)
    loss = objective(own_batch("byol"))["loss"]
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_no_gradient_flows_into_the_targets(objective: BYOL) -> None:
    objective(own_batch("byol"))["loss"].backward()
    for name, parameter in objective.named_parameters():
        trained = not name.startswith("target.")
        assert (parameter.grad is not None) == trained, name
        assert parameter.requires_grad == trained, name


def test_training_on_one_batch_brings_its_views_together() -> None:
    made = small_objective("byol").train()
    losses = losses_on_one_batch(made, own_batch("byol"), steps=30, lr=0.1)
    assert losses[-1] < losses[0] - 0.5
