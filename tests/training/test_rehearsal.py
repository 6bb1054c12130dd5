"""What the step before a stage finds, and says in one line."""

from typing import Any

import pytest
import torch

from rrl_dist.core.errors import UserError
from rrl_dist.training.forecast import forecast
from rrl_dist.training.rehearsal import UNTRAINED, rehearse
from tests.composing import TINY, compose, names, views_of

SHAPE: dict[str, Any] = {"size": 16, "num_classes": 10, "workers": 1}
NARROW = ("objective.projector.hidden=8", "objective.projector.out=4")
OF_TWO = "choose one of two policies, such as views=simclr"
OF_ONE = "choose one of one policy, such as views=weak"


def stage(name: str, *overrides: str) -> dict[str, Any]:
    chosen = (f"objective={name}", f"views={views_of(name)}", "optim=sgd")
    config = compose("pretrain", *TINY, *chosen, *overrides)
    teacher = str(UNTRAINED) if name in ("deacl", "anchored") else None
    return {**config, "teacher": teacher, "threads": 1}


def told(name: str, *overrides: str) -> str:
    with pytest.raises(UserError) as found:
        rehearse("pretrain", stage(name, *overrides), **SHAPE)
    line = str(found.value)
    assert "\n" not in line
    assert line.startswith("pretrain: ")
    return line.removeprefix("pretrain: ")


@pytest.mark.parametrize("name", names("objective"))
def test_a_method_reads_its_number_of_views_and_no_other(name: str) -> None:
    rehearse("pretrain", stage(name), **SHAPE)
    other, wanted = ("weak", f"two views, views= draws 1; {OF_TWO}")
    if views_of(name) == "weak":
        other, wanted = ("simclr", f"one view, views= draws 2; {OF_ONE}")
    assert told(name, f"views={other}") == f"{name} reads {wanted}"


def test_a_teacher_that_sees_the_second_view_needs_one() -> None:
    second = "objective.teacher_sees=second"
    rehearse("pretrain", stage("deacl", second, "views=strong_weak"), **SHAPE)
    assert told("deacl", second) == f"deacl reads two views, views= draws 1; {OF_TWO}"


@pytest.mark.parametrize("outer", ["tarrl", "spectral"])
def test_a_method_around_another_reads_what_that_reads(outer: str) -> None:
    inside = "objective/base=supervised"
    line = f"{outer} reads one view, views= draws 2; {OF_ONE}"
    assert told(outer, inside) == line
    rehearse("pretrain", stage(outer, inside, "views=weak"), **SHAPE)


def test_a_third_view_is_one_too_many() -> None:
    third = "views.policies=[[],[],[]]"
    assert told("simclr", third) == f"simclr reads two views, views= draws 3; {OF_TWO}"


def test_a_plan_is_refused_as_well() -> None:
    one = stage("simclr", "views=weak")
    with pytest.raises(UserError, match="reads two views, views= draws 1"):
        forecast(one, **SHAPE, device=torch.device("cpu"), steps=1)


@pytest.mark.parametrize("name", ["simclr", "moco"])
@pytest.mark.parametrize("value", ["0.0", "-0.2", "nan"])
def test_a_temperature_that_is_not_positive_is_refused(name: str, value: str) -> None:
    line = told(name, f"objective.temperature={value}")
    assert line == f"objective.temperature={value}; set more than 0"


@pytest.mark.parametrize("name", ["simclr", "simsiam"])
def test_a_head_without_layers_is_refused(name: str) -> None:
    line = told(name, "objective.projector.layers=0")
    assert line == "projector.layers=0; set at least 1"


@pytest.mark.parametrize(
    ("name", "override", "terms"),
    [
        ("simclr", "objective.temperature=1e-45", "loss is"),
        ("barlow", "objective.eps=-9", "loss, invariance, redundancy are"),
        ("vicreg", "objective.variance_weight=inf", "loss is"),
    ],
)
def test_a_loss_that_is_not_finite_is_told_of_with_its_terms(
    name: str, override: str, terms: str
) -> None:
    line = told(name, override, *NARROW)
    assert line.startswith(f"{terms} not finite in one step on random images; check")
