"""Search spaces: one by hand, and random ones, with a trial that draws."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from rrl_dist.tune.dimension import Choices, Floats, Value, Whole
from rrl_dist.tune.space import Space, parse_space

TARRL = {
    "weight": 1.0,
    "steps": 5,
    "distance": "l2",
    "ramp": {"start": 0.0, "end": 0.1},
}
SPECTRAL = {"weight": 4.0e-4, "every": 1}
SIMCLR = {"temperature": 0.2, "projector": {"hidden": 128}}
CONFIG: dict[str, Any] = {
    "objective": {**TARRL, "base": SIMCLR},
    "views": {"policies": [{"padding": 4}]},
    "optim": {"lr": 0.4, "lr_per": None},
    "train": {"epochs": 100},
    "model": {"width": 32},
}
VARIANTS = {"objective": {"tarrl": TARRL, "spectral": SPECTRAL}}
WEIGHT = {"low": 0.1, "high": 10.0, "log": True}
KINDS = {
    "objective.weight@spectral": {
        "key": "objective.weight",
        "when": {"objective": "spectral"},
        "around": 100.0,
    },
    "objective.steps": {
        "when": {"objective": "tarrl"},
        "low": 1,
        "high": 10,
        "int": True,
    },
    "objective": {"choices": ["tarrl", "spectral"]},
}


def space(said: Mapping[str, Any], start: Any = None) -> Space:
    return parse_space({"space": said, "start": start}, CONFIG, VARIANTS)


@dataclass
class Draws:
    """Draws at random, and remembers what it was asked."""

    seed: int
    asked: dict[str, Any] = field(default_factory=dict)

    def suggest_float(
        self,
        name: str,
        low: float,
        high: float,
        *,
        step: float | None = None,
        log: bool = False,
    ) -> float:
        self.asked[name] = (low, high, step, log)
        share = random.Random(f"{self.seed} {name}").random()
        if log:
            return min(max(low * (high / low) ** share, low), high)
        if step is not None:
            return min(low + step * round(share * (high - low) / step), high)
        return min(low + (high - low) * share, high)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        self.asked[name] = (low, high, step, log)
        return random.Random(f"{self.seed} {name}").randrange(low, high + 1, step)

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        self.asked[name] = tuple(choices)
        return random.Random(f"{self.seed} {name}").choice(choices)


KEYS = ["objective.weight", "optim.lr", "objective.ramp.end", "model.width"]


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, Any]:
    """An entry of any kind that fits a setting of 1.0 or null."""
    kind = draw(st.sampled_from(["float", "step", "log", "int", "int log", "choices"]))
    if kind == "choices":
        values = st.one_of(st.text(max_size=3), st.integers(), st.none())
        values = st.lists(values, min_size=1, max_size=4, unique=True)
        return {"choices": draw(values)}
    log = kind.endswith("log")
    if kind.startswith("int"):
        low = draw(st.integers(1 if log else -50, 50))
        step = 1 if log else draw(st.integers(1, 5))
        high = low + step * draw(st.integers(0, 30))
        return {"low": low, "high": high, "int": True, "log": log, "step": step}
    if kind == "step":
        low, step = draw(st.integers(-5, 5)) / 10, draw(st.integers(1, 30)) / 10
        high = round(low + step * draw(st.integers(0, 9)), 1)
        return {"low": low, "high": high, "step": step}
    ends = st.floats(1e-8 if log else -1e6, 1e6)
    low, high = sorted([draw(ends), draw(ends)])
    return {"low": low, "high": high, "log": log}


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Settings in any order, of which some depend on the choice before them."""
    said: dict[str, Any] = {}
    choice = None
    for key in KEYS:
        entry = draw(ranges())
        if choice is not None and draw(st.booleans()):
            entry["when"] = {choice: draw(st.sampled_from(said[choice]["choices"]))}
        said[key] = entry
        choice = key if "choices" in entry else choice
    shuffled = draw(st.permutations(list(said)))
    config = {
        "objective": {"weight": 1.0, "ramp": {"end": 1.0}},
        "optim": {"lr": None},
        "model": {"width": 1.0},
    }
    return parse_space({"space": {key: said[key] for key in shuffled}}, config, {})


def check_within(searched: Space, values: Mapping[str, Value]) -> None:
    """Each value is one of its range, and there are those that are active."""
    for dimension in searched.dimensions:
        assert (dimension.name in values) == dimension.active(values)
        if dimension.name not in values:
            continue
        value = values[dimension.name]
        assert dimension.domain.take(value) == value
        match dimension.domain:
            case Choices():
                assert value in dimension.domain.values
            case Whole():
                assert type(value) is int
                assert dimension.domain.low <= value <= dimension.domain.high
            case Floats():
                assert type(value) is float
                assert dimension.domain.low <= value <= dimension.domain.high
