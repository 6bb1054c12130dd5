"""A mistake in a space is told in one line that names the key and the mend."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from tests.tune.spaces import (
    CONFIG,
    KEYS,
    KINDS,
    WEIGHT,
    space,
)

LR = {"low": 0.1, "high": 1.0}
MISTAKES: list[tuple[Mapping[str, Any], str, str]] = [
    ({}, "space", "give at least one"),
    ({"optim.lr": 3}, "optim.lr", "give a range"),
    ({"optim.lr": {}}, "optim.lr", "give low and high, or around, or choices"),
    ({"optim.lr": {"low": 1.0}}, "optim.lr", "give high too"),
    ({"optim.lr": {"high": 1.0}}, "optim.lr", "give low and high"),
    ({"optim.lr": {"low": 2.0, "high": 1.0}}, "optim.lr", "exchange"),
    ({"optim.lr": {**LR, "low": 0, "log": True}}, "optim.lr", "set low above 0"),
    ({"optim.lr": {**LR, "low": -1, "log": True}}, "optim.lr", "set low above 0"),
    ({"optim.lr": {**LR, "low": math.nan}}, "optim.lr", "finite number"),
    ({"optim.lr": {**LR, "high": math.inf}}, "optim.lr", "finite number"),
    ({"optim.lr": {**LR, "high": "1e3"}}, "optim.lr", "finite number"),
    ({"optim.lr": {**LR, "high": True}}, "optim.lr", "finite number"),
    ({"optim.lr": {**LR, "log": "yes"}}, "optim.lr", "set true or false"),
    ({"optim.lr": {**LR, "step": 0}}, "optim.lr", "set it above 0"),
    ({"optim.lr": {**LR, "step": -0.1}}, "optim.lr", "set it above 0"),
    ({"optim.lr": {**LR, "step": 0.4}}, "optim.lr", "set high=0.9"),
    ({"optim.lr": {**LR, "step": 0.1, "log": True}}, "optim.lr", "leave one"),
    ({"optim.lr": {**LR, "lo": 1}}, "optim.lr", "the nearest is low"),
    ({"optim.lr": {**LR, "choices": [1]}}, "optim.lr", "leave one of them out"),
    ({"optim.lr": {**LR, "around": 2}}, "optim.lr", "leave one of them out"),
    ({"optim.lr": {"around": 1.0}}, "optim.lr", "a factor above 1"),
    ({"optim.lr_per": {"around": 9.0}}, "optim.lr_per", "give low and high"),
    ({"objective.ramp.start": {"around": 9.0}}, "ramp.start", "give low and high"),
    ({"optim.lr": {"choices": []}}, "optim.lr", "give a list"),
    ({"optim.lr": {"choices": 1.0}}, "optim.lr", "give a list"),
    ({"optim.lr": {"choices": [1.0, 2.0, 1.0]}}, "optim.lr", "leave one out"),
    ({"optim.lr": {"choices": [[1.0]]}}, "optim.lr", "give single values"),
    ({"optim.rl": LR}, "optim.rl", "the nearest is optim.lr"),
    ({"zebra": LR}, "zebra", "give a key of the configuration"),
    ({"here": {"key": "optim.rl", **LR}}, "here", "the nearest is optim.lr"),
    ({"here": {"key": 3, **LR}}, "here", "name one setting"),
    ({"optim": LR}, "optim", "such as optim.lr"),
    ({"objective": LR}, "objective", "give choices out of tarrl, spectral"),
    ({"objective": {"choices": ["tarl"]}}, "objective", "the nearest is tarrl"),
    ({"objective.distance": LR}, "objective.distance", "give choices"),
    ({"objective.steps": LR}, "objective.steps", "int: true"),
    ({"objective.steps": {**LR, "int": True}}, "objective.steps", "a whole number"),
    (
        {"objective.steps": {"low": 1, "high": 4, "step": 0.5, "int": True}},
        "objective.steps",
        "a whole number",
    ),
    ({**KINDS, "objective.distance": {"choices": ["l2"]}}, "spectral", "[tarrl]"),
    ({**KINDS, "objective.weight": {"around": 2}}, "objective.weight", "`when`"),
    ({**KINDS, "objective.weight": WEIGHT}, "objective.weight", "different values"),
    ({"optim.lr": {**LR, "when": "x"}}, "optim.lr", "name an entry"),
    ({"optim.lr": {**LR, "when": {"a": []}}}, "optim.lr", "one or more values"),
    ({"optim.lr": {**LR, "when": {"model.width": 1}}}, "optim.lr", "add model.width"),
    (
        {**KINDS, "optim.lr": {**LR, "when": {"objectiv": "tarrl"}}},
        "optim.lr",
        "the nearest is objective",
    ),
    (
        {**KINDS, "optim.lr": {**LR, "when": {"objective": "urrl"}}},
        "optim.lr",
        "set it to tarrl|spectral",
    ),
    (
        {"objective.weight": WEIGHT, "optim.lr": {**LR, "when": {KEYS[0]: 1.0}}},
        "optim.lr",
        "give objective.weight choices",
    ),
    (
        {
            **KINDS,
            "optim.lr": {
                **LR,
                "when": {"objective": "spectral", "objective.steps": 3},
            },
        },
        "optim.lr",
        "change one",
    ),
    (
        {
            "optim.lr": {**LR, "when": {"model.width": 8}},
            "model.width": {"choices": [8], "when": {"optim.lr": 0.1}},
        },
        "optim.lr",
        "take out one",
    ),
    ({"model.width": {"choices": [8], "when": {"model.width": 8}}}, "width", "take"),
    ({"ball.eps": {"low": 0.01, "high": 0.1}}, "ball.eps", "objective.ball.eps"),
    ({"seed": {"choices": [0, 1]}}, "seed", "search in objective"),
    ({"objective.mass": WEIGHT}, "objective.mass", "an objective that has it"),
]


@pytest.mark.parametrize(("said", "key", "mend"), MISTAKES)
def test_a_mistake_is_told_in_one_line_that_names_the_key_and_the_mend(
    said: Mapping[str, Any], key: str, mend: str
) -> None:
    with pytest.raises(UserError) as caught:
        space(said)
    told(str(caught.value), "space:", key, mend)


STARTS: list[tuple[Any, str, str]] = [
    ({"objective": "tarrl"}, "start", "give a list"),
    ([3], "start 1", "give values"),
    ([{"objective": "tarrl"}, {"objectve": "tarrl"}], "start 2", "is objective"),
    ([{"optim.lr": 0.1}], "optim.lr", "the space has objective"),
    ([{"objective": "urrl"}], "objective=urrl", "set tarrl|spectral"),
    ([{"objective": "tarrl", "objective.steps": 11}], "objective.steps=11", "set 1 to"),
    ([{"objective": "tarrl", "objective.steps": 1.5}], "steps=1.5", "set 1 to 10"),
    ([{"objective": "spectral", "objective.steps": 3}], "steps", "set objective so"),
    ([{"objective.steps": 3}], "objective.steps", "set objective so"),
    ([{}], "start 1", "name one of objective"),
]


@pytest.mark.parametrize(("start", "key", "mend"), STARTS)
def test_a_start_outside_of_the_space_is_told_in_one_line(
    start: Any, key: str, mend: str
) -> None:
    with pytest.raises(UserError) as caught:
        space(KINDS, start)
    told(str(caught.value), "start", key, mend)


def test_values_of_another_space_are_told_in_one_line() -> None:
    found = space({"objective.weight": WEIGHT})
    with pytest.raises(UserError) as caught:
        found.apply(CONFIG, {"objective.wieght": 1.0}, {})
    told(str(caught.value), "space:", "objective.wieght", "is objective.weight")
    with pytest.raises(UserError) as caught:
        found.apply({"objective": {"weights": 1.0}}, {"objective.weight": 1.0}, {})
    told(str(caught.value), "there is no", "objective.weight", "objective.weights")


def told(line: str, begin: str, key: str, mend: str) -> None:
    assert "\n" not in line
    assert line.startswith(begin)
    found, _, advice = line.partition("; ")
    assert key in found
    assert mend in advice
