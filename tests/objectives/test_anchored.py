from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.models.encoder import Classifier
from rrl_dist.objectives.anchored import Anchored, similarities
from rrl_dist.objectives.ramp import Ramp
from rrl_dist.objectives.terms import divergence
from tests.objectives.harness import own_batch, small_encoder, small_objective
from tests.objectives.labelling import MAKERS, anchored, labelled

NOW = Ramp(start=0.0, end=0.0)
forms = pytest.mark.parametrize("form", ["cosine", "relations"])


def literal_cosine(h: Tensor, before: Tensor) -> Tensor:
    """Mean of 1 - cos of the rows."""
    total = h.new_zeros(())
    for a, b in zip(h, before, strict=True):
        total = total + 1 - a @ b / (a.norm() * b.norm())
    return total / len(h)


def literal_relations(h: Tensor, before: Tensor) -> Tensor:
    """Mean of KL(q0_i || q_i) at a temperature of 0.2, one pair of images at a time."""

    def neighbours(z: Tensor, i: int) -> Tensor:
        others = [j for j in range(len(z)) if j != i]
        cosines = [z[i] @ z[j] / (z[i].norm() * z[j].norm()) for j in others]
        weights = torch.exp(torch.stack(cosines) / 0.2)
        return weights / weights.sum()

    total = h.new_zeros(())
    for i in range(len(h)):
        q0, q = neighbours(before, i), neighbours(h, i)
        total = total + (q0 * torch.log(q0 / q)).sum()
    return total / len(h)


LITERAL = {"cosine": literal_cosine, "relations": literal_relations}


def made(base: str = "supervised", **changes: Any) -> Anchored:
    """In train mode, held near another encoder than its own."""
    inside = labelled(base, small_encoder(1))
    objective = anchored(inside, small_encoder(3), **{"ramp": NOW, **changes})
    objective.train()
    return objective


@forms
@pytest.mark.parametrize("base", MAKERS)
def test_the_loss_is_the_bases_and_the_weighted_distance(base: str, form: str) -> None:
    objective = made(base, form=form)
    given = own_batch(base)
    batch = objective.inner(given)
    x = given.views[0]
    assert batch.extras["anchored_x"] is x
    h, before = objective.encoder(x).double(), objective.teacher(x).double()
    plain = objective.base(batch)["loss"].double()
    wanted = plain + 2 * LITERAL[form](h, before)
    named = dict(objective.named_parameters())
    expected = torch.autograd.grad(wanted, list(named.values()))
    terms = objective(batch)
    torch.testing.assert_close(terms["loss"].double(), wanted, rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(terms["loss"], list(named.values()))
    for key, one, other in zip(named, found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, msg=key)
    assert float(terms["anchored_distance"]) > 0.01


def test_without_weight_it_is_the_base_to_the_last_bit() -> None:
    """Batch norm's statistics included, which another pass would move."""
    off, base = made("trades", weight=0.0), labelled("trades", small_encoder(1)).train()
    off.base.load_state_dict(base.state_dict())
    batch = own_batch("trades")
    losses = [o(o.inner(batch))["loss"] for o in (off, base)]
    assert torch.equal(losses[0], losses[1])
    for key, value in base.state_dict().items():
        assert torch.equal(off.base.state_dict()[key], value), key


@forms
def test_at_the_pretrained_features_the_distance_is_zero(form: str) -> None:
    before = small_encoder(1)
    base = labelled("supervised", deepcopy(before))
    objective = anchored(base, before, form=form, ramp=NOW).eval()
    terms = objective(objective.inner(own_batch("supervised")))
    assert float(terms["anchored_distance"]) == pytest.approx(0, abs=1e-6)
    assert float(terms["anchored_distance"]) >= 0


def test_relations_let_features_turn_and_stretch_and_cosine_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(8, 5, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator))
    turned = 3 * h @ turn
    one, other = (similarities(z, temperature=0.2) for z in (h, turned))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(divergence(one, other), torch.zeros(8))
    assert float(F.cosine_similarity(h, turned).mean()) < 0.9


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_an_image_is_compared_with_all_others_and_not_with_itself(
    seed: int, rows: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(rows, 4, generator=generator)
    found = similarities(h, temperature=0.5)
    unit = F.normalize(h, dim=1)
    for i in range(rows):
        others = [float(unit[i] @ unit[j]) / 0.5 for j in range(rows) if j != i]
        assert found[i].tolist() == pytest.approx(others, abs=1e-5)


@forms
def test_training_stays_nearer_to_the_pretrained_features(form: str) -> None:
    """Against the same steps with the term off."""
    found = {}
    for weight in (0.0, 5.0):
        before = small_encoder(1)
        base = labelled("supervised", deepcopy(before))
        options: dict[str, Any] = {"form": form, "ramp": NOW}
        objective = anchored(base, before, weight=weight, **options)
        objective.train()
        _train(objective)
        measure = anchored(base, before, weight=1.0, **options).eval()
        terms = measure(measure.inner(own_batch("supervised")))
        found[weight] = float(terms["anchored_distance"])
    assert found[5.0] < 0.7 * found[0.0]


def _train(objective: Anchored) -> None:
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    for step in range(25):
        batch = objective.inner(replace(own_batch("supervised"), step=step))
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()


def test_the_pretrained_encoder_is_no_part_of_it() -> None:
    objective = made()
    before = {k: v.clone() for k, v in objective.teacher.module.state_dict().items()}
    _train(objective)
    for key, value in objective.teacher.module.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(name.startswith("base.") for name in objective.state_dict())
    assert not objective.teacher.module.training
    assert isinstance(objective.trained(), Classifier)
    assert objective.needs_labels
    assert objective.views == 1


@pytest.mark.parametrize(("progress", "share"), [(0.1, 0.0), (0.3, 0.25), (0.7, 1.0)])
def test_the_weight_comes_in_with_the_run(progress: float, share: float) -> None:
    objective = made(ramp=Ramp(start=0.2, end=0.6))
    batch = replace(objective.inner(own_batch("supervised")), progress=progress)
    terms = objective(batch)
    assert float(terms["anchored_weight"]) == pytest.approx(2 * share)
    wanted = terms["supervised_loss"] + 2 * share * terms["anchored_distance"]
    torch.testing.assert_close(terms["loss"].detach(), wanted)


def test_a_method_without_labels_may_be_inside() -> None:
    objective = anchored(small_objective("moco"), small_encoder(3), ramp=NOW).train()
    terms = objective(objective.inner(own_batch("moco")))
    assert "moco_loss" in terms
    objective.after_step(0.5)  # moves the slow copy
    assert not objective.needs_labels


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"weight": -1.0}, "a term has weight=-1.0; set at least 0"),
        ({"form": "l2"}, r"^objective\.form=l2; choose cosine\|relations$"),
        ({"temperature": 0.0}, r"^objective\.temperature=0\.0; set more than 0$"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        made(**settings)


def test_an_encoder_that_stays_as_it_is_needs_no_anchor() -> None:
    base = labelled("supervised", small_encoder(1), train_encoder=False)
    with pytest.raises(UserError, match=r"set objective\.base\.train_encoder=true$"):
        anchored(base, small_encoder(3))


def test_a_pretrained_encoder_of_another_width_is_refused() -> None:
    other = small_encoder(3)
    other.num_features = 7
    with pytest.raises(UserError, match=r"^the teacher has 7 features and the model"):
        anchored(labelled("supervised", small_encoder(1)), other)
