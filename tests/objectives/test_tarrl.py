from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.models.encoder import Encoder
from rrl_dist.objectives.ramp import Ramp
from rrl_dist.objectives.tarrl import TARRL
from tests.objectives.apart import literal_distances
from tests.objectives.harness import own_batch, small_encoder, small_objective
from tests.objectives.tarrl_runs import adversarial_inside, around, distances

BASES = {
    "simclr": partial(small_objective, "simclr"),
    "moco": partial(small_objective, "moco"),
    "supervised": partial(small_objective, "supervised"),
    "deacl": partial(small_objective, "deacl"),
    "adversarial": adversarial_inside,
}


def literal_term(objective: TARRL, batch: Batch, distance: str) -> Tensor:
    """The regularizer as the module's docstring has it, image by image."""
    x, moved = batch.extras["tarrl_x"], batch.extras["tarrl_moved"]
    h = objective.encoder(torch.cat([x, moved]))
    return literal_distances(distance, h[len(x) :], h[: len(x)]).sum() / len(x)


def assert_equal_with_gradients(objective: TARRL, batch: Batch, wanted: Tensor) -> None:
    """The loss is `wanted`, and so is its gradient of every trained parameter."""
    named = {k: p for k, p in objective.named_parameters() if p.requires_grad}
    expected = torch.autograd.grad(wanted, list(named.values()), allow_unused=True)
    loss = objective(batch)["loss"]
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    for key, one, other in zip(named, found, expected, strict=True):
        assert other is not None, key
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize("distance", ["l2", "cosine", "kl"])
def test_the_loss_is_the_bases_and_the_weighted_distance(distance: str) -> None:
    objective = around(small_objective("simclr"), distance=distance)
    batch = objective.inner(own_batch("simclr"))
    base = objective.base(batch)["loss"].double()
    wanted = base + 3.0 * literal_term(objective, batch, distance)
    assert_equal_with_gradients(objective, batch, wanted)


@pytest.mark.parametrize("name", BASES)
def test_any_method_may_be_inside(name: str) -> None:
    objective = around(BASES[name]())
    given = own_batch(name)
    batch = objective.inner(given)
    # What the base's own inner maximization makes of the batch is there too, and does
    # not change what the distance is measured from.
    alone = BASES[name]().train().inner(given)
    for mine, its in zip(batch.views, alone.views, strict=True):
        torch.testing.assert_close(mine, its)
    assert alone.extras.keys() | {"tarrl_x", "tarrl_moved"} == batch.extras.keys()
    assert batch.extras["tarrl_x"] is given.views[0]
    base = objective.base(batch)["loss"].double()
    wanted = base + 3.0 * literal_term(objective, batch, "l2")
    assert_equal_with_gradients(objective, batch, wanted)


@pytest.mark.parametrize(("progress", "share"), [(0.1, 0.0), (0.3, 0.25), (0.7, 1.0)])
def test_the_weight_comes_in_with_the_run(progress: float, share: float) -> None:
    objective = around(small_objective("simclr"), ramp=Ramp(start=0.2, end=0.6))
    batch = replace(objective.inner(own_batch("simclr")), progress=progress)
    terms = objective(batch)
    assert float(terms["tarrl_weight"]) == pytest.approx(3.0 * share)
    wanted = terms["simclr_loss"] + 3.0 * share * terms["tarrl_distance"]
    torch.testing.assert_close(terms["loss"].detach(), wanted)
    assert float(terms["tarrl_distance"]) > 0.01, "it is told while it does not count"


def test_all_terms_are_logged_by_name_and_without_graph() -> None:
    objective = around(adversarial_inside())
    terms = objective(objective.inner(own_batch("byol")))
    assert terms.keys() == {
        "loss",
        "adversarial_loss",
        "byol_loss",
        "projection_std",
        "tarrl_distance",
        "tarrl_weight",
    }
    assert [name for name, term in terms.items() if term.requires_grad] == ["loss"]
    assert {term.device for term in terms.values()} == {terms["loss"].device}


class Scaled(nn.Module):
    """An encoder whose features are multiplied by a trained factor."""

    def __init__(self, encoder: Encoder, factor: float) -> None:
        super().__init__()
        self.inside, self.num_features = encoder, encoder.num_features
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.inside(x)


def with_scale(factor: float, distance: str) -> TARRL:
    def encoder(seed: int) -> Any:
        return Scaled(small_encoder(seed), factor)

    base = small_objective("supervised", encoder=encoder)
    return around(base, distance=distance)


@pytest.mark.parametrize("distance", ["l2", "cosine", "kl"])
def test_smaller_features_are_not_more_robust(distance: str) -> None:
    plain, small = (with_scale(factor, distance) for factor in (1.0, 1e-3))
    batch = plain.inner(own_batch("supervised"))
    attacked = small.inner(own_batch("supervised")).extras["tarrl_moved"]
    same = (attacked - batch.extras["tarrl_moved"]).abs() < 1e-6
    assert float(same.float().mean()) > 0.99
    found = small(batch)["tarrl_distance"]
    torch.testing.assert_close(
        found, plain(batch)["tarrl_distance"], rtol=1e-3, atol=1e-6
    )
    term = plain(batch)["loss"] - plain.base(batch)["loss"]
    (gradient,) = torch.autograd.grad(term, plain.encoder.factor)
    assert float(gradient) == pytest.approx(0, abs=1e-4)


def test_training_brings_the_worst_features_near() -> None:
    """Against the same steps with the term off."""
    found = {}
    for weight in (0.0, 3.0):
        objective = around(small_objective("simclr"), weight=weight)
        optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
        for step in range(25):
            batch = objective.inner(replace(own_batch("simclr"), step=step))
            optimizer.zero_grad()
            objective(batch)["loss"].backward()
            optimizer.step()
        x = own_batch("simclr").views[0]
        measure = around(objective.base, weight=1.0)
        moved = measure.inner(own_batch("simclr")).extras["tarrl_moved"]
        found[weight] = float(distances(measure, x, moved, "l2").mean())
    assert found[3.0] < 0.7 * found[0.0]


def test_without_weight_it_is_the_base_to_the_last_bit() -> None:
    """Batch norm's statistics included, which a pass on attacked images would move."""
    off, base = around(small_objective("simclr"), weight=0.0), small_objective("simclr")
    losses = [o(o.inner(own_batch("simclr")))["loss"] for o in (off.train(), base)]
    assert torch.equal(losses[0], losses[1])
    for key, value in base.state_dict().items():
        assert torch.equal(off.base.state_dict()[key], value), key


def test_one_of_the_same_kind_inside_is_refused() -> None:
    with pytest.raises(UserError, match="TARRL is around another TARRL"):
        around(around(adversarial_inside()))


def test_it_is_for_the_loop_what_is_inside() -> None:
    objective = around(small_objective("moco"))
    assert objective.encoder is objective.base.encoder
    assert objective.trained() is objective.base.encoder
    assert objective.moves_weights
    assert not objective.needs_labels
    assert objective.teacher is None
    names = list(objective.state_dict())
    assert all(name.startswith("base.") for name in names)
    labelled = around(small_objective("supervised"))
    assert labelled.needs_labels
    assert not labelled.moves_weights
    assert type(labelled.trained()).__name__ == "Classifier"
    distilled = around(small_objective("deacl"))
    assert distilled.teacher is distilled.base.teacher is not None


def test_an_unknown_distance_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^there is no distance=l1; choose l2\|cos"):
        around(small_objective("simclr"), distance="l1")
