import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from rrl_dist.core.aggregate import accuracy, by_component, mean_of, rounded, wilson
from rrl_dist.core.records import Row


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


outcomes = st.dictionaries(
    st.tuples(st.sampled_from(["clean", "pgd", "apgd"]), st.integers(0, 6)),
    st.booleans(),
    min_size=1,
)


@given(outcomes=outcomes, data=st.data())
def test_accuracy_is_that_of_each_samples_worst_component(
    outcomes: dict[tuple[str, int], bool], data: st.DataObject
) -> None:
    rows = [row(index, name, right) for (name, index), right in outcomes.items()]
    shuffled = data.draw(st.permutations(rows))
    samples = {index for _, index in outcomes}
    survivors = {
        sample
        for sample in samples
        if all(right for (_, index), right in outcomes.items() if index == sample)
    }
    found = accuracy(shuffled)
    assert (found.value, found.count) == (len(survivors) / len(samples), len(samples))
    assert found == wilson(len(survivors), len(samples))
    for group in by_component(shuffled).values():
        assert sum(r.correct for r in group if r.index in samples) >= len(
            survivors & {r.index for r in group}
        )


@given(outcomes=outcomes, data=st.data())
def test_groups_hold_every_row_once_in_order(
    outcomes: dict[tuple[str, int], bool], data: st.DataObject
) -> None:
    rows = data.draw(st.permutations([row(i, n, r) for (n, i), r in outcomes.items()]))
    groups = by_component(rows)
    assert list(groups) == list(dict.fromkeys(r.component for r in rows))
    for name, group in groups.items():
        assert group == [r for r in rows if r.component == name]


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
