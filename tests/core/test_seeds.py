import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rrl_dist.core.seeds import spread, t_interval, t_quantile

numbers = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))


@pytest.mark.parametrize("freedom", [*range(1, 12), 29, 30, 199])
@pytest.mark.parametrize("level", [0.0, 0.5, 0.9, 0.95, 0.99])
def test_the_quantile_is_that_of_scipy(freedom: int, level: float) -> None:
    expected = stats.t.ppf(0.5 + level / 2, freedom)
    assert t_quantile(level, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.lists(numbers, min_size=2, max_size=8))
def test_spread_and_interval_are_their_definitions(values: list[float]) -> None:
    found, between = spread(values), t_interval(values)
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    assert found.mean == between.mean == pytest.approx(mean)
    assert found.deviation == pytest.approx(deviation)
    assert found.count == between.count == len(values)
    assert between.low is not None
    assert between.high is not None
    half = stats.t.ppf(0.975, len(values) - 1) * deviation / math.sqrt(len(values))
    assert between.high - between.low == pytest.approx(2 * half, abs=1e-9)
    assert between.high + between.low == pytest.approx(2 * mean, abs=1e-9)


@given(st.permutations([0.1, 0.2, 0.4, 1e-9, 3.0]))
def test_the_order_of_seeds_does_not_matter(values: list[float]) -> None:
    assert spread(values) == spread(sorted(values))


def test_one_seed_has_no_spread_and_none_has_no_mean() -> None:
    assert spread([2.0]).deviation is None
    found = t_interval([2.0])
    assert (found.mean, found.low, found.high, found.count) == (2.0, None, None, 1)
    with pytest.raises(ValueError, match="no seeds"):
        t_interval([])
