import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.evaluate.suites import CONFIGS, suite_config
from rrl_dist.tune.aims import (
    Aim,
    Aims,
    Estimate,
    feasible,
    measured,
    names_of,
    numbers,
    parse_aims,
)
from tests.training.stages import composed

SHARE = {"value": 0.5, "low": 0.45, "high": 0.55, "count": 360}
ENTRY: Mapping[str, Any] = {
    "objective": "TARRL",
    "protocol": None,
    "components": {
        "clean": {**SHARE, "value": 0.9},
        "pgd20-linf@0.05": {**SHARE, "after": [{"attack": "clean", **SHARE}]},
    },
    "worst": {**SHARE, "value": 0.4},
    "stopped": None,
    "curve": [{"eps": 0.0, **SHARE}],
    "distance": {"norm": "l2", "radius": 4.0, **SHARE, "censored": 3},
    "representation": {"feature_std": 0.1, "sigmas": None, "spread": float("nan")},
    "vulnerability": {
        "estimator": "nce",
        "near_ceiling": True,
        "vulnerability": {"value": 1.5, "low": None, "high": None, "count": 1},
    },
    "calibration": {"error": {"value": 0.03, "low": 0.02, "high": 0.04, "count": 360}},
}
POINT = st.integers(-4, 4).map(float)


def one(maximize: bool) -> Aims:
    return Aims((Aim("a", maximize),), {})


def two(first: bool, second: bool) -> Aims:
    return Aims((Aim("a", first), Aim("b", second)), {})


ALL = [*map(one, (True, False)), *(two(*ups) for ups in product((True, False), (0, 1)))]


@st.composite
def aims_and_points(draw: st.DrawFn) -> tuple[Aims, list[tuple[float, ...]]]:
    """On a coarse grid, so that ties and equals come often."""
    aims = draw(st.sampled_from(ALL))
    point = st.tuples(*[POINT] * len(aims.aims))
    return aims, draw(st.lists(point, max_size=12))


def is_better(aims: Aims, a: Sequence[float], b: Sequence[float]) -> bool:
    """The definition, aim by aim."""
    no_worse, some_better = True, False
    for aim, x, y in zip(aims.aims, a, b, strict=True):
        if x != y:
            wins = x > y if aim.maximize else x < y
            no_worse, some_better = no_worse and wins, some_better or wins
    return no_worse and some_better


@given(aims_and_points())
def test_the_front_is_all_that_nothing_is_better_than(
    drawn: tuple[Aims, list[tuple[float, ...]]],
) -> None:
    aims, points = drawn
    literal = []
    for place, point in enumerate(points):
        if not any(is_better(aims, other, point) for other in points):
            literal.append(place)
    assert aims.front(points) == literal
    for place, point in enumerate(points):
        assert aims.dominated(point, points) == (place not in literal)
    assert bool(literal) == bool(points)


@given(aims_and_points())
def test_better_is_a_strict_partial_order(
    drawn: tuple[Aims, list[tuple[float, ...]]],
) -> None:
    aims, points = drawn
    for a, b in product(points, points):
        assert aims.better(a, b) == is_better(aims, a, b)
        assert not aims.better(a, a)
        assert not (aims.better(a, b) and aims.better(b, a))
        for c in points:
            if aims.better(a, b) and aims.better(b, c):
                assert aims.better(a, c)


@given(aims_and_points())
def test_the_hypervolume_counts_the_cells_that_were_reached(
    drawn: tuple[Aims, list[tuple[float, ...]]],
) -> None:
    """On a grid of whole numbers it is the number of unit cells with a point beyond."""
    aims, points = drawn
    signs = [1 if aim.maximize else -1 for aim in aims.aims]
    reference = [-3.0 * sign for sign in signs]
    cells = 0
    for cell in product(range(-3, 4), repeat=len(signs)):
        beyond = (
            all(s * v >= c + 1 for s, v, c in zip(signs, point, cell, strict=True))
            for point in points
        )
        cells += any(beyond)
    assert aims.hypervolume(points, reference) == cells


@given(st.floats(-1, 1), st.floats(-1, 1), st.integers(0, 3))
def test_feasible_is_all_floors_reached_and_no_check_failed(
    value: float, floor: float, failed: int
) -> None:
    aims = Aims((Aim("robust", True),), {"clean": floor})
    found = {"robust": Estimate(0.0), "clean": Estimate(value)}
    violations = aims.violations(found, failed=["a line"] * failed)
    assert len(violations) == len(aims.constraints)
    assert (violations[0] <= 0) == (value >= floor)
    assert (violations[1] <= 0) == (failed == 0)
    assert feasible(violations) == (value >= floor and failed == 0)


def test_all_numbers_are_listed_by_their_dotted_name() -> None:
    """Those of a section that no code here knows, too."""
    assert numbers(ENTRY) == {
        "components.clean": Estimate(0.9, 0.45, 0.55),
        "components.pgd20-linf@0.05": Estimate(0.5, 0.45, 0.55),
        "worst": Estimate(0.4, 0.45, 0.55),
        "distance": Estimate(0.5, 0.45, 0.55),
        "distance.radius": Estimate(4.0),
        "distance.censored": Estimate(3.0),
        "representation.feature_std": Estimate(0.1),
        "vulnerability.vulnerability": Estimate(1.5),
        "calibration.error": Estimate(0.03, 0.02, 0.04),
    }


TREE = st.recursive(
    st.none() | st.booleans() | st.text("ab") | st.floats() | st.integers(-9, 9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["value", "low", "p", "q"]), inner)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["p", "q", "r"]), TREE))
def test_every_number_that_is_listed_is_there_and_finite(entry: dict[str, Any]) -> None:
    for name, estimate in numbers(entry).items():
        node: Any = entry
        for key in name.split("."):
            node = node[key]
        found = node["value"] if isinstance(node, dict) else node
        assert found == estimate.value
        json.dumps(estimate.value, allow_nan=False)


def test_a_trial_is_measured_by_short_names_and_its_cost() -> None:
    found = measured(ENTRY, 12)
    assert found["robust"].value == 0.4
    assert found["clean"].value == 0.9
    assert found["cost"] == Estimate(12.0)
    aims = parse_aims({"aims": ["worst", "components.clean.value"]})
    assert aims.values(found) == (0.4, 0.9)


def test_what_is_better_is_known_of_common_measures() -> None:
    aims = parse_aims({"aims": ["robust", "cost"], "floors": {"clean": 0.9}})
    assert aims.aims == (Aim("robust", True), Aim("cost", False))
    assert aims.floors == {"clean": 0.9}
    assert aims.wanted_names == ("robust", "cost", "clean")
    own = {"measure": "calibration.error.value", "maximize": False}
    assert parse_aims({"aims": [own]}).aims == (Aim("calibration.error", False),)
    assert parse_aims({"aims": ["corruptions.error"], "floors": None}).floors == {}


def test_floors_may_be_taken_apart_at_their_dots() -> None:
    """As Hydra does with sweep.floors.components.pgd20-linf@0.05=0.4."""
    nested = {"components": {"pgd20-linf@0": {"05": 0.4}}, "worst": 0}
    floors = parse_aims({"aims": ["clean"], "floors": nested}).floors
    assert floors == {"components.pgd20-linf@0.05": 0.4, "robust": 0.0}


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        ({}, r"sweep\.aims=None; give a list"),
        ({"aims": []}, r"sweep\.aims=\[\]; give a list of one or two"),
        ({"aims": "robust"}, r"sweep\.aims=robust; give a list"),
        ({"aims": ["robust", "clean", "cost"]}, "a list of one or two"),
        ({"aims": ["robust", "robust"]}, "robust twice; give it once"),
        ({"aims": ["robust", "worst.value"]}, "robust twice"),
        ({"aims": [3]}, r"has 3; give the name of a measure, or \{measure: NAME"),
        ({"aims": [{"maximize": True}]}, "give the name of a measure"),
        ({"aims": [{"measure": "a", "maximise": True}]}, "no maximise; it has measure"),
        (
            {"aims": ["calibration.error"]},
            r"calibration\.error with maximize=None; say",
        ),
        ({"aims": [{"measure": "clean", "maximize": "yes"}]}, "maximize=yes; say"),
        ({"aims": ["clean"], "floors": 3}, r"sweep\.floors=3; give"),
        ({"aims": ["clean"], "floors": {"clean": "x"}}, r"clean=x; set a number"),
        ({"aims": ["clean"], "floors": {"clean": True}}, "clean=True; set a number"),
        ({"aims": ["clean"], "floors": {"clean": None}}, "clean=None; set a number"),
        ({"aims": ["clean"], "floors": {"clean": {}}}, r"clean=\{\}; set a number"),
        ({"aims": ["clean"], "floors": {"clean": float("nan")}}, "set a number"),
        ({"aims": ["clean"], "floors": {"clean": 90}}, r"set 0\.9 for 90 percent"),
        ({"aims": ["clean"], "floors": {"cost": 60}}, "less of it is better"),
    ],
)
def test_a_mistake_is_told_in_one_line(sweep: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        parse_aims(sweep)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "ask",
    [
        lambda aims: aims.check_names(measured(ENTRY, 1.0)),
        lambda aims: (
            aims.values(measured(ENTRY, 1.0)),
            aims.violations(measured(ENTRY, 1.0)),
        ),
    ],
)
@pytest.mark.parametrize(
    ("sweep", "nearest"),
    [
        ({"aims": [{"measure": "distance.mean", "maximize": True}]}, "distance"),
        ({"aims": ["components.pgd20"]}, "components.pgd20-linf@0.05"),
        ({"aims": ["robust"], "floors": {"claen": 0.9}}, "clean"),
    ],
)
def test_a_measure_that_no_trial_reports_is_told_with_the_nearest(
    ask: Callable[[Aims], object], sweep: dict[str, Any], nearest: str
) -> None:
    with pytest.raises(UserError, match="no trial reports; the nearest is ") as caught:
        ask(parse_aims(sweep))
    assert str(caught.value).endswith(f"is {nearest}")


def test_where_nothing_is_reported_that_is_told() -> None:
    with pytest.raises(UserError, match="wants robust, and trials report nothing"):
        parse_aims({"aims": ["robust"]}).values({})


@pytest.mark.parametrize("name", [p.stem for p in (CONFIGS / "suite").glob("*.yaml")])
def test_names_are_known_before_there_is_a_trial(name: str) -> None:
    """Of each suite that there is; a section that it leaves out has no names."""
    ball, config = composed()["ball"], suite_config(name)
    suite = build_suite(config, ball, seed=0)
    names = names_of(suite, classes=10)
    parse_aims({"aims": ["robust", "cost"], "floors": {"clean": 0.9}}).check_names(
        names
    )
    assert {"robust", "clean", "cost", "representation.effective_rank"} <= {*names}
    assert "representation.sigma_squared_sum" in names
    assert {f"components.{own}" for own in suite.full[1:]} <= {*names}
    assert ("corruptions.error" in names) == bool(suite.corruptions)
    assert ("distance" in names) == (suite.search is not None)
    information = suite.estimation is not None
    assert ("vulnerability.adversarial_risk" in names) == information


def test_a_layers_own_measure_is_taken_though_only_an_encoder_has_it() -> None:
    own = {"measure": "representation.sigmas.conv1", "maximize": False}
    parse_aims({"aims": [own]}).check_names(["robust"])
