"""A space draws what its YAML says and no more, and sets that and nothing else."""

import math
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrl_dist.core.errors import UserError
from rrl_dist.tune.dimension import Choices, Floats, Value, Whole
from rrl_dist.tune.keys import find, paths
from rrl_dist.tune.space import Space, choices_of
from tests.tune.spaces import (
    CONFIG,
    KINDS,
    VARIANTS,
    WEIGHT,
    Draws,
    check_within,
    ranges,
    space,
    spaces,
)


@given(spaces(), st.integers(0, 1000))
def test_a_drawn_value_is_in_its_range_and_only_active_ones_are_drawn(
    searched: Space, seed: int
) -> None:
    draws = Draws(seed)
    values = searched.draw(draws)
    assert set(draws.asked) == set(values)
    check_within(searched, values)


@given(spaces(), st.integers(1, 4))
def test_a_grid_has_each_setting_once_and_all_are_in_the_space(
    searched: Space, points: int
) -> None:
    settings = searched.grid(points)
    assert settings
    for number, values in enumerate(settings):
        check_within(searched, values)
        assert values not in settings[:number]


@given(spaces(), st.integers(0, 1000))
def test_a_value_drawn_by_optuna_is_the_one_that_optuna_keeps(
    searched: Space, seed: int
) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    values = searched.draw(trial)
    assert values == trial.params
    check_within(searched, values)


@given(spaces(), st.integers(0, 1000), st.integers(0, 20))
def test_values_of_a_start_are_those_that_optuna_tries_first(
    searched: Space, seed: int, at: int
) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = searched.grid(2)
    start = settings[at % len(settings)]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    study.enqueue_trial(start)
    assert searched.draw(study.ask()) == start


@given(ranges(), st.integers(2, 12))
def test_a_grid_is_equally_spaced_from_end_to_end(
    entry: dict[str, Any], points: int
) -> None:
    domain = space({"optim.lr_per": entry}).dimensions[0].domain
    found: list[Any] = domain.grid(points)
    assert len(found) <= points or isinstance(domain, Choices)
    if isinstance(domain, Choices):
        assert found == entry["choices"]
        return
    assert isinstance(domain, Floats | Whole)
    if len(found) > 1:
        assert (found[0], found[-1]) == (domain.low, domain.high)
    if isinstance(domain, Floats) and domain.step is None and len(found) > 1:
        marks = [math.log(x) for x in found] if domain.log else found
        even = [
            marks[0] + (marks[-1] - marks[0]) * i / (points - 1) for i in range(points)
        ]
        assert marks == pytest.approx(even, rel=1e-9, abs=1e-9)


def test_a_grid_of_weights_in_the_logarithm() -> None:
    wide = {"low": 0.01, "high": 100.0, "log": True}
    values = space({"objective.weight": wide}).grid(5)
    expected = [0.01, 0.1, 1.0, 10.0, 100.0]
    assert [v["objective.weight"] for v in values] == pytest.approx(expected)
    (middle,) = space({"objective.weight": wide}).grid(1)
    assert middle == pytest.approx({"objective.weight": 1.0})
    steps = {"low": 1, "high": 16, "int": True, "log": True}
    whole = space({"objective.steps": steps}).grid(5)
    assert [v["objective.steps"] for v in whole] == [1, 2, 4, 8, 16]


def test_a_grid_has_conditional_settings_only_where_they_are_active() -> None:
    settings = space(KINDS).grid(3)
    tarrl = [v for v in settings if v["objective"] == "tarrl"]
    spectral = [v for v in settings if v["objective"] == "spectral"]
    assert [v["objective.steps"] for v in tarrl] == [1, 5, 10]
    weights = [v["objective.weight@spectral"] for v in spectral]
    assert weights == pytest.approx([4e-6, 4e-4, 4e-2])
    assert all(len(values) == 2 for values in settings)


def test_no_points_are_no_grid() -> None:
    with pytest.raises(UserError, match=r"^a grid has points=0; set at least 1$"):
        space({"objective.weight": WEIGHT}).grid(0)


@given(spaces(), st.integers(0, 1000))
def test_values_are_set_at_their_keys_and_nothing_else_changes(
    searched: Space, seed: int
) -> None:
    given_one = {
        "objective": {"weight": 1.0, "ramp": {"start": 0.5, "end": 1.0}},
        "optim": {"lr": None, "betas": [0.9, 0.99]},
        "model": {"width": 1.0},
    }
    before = deepcopy(given_one)
    values = searched.draw(Draws(seed))
    found = searched.apply(given_one, values, {})
    assert given_one == before
    assert list(paths(found)) == list(paths(given_one))
    for key in paths(found):
        expected = values[key] if key in values else find(before, key)
        assert find(found, key) == expected
    found["optim"]["betas"].append(1.0)
    assert given_one == before


def test_a_group_is_replaced_before_what_lies_below_it_is_set() -> None:
    variants = deepcopy(VARIANTS)
    values: dict[str, Value] = {
        "objective.weight@spectral": 0.01,
        "objective": "spectral",
    }
    found = space(KINDS).apply(CONFIG, values, variants)
    assert found == {**CONFIG, "objective": {"weight": 0.01, "every": 1}}
    assert variants == VARIANTS


def test_a_key_of_a_list_is_set() -> None:
    said = {"views.policies.0.padding": {"low": 1, "high": 8, "int": True}}
    found = space(said).apply(CONFIG, {"views.policies.0.padding": 2}, VARIANTS)
    assert found["views"] == {"policies": [{"padding": 2}]}
    assert CONFIG["views"] == {"policies": [{"padding": 4}]}


def test_conditions_and_groups_stand_before_what_depends_on_them() -> None:
    names = [dimension.name for dimension in space(KINDS).dimensions]
    assert names == ["objective", "objective.weight@spectral", "objective.steps"]


def test_conditions_of_conditions_hold_too() -> None:
    said = {
        "optim.lr": {"when": {"objective.distance": ["l2", "kl"]}, **WEIGHT},
        "objective.distance": {"when": {"model.width": 8}, "choices": ["l2", "cosine"]},
        "model.width": {"choices": [8, 16]},
    }
    said["objective.distance"]["choices"].append("kl")
    found = space(said)
    assert len(found.grid(4)) == 4 + 1 + 4 + 1
    for values in found.grid(4):
        assert ("optim.lr" in values) == (
            values.get("objective.distance") in ("l2", "kl")
        )


def test_around_is_a_factor_of_the_composed_value_which_is_tried_first() -> None:
    found = space({"objective.weight": {"around": 100.0}})
    domain = Floats(low=0.01, high=100.0, log=True, step=None)
    assert found.dimensions[0].domain == domain
    assert found.starts == ({"objective.weight": 1.0},)
    steps = space({"objective.steps": {"around": 3.0, "int": True}})
    assert steps.dimensions[0].domain == Whole(low=2, high=15, log=True, step=1)
    assert steps.starts == ({"objective.steps": 5},)


def test_around_under_a_condition_is_around_the_value_of_that_file() -> None:
    other = {"key": "objective.weight", "when": {"objective": "tarrl"}, "around": 10.0}
    found = space({**KINDS, "objective.weight@tarrl": other, "optim.lr": {"around": 2}})
    assert found.starts == (
        {"objective": "spectral", "objective.weight@spectral": 4e-4, "optim.lr": 0.4},
        {
            "objective": "tarrl",
            "objective.weight@tarrl": 1.0,
            "optim.lr": 0.4,
            "objective.steps": 5,
        },
    )


def test_a_start_is_the_composed_configuration_but_for_what_it_names() -> None:
    said = {
        "objective.weight": WEIGHT,
        "objective.steps": {"low": 1, "high": 10, "int": True},
        "optim.lr": {"low": 1.0, "high": 2.0},  # 0.4 is not in it, so it is drawn
    }
    starts = [{"objective.weight": 2}, {"objective.steps": 7}, {"objective.steps": 5}]
    found = space(said, [*starts, {"objective.weight": 1.0, "objective.steps": 5}])
    assert found.starts == (
        {"objective.weight": 2.0, "objective.steps": 5},
        {"objective.weight": 1.0, "objective.steps": 7},
        {"objective.weight": 1.0, "objective.steps": 5},
    )
    assert type(found.starts[0]["objective.weight"]) is float
    assert space(said).starts == ()
    assert space({"optim.lr": {"around": 2.0}}, []).starts == ()


def test_choices_of_a_group_are_known_before_its_files_are_composed() -> None:
    said = {
        **KINDS,
        "second": {"key": "objective", "choices": ["spectral", "urrl"]},
        "objective.ball": 1,
        "optim.lr": {"choices": [1.0]},
    }
    assert choices_of({"space": said}) == {
        "objective": ("tarrl", "spectral", "urrl"),
        "optim.lr": (),
    }
    assert choices_of({"space": None}) == {}
