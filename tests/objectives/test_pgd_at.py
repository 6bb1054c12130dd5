from dataclasses import replace

import pytest
import torch

from rrl_dist.attacks.balls import Linf
from rrl_dist.core.errors import UserError
from tests.objectives.harness import own_batch, small_encoder
from tests.objectives.labelling import EPS, labelled, raised


def test_loss_and_gradient_are_the_cross_entropy_at_attacked_images_alone() -> None:
    objective = labelled("pgd_at", small_encoder(1)).train()
    batch = objective.inner(own_batch("pgd_at"))
    logits = objective.trained()(batch.extras["pgd_at_x"]).double()
    total = torch.zeros((), dtype=torch.float64)
    for row, label in zip(logits, batch.labels, strict=True):
        total = total - torch.log(torch.exp(row[label]) / torch.exp(row).sum())
    expected = total / len(logits)
    weights = list(objective.parameters())
    wanted = torch.autograd.grad(expected, weights)
    # Another batch of clean images changes nothing: they are not trained on.
    other = replace(batch, views=(torch.zeros_like(batch.views[0]),))
    terms = objective(other)
    torch.testing.assert_close(terms["loss"].double(), expected, rtol=1e-5, atol=1e-6)
    for one, two in zip(
        torch.autograd.grad(terms["loss"], weights), wanted, strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)
    right = (logits.argmax(1) == batch.labels).double().mean()
    assert float(terms["adversarial_accuracy"]) == pytest.approx(float(right))


def test_the_attack_starts_at_the_balls_own_draw() -> None:
    objective = labelled("pgd_at", small_encoder(1), steps=1, relative_step=1e-12)
    batch = own_batch("pgd_at")
    x = batch.views[0]
    key = ("pgd_at", batch.step)
    start = Linf(EPS).start(x, seed=0, key=key, index=batch.index)
    found = objective.inner(batch).extras["pgd_at_x"]
    torch.testing.assert_close(found, start, rtol=0, atol=1e-6)
    assert float((found - x).abs().max()) > 0.9 * EPS


def test_training_lowers_the_loss_under_attack() -> None:
    """Against the same steps on clean images."""
    found = {}
    for name in ("pgd_at", "supervised"):
        objective = labelled(name, small_encoder(1)).train()
        optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
        for step in range(40):
            batch = objective.inner(replace(own_batch(name), step=step))
            optimizer.zero_grad()
            objective(batch)["loss"].backward()
            optimizer.step()
        measure = labelled("pgd_at", small_encoder(1), steps=10)
        measure.load_state_dict(objective.state_dict())
        batch = measure.inner(own_batch(name))
        worst = raised(measure, "pgd_at", batch, batch.extras["pgd_at_x"])
        found[name] = float(worst.detach().mean())
    assert found["pgd_at"] < 0.9 * found["supervised"]


@pytest.mark.parametrize("settings", [{"steps": 0}, {"relative_step": 0.0}])
def test_an_attack_that_would_not_attack_is_refused(
    settings: dict[str, float],
) -> None:
    with pytest.raises(UserError, match=r"^the inner attack has "):
        labelled("pgd_at", small_encoder(1), **settings)
