from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rrl_dist.attacks.balls import Linf
from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.objectives.mutual_information import estimate
from rrl_dist.objectives.ramp import Ramp
from rrl_dist.objectives.tarrl import TARRL
from rrl_dist.objectives.worst_case_mi import WorstCaseMI
from tests.composing import compose
from tests.objectives.harness import own_batch, small_encoder
from tests.objectives.informed import EPS, INFORMED, informed

NAME = "worst_case_mi"
SHARES = {0.0: {"mi"}, 0.3: {"mi", "mi_worst"}, 1.0: {"mi_worst"}}


def made(**changes: Any) -> WorstCaseMI:
    """In train mode, the same weights each time."""
    encoder = small_encoder(1)
    torch.manual_seed(2)
    objective = informed(encoder, **changes)
    objective.train()
    return objective


def information(objective: WorstCaseMI, x: Tensor, estimator: str = "dv") -> Tensor:
    local, whole = objective.local(x), objective.whole(objective.encoder(x))
    return estimate(local, whole, estimator=estimator, faithful=False)


@pytest.mark.parametrize("weight", SHARES)
@pytest.mark.parametrize("estimator", ["dv", "nce", "jsd"])
def test_the_loss_is_less_the_information_of_both_kinds_by_weight(
    estimator: str, weight: float
) -> None:
    objective = made(weight=weight, estimator=estimator)
    batch = objective.inner(own_batch(NAME))
    terms = objective(batch)
    assert terms.keys() - {"loss"} == SHARES[weight]
    objective.eval()  # where passes together and apart are the same
    terms = objective(batch)
    clean = information(objective, batch.views[0], estimator)
    x_adv = batch.extras.get("worst_case_mi_x", batch.views[0])
    worst = information(objective, x_adv, estimator)
    wanted = -(1 - weight) * clean - weight * worst
    torch.testing.assert_close(terms["loss"], wanted, rtol=1e-5, atol=1e-5)
    for name, value in (("mi", clean), ("mi_worst", worst)):
        if name in terms:
            torch.testing.assert_close(terms[name], value.detach())
            assert not terms[name].requires_grad


def test_batch_norms_see_both_kinds_of_images_together() -> None:
    objective, copy = made(weight=0.5), made(weight=0.5)
    batch = objective.inner(own_batch(NAME))
    loss = objective(batch)["loss"]
    both = torch.cat([batch.views[0], batch.extras["worst_case_mi_x"]])
    pairs = zip(
        copy.local(both).chunk(2), copy.whole(copy.encoder(both)).chunk(2), strict=True
    )
    values = [estimate(*pair, estimator="dv", faithful=False) for pair in pairs]
    torch.testing.assert_close(loss, -sum(values) / 2)


def test_every_weight_is_trained() -> None:
    objective = made()
    objective(objective.inner(own_batch(NAME)))["loss"].backward()
    for name, parameter in objective.named_parameters():
        # The batch norms after it take a bias's place: their gradient is a rounding.
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 1e-8, name


@pytest.mark.parametrize("off", [{"ball": Linf(0.0)}, {"weight": 0.0}])
@pytest.mark.parametrize("faithful", [False, True])
def test_off_it_is_the_maximization_of_clean_information_and_costs_no_attack(
    off: dict[str, Any], faithful: bool
) -> None:
    objective, plain = made(**off, faithful=faithful), made(weight=1.0)
    passes: list[int] = []
    for module in (objective.encoder, objective.local, objective.whole):
        module.register_forward_hook(lambda *args: passes.append(len(args[1][0])))
    given = own_batch(NAME)
    batch = objective.inner(given)
    assert batch is given
    assert not passes
    terms = objective(batch)
    assert passes == [24] * 3
    assert terms.keys() == {"loss", "mi"}
    # What is attacked in a ball of one point is the clean image, in the same form.
    torch.testing.assert_close(
        objective.state_dict(), plain_after(plain, given), rtol=0, atol=0
    )


def plain_after(objective: WorstCaseMI, batch: Batch) -> dict[str, Any]:
    """Weights and buffers after a pass on clean images in the attacked ones' place."""
    objective(batch.with_extras(worst_case_mi_x=batch.views[0]))
    return objective.state_dict()


def test_training_lowers_what_an_attack_takes_away() -> None:
    """Against the same steps with the attack off, by the critics trained along."""
    clean, worst = {}, {}
    for weight in (0.0, 1.0):
        objective = made(weight=weight, estimator="nce")
        optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
        for step in range(60):
            batch = objective.inner(replace(own_batch(NAME), step=step))
            optimizer.zero_grad()
            objective(batch)["loss"].backward()
            optimizer.step()
        objective.weight = 1.0
        x_adv = objective.inner(own_batch(NAME)).extras["worst_case_mi_x"]
        objective.eval()
        with torch.no_grad():
            worst[weight] = float(information(objective, x_adv, "nce"))
            x = own_batch(NAME).views[0]
            clean[weight] = float(information(objective, x, "nce"))
    assert min(clean.values()) > 2, "of log 24 = 3.18 nats"
    assert worst[1.0] > worst[0.0] + 0.2
    assert clean[1.0] - worst[1.0] < 0.5 * (clean[0.0] - worst[0.0])


def test_it_can_be_inside_another() -> None:
    objective = TARRL(
        base=made(),
        weight=2.0,
        ramp=Ramp(start=0.0, end=0.0),
        distance="l2",
        ball=Linf(EPS),
        steps=2,
        relative_step=0.5,
        seed=0,
    )
    assert objective.views == 1
    batch = objective.inner(own_batch(NAME))
    terms = objective(batch)
    assert {"worst_case_mi_loss", "mi_worst", "tarrl_distance"} < terms.keys()


def test_critics_are_in_its_state_and_the_encoder_is_what_is_kept() -> None:
    objective = made()
    parts = {name.partition(".")[0] for name in objective.state_dict()}
    assert parts == {"encoder", "local", "whole"}
    assert objective.trained() is objective.encoder


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"estimator": "mine"}, r"no estimator=mine; choose dv\|nce\|jsd"),
        ({"weight": -0.1}, r"objective\.weight=-0\.1; set 0 \(clean images\) to 1"),
        ({"weight": 2.0}, r"objective\.weight=2\.0; set 0 \(clean images\) to 1"),
        ({"weight": float("nan")}, r"objective\.weight=nan; set 0"),
        ({"steps": 0}, "the inner attack has steps=0; set at least 1"),
        ({"relative_step": 0.0}, "has relative_step=0.0; set more than 0"),
        ({"embedding": 0}, "a critic has embedding=0; set at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        made(**changes)
    assert "\n" not in str(caught.value)


def test_the_kinds_of_the_harness_differ() -> None:
    """Each compared over workers is a method of its own."""
    losses = set()
    for changes in INFORMED.values():
        objective = made(**changes)
        loss = objective(objective.inner(own_batch(NAME)))["loss"]
        losses.add(round(float(loss.detach()), 4))
    assert len(losses) == len(INFORMED)


def test_the_experiment_has_the_same_run_with_the_attack_off() -> None:
    arms = compose("run", "experiment=worst_case_mi_cifar10")["arms"]
    off, on = arms["mi"], arms["worst_case_mi"]
    radii = [arm["objective"]["ball"].pop("eps") for arm in (off, on)]
    assert radii == [0.0, pytest.approx(8 / 255)]
    assert off == on
    # The step of the released code, in [0, 1] pixels.
    assert on["objective"]["relative_step"] * radii[1] == pytest.approx(0.01)
