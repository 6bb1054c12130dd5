from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rrl_dist.attacks.balls import Linf
from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.objectives.adversarial import Adversarial
from rrl_dist.objectives.moco import MoCo
from rrl_dist.objectives.objective import Objective
from rrl_dist.objectives.ramp import Ramp
from tests.objectives.harness import own_batch, small_objective
from tests.objectives.tarrl_runs import adversarial_inside
from tests.objectives.tarrl_runs import around as tarrl_around
from tests.objectives.urrl_runs import AUGMIX, around, assert_equal_with_gradients


def tarrl_inside() -> Objective:
    return tarrl_around(small_objective("simclr"))


@pytest.mark.parametrize(
    ("name", "inside"), [("simclr", tarrl_inside), ("byol", adversarial_inside)]
)
def test_it_may_be_around_what_is_around_another(
    name: str, inside: Callable[[], Objective]
) -> None:
    objective, given = around(inside()), own_batch(name)
    batch = objective.inner(given)
    # The attack starts from mixed views; consistency is of the view as it was.
    assert batch.extras["urrl_clean"] is given.views[0]
    mixed = batch.extras["urrl_mixed"].chunk(2)[0]
    attacked = batch.extras.get("tarrl_moved", batch.views[0])
    assert float((attacked - mixed).abs().max()) <= 8 / 255 + 1e-6
    assert not torch.equal(attacked, mixed)
    assert_equal_with_gradients(objective, batch, 12.0, js=name == "simclr")


def test_another_may_be_around_it() -> None:
    inside = around("moco")
    objective, given = tarrl_around(inside), own_batch("moco")
    batch = objective.inner(given)
    assert batch.extras["tarrl_x"] is given.views[0]
    assert batch.extras["urrl_clean"] is given.views[0]
    terms = objective(batch)
    own = inside(batch)
    names = {"urrl_loss", "moco_loss", "urrl_consistency", "urrl_weight"}
    assert names | {"tarrl_distance", "tarrl_weight"} <= terms.keys()
    wanted = own["loss"] + 3.0 * terms["tarrl_distance"]
    torch.testing.assert_close(terms["loss"], wanted, rtol=1e-4, atol=1e-5)
    objective.after_step(0.5)
    assert isinstance(inside.base, MoCo)
    assert int(inside.base.oldest) == len(given.index), "the queue got its keys"


def test_an_attack_on_the_views_goes_inside() -> None:
    with pytest.raises(UserError, match="put adversarial inside it"):
        Adversarial(
            base=around("simclr"),
            attacked=1,
            ball=Linf(8 / 255),
            steps=1,
            relative_step=1.0,
            seed=0,
        )


def mixture(view: Tensor, batch: Batch, number: int) -> Tensor:
    key = ("urrl", batch.step, number)
    return AUGMIX(view, seed=0, key=key, index=batch.index)


@pytest.mark.parametrize("mixed", [0, 1, 2])
def test_so_many_of_the_bases_views_are_mixed(mixed: int) -> None:
    given = own_batch("simclr")
    batch = around("simclr", mixed=mixed).inner(given)
    alone = around("simclr", mixed=mixed, weight=0.0).inner(given)
    for number, view in enumerate(given.views):
        wanted = mixture(view, given, number) if number < mixed else view
        assert torch.equal(batch.views[number], wanted)
        assert torch.equal(alone.views[number], wanted), "the term is all that differs"
    assert batch.images is given.images
    assert not alone.extras
    first, second = batch.extras["urrl_mixed"].chunk(2)
    assert torch.equal(first, mixture(given.views[0], given, 0))
    assert torch.equal(second, mixture(given.views[0], given, 2))
    assert not torch.equal(first, second)


def test_mixtures_belong_to_samples_and_steps() -> None:
    objective, given = around("simclr"), own_batch("simclr")
    whole = objective.inner(given).extras["urrl_mixed"].chunk(2)
    rows = torch.tensor([5, 2, 11])
    few = Batch(
        given.images[rows],
        tuple(view[rows] for view in given.views),
        given.labels[rows],
        given.index[rows],
        given.step,
    )
    for part, every in zip(
        objective.inner(few).extras["urrl_mixed"].chunk(2), whole, strict=True
    ):
        assert torch.equal(part, every[rows])
    later = objective.inner(replace(given, step=8)).extras["urrl_mixed"]
    assert not torch.equal(later.chunk(2)[0], whole[0])


@pytest.mark.parametrize("mixed", [0, 2])
def test_without_weight_it_is_the_base_on_its_views_to_the_last_bit(mixed: int) -> None:
    off, base = around("simclr", weight=0.0, mixed=mixed), small_objective("simclr")
    batch = off.inner(own_batch("simclr"))
    assert torch.equal(off(batch)["loss"], base.train()(batch)["loss"])
    for key, value in base.state_dict().items():
        assert torch.equal(off.base.state_dict()[key], value), key


@pytest.mark.parametrize(("progress", "share"), [(0.1, 0.0), (0.3, 0.25), (0.7, 1.0)])
def test_the_weight_comes_in_with_the_run(progress: float, share: float) -> None:
    objective = around("vicreg", ramp=Ramp(start=0.2, end=0.6))
    batch = replace(objective.inner(own_batch("vicreg")), progress=progress)
    terms = objective(batch)
    assert float(terms["urrl_weight"]) == pytest.approx(12.0 * share)
    wanted = terms["vicreg_loss"] + 12.0 * share * terms["urrl_consistency"]
    torch.testing.assert_close(terms["loss"].detach(), wanted)
    assert float(terms["urrl_consistency"]) > 1e-3, "it is told while it does not count"


def test_all_terms_are_logged_by_name_and_without_graph() -> None:
    objective = around("simclr")
    terms = objective(objective.inner(own_batch("simclr")))
    own = {"urrl_consistency", "urrl_weight"}
    assert terms.keys() == {"loss", "simclr_loss", "view_similarity", *own}
    assert [name for name, term in terms.items() if term.requires_grad] == ["loss"]


def test_inner_leaves_no_trace() -> None:
    objective = around("byol")
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    modes = [m.training for m in objective.modules()]
    batch = objective.inner(own_batch("byol"))
    assert not any(v.requires_grad for v in (*batch.views, *batch.extras.values()))
    assert [m.training for m in objective.modules()] == modes
    assert all(p.grad is None for p in objective.parameters())
    for key, value in objective.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_training_brings_mixtures_near_their_image() -> None:
    """Against the same steps on the same views with the term off."""
    found = {}
    for weight in (0.0, 12.0):
        objective = around("simclr", weight=weight)
        optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
        for step in range(25):
            batch = objective.inner(replace(own_batch("simclr"), step=step))
            optimizer.zero_grad()
            objective(batch)["loss"].backward()
            optimizer.step()
        measure = around(objective.base)
        batch = measure.inner(replace(own_batch("simclr"), step=100))
        found[weight] = float(measure(batch)["urrl_consistency"])
    assert found[12.0] < 0.7 * found[0.0]


def test_it_is_for_the_loop_what_is_inside() -> None:
    objective = around("moco")
    assert objective.encoder is objective.base.encoder is objective.trained()
    assert objective.moves_weights
    assert all(name.startswith("base.") for name in objective.state_dict())
    labelled = around("supervised")
    assert labelled.needs_labels
    assert labelled.views == 1
    assert around("deacl").teacher is not None


REFUSED = [
    (
        "byol",
        {"form": "js"},
        "objective.form=js compares distributions, and BYOL has none; set "
        "objective.form=features",
    ),
    ("simclr", {"form": "kl"}, "objective.form=kl; choose auto, js or features"),
    (
        "supervised",
        {"mixed": 2},
        "objective.mixed=2, but Supervised reads views: 1; set 0 to 1",
    ),
    (
        "simclr",
        {"mixed": -1},
        "objective.mixed=-1, but SimCLR reads views: 2; set 0 to 2",
    ),
    ("simclr", {"weight": -1.0}, "a term has weight=-1.0; set at least 0"),
    ("simclr", {"temperature": 0.0}, "objective.temperature=0.0; set more than 0"),
]


@pytest.mark.parametrize(("name", "changed", "said"), REFUSED)
def test_what_cannot_be_trained_is_told_in_one_line(
    name: str, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as found:
        around(name, **changed)
    assert str(found.value) == said


def test_one_of_the_same_kind_inside_is_refused() -> None:
    with pytest.raises(UserError, match="URRL is around another URRL"):
        around(around("simclr"))
