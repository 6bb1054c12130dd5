from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from rrl_dist.core.aggregate import (
    accuracy,
    accuracy_after,
    mean_of,
    rounded,
    wilson,
)
from rrl_dist.core.columns import Columns
from rrl_dist.core.records import Row

of = Columns.of_rows


def row(index: int, component: str, correct: bool) -> Row:
    return Row(
        index=index,
        label=0,
        predicted=0 if correct else 1,
        component=component,
        correct=correct,
        margin=0.0,
        confidence=1.0,
        loss=0.0,
        distance=0.0,
        displacement=0.0,
        queries=0,
        seed=0,
        seconds=0.0,
    )


@settings(deadline=None)
@given(data=st.data(), level=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_is_scipys(data: st.DataObject, level: float) -> None:
    count = data.draw(st.integers(1, 20_000))
    successes = data.draw(st.integers(0, count))
    found = wilson(successes, count, level=level)
    expected = binomtest(successes, count).proportion_ci(level, method="wilson")
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)
    assert found.value == successes / count
    assert found.count == count
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_the_level_is_95_percent_unless_told_otherwise() -> None:
    assert wilson(7, 10) == wilson(7, 10, level=0.95)


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (3, 2), (-1, 2), (0, -1)])
def test_impossible_counts_are_refused(successes: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {count}"):
        wilson(successes, count)


def test_no_rows_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="0 samples"):
        accuracy([])


@given(
    outcomes=st.integers(1, 7).flatmap(
        lambda samples: st.dictionaries(
            st.sampled_from(["clean", "pgd", "apgd"]),
            st.lists(st.booleans(), min_size=samples, max_size=samples),
            min_size=1,
        )
    ),
    data=st.data(),
)
def test_accuracy_is_that_of_each_samples_worst_component(
    outcomes: dict[str, list[bool]], data: st.DataObject
) -> None:
    components = [
        of(data.draw(st.permutations([row(3 * i, name, r) for i, r in enumerate(own)])))
        for name, own in outcomes.items()
    ]
    survivors = [all(flags) for flags in zip(*outcomes.values(), strict=True)]
    found = accuracy(data.draw(st.permutations(components)))
    assert found == wilson(sum(survivors), len(survivors))
    for columns, own in zip(components, outcomes.values(), strict=True):
        assert accuracy([columns]) == wilson(sum(own), len(own))


def test_components_of_different_samples_have_no_worst_case() -> None:
    first, other = (of([row(i, "x", True)]) for i in (0, 1))
    with pytest.raises(ValueError, match="different samples"):
        accuracy([first, other])


@given(
    broken_by=st.lists(
        st.none() | st.sampled_from(["clean", "a", "b"]), min_size=1, max_size=30
    ),
    data=st.data(),
)
def test_what_attacks_in_turn_leave_right_is_a_count(
    broken_by: list[str | None], data: st.DataObject
) -> None:
    rows = [
        replace(row(i, "all", name is None), broken_by=name)
        for i, name in enumerate(broken_by)
    ]
    left, names = len(rows), ["clean", "a", "b"]
    for place, name in enumerate(names):
        left -= broken_by.count(name)
        shuffled = of(data.draw(st.permutations(rows)))
        assert accuracy_after(shuffled, names[: place + 1]) == wilson(left, len(rows))
    assert accuracy_after(of(rows), names) == accuracy([of(rows)])


def test_what_is_reported_is_rounded_far_below_the_interval() -> None:
    found = wilson(1, 3)
    told = found.as_dict()
    assert told["count"] == 3
    for key in ("value", "low", "high"):
        assert told[key] == pytest.approx(getattr(found, key), abs=5e-7)
        assert len(str(told[key])) <= 8


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40),
    level=st.sampled_from([0.5, 0.95, 0.99]),
    data=st.data(),
)
def test_a_mean_has_its_normal_interval(
    values: list[float], level: float, data: st.DataObject
) -> None:
    found = mean_of(values, level=level)
    centre = sum(values) / len(values)
    squares = sum((value - centre) ** 2 for value in values) / (len(values) - 1)
    scale = (squares / len(values)) ** 0.5
    assert found.value == pytest.approx(centre, abs=1e-6)
    if scale > 1e-3:
        low, high = norm.interval(level, loc=centre, scale=scale)
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)
    assert found.count == len(values)
    shuffled = data.draw(st.permutations(values))
    assert mean_of(shuffled, level=level) == found


def test_a_mean_of_nothing_and_of_one() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean_of([])
    alone = {"value": 3.5, "low": 3.5, "high": 3.5, "count": 1}
    assert mean_of([3.5]).as_dict() == alone


@given(value=st.floats(-1e300, 1e300))
def test_rounding_keeps_six_digits(value: float) -> None:
    assert rounded(value) == pytest.approx(value, rel=5.1e-6, abs=1e-300)
    assert rounded(rounded(value)) == rounded(value)
    assert rounded(value) == float(f"{rounded(value):.5e}")
