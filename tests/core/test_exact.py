from math import comb

import pytest

from rrl_dist.core.exact import exact


def at_least(successes: int, count: int, share: float) -> float:
    """P(X >= successes), summed term by term."""
    terms = range(successes, count + 1)
    return sum(comb(count, k) * share**k * (1 - share) ** (count - k) for k in terms)


@pytest.mark.parametrize(
    ("successes", "count"), [(1, 1), (1, 64), (3, 64), (32, 64), (63, 64), (5, 300)]
)
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_at_its_ends_the_count_has_half_of_what_is_left(
    successes: int, count: int, level: float
) -> None:
    found, half = exact(successes, count, level=level), (1 - level) / 2
    assert at_least(successes, count, found.low) == pytest.approx(half, rel=1e-6)
    if successes < count:
        above = at_least(successes + 1, count, found.high)
        assert 1 - above == pytest.approx(half, rel=1e-6)
    assert found.low < found.value <= found.high
    assert found.count == count


def test_none_and_all_are_ends_themselves() -> None:
    none, every = exact(0, 10), exact(10, 10)
    assert (none.value, none.low, every.high) == (0, 0, 1)
    # 1 - 0.025 ** 0.1
    assert none.high == pytest.approx(0.3084971, abs=1e-7)
    assert every.low == pytest.approx(1 - none.high)


def test_large_counts_are_as_the_normal_interval() -> None:
    found = exact(5000, 50_000)
    half = 1.96 * (0.1 * 0.9 / 50_000) ** 0.5
    assert found.low == pytest.approx(0.1 - half, abs=5e-5)
    assert found.high == pytest.approx(0.1 + half, abs=5e-5)


@pytest.mark.parametrize("counts", [(1, 0), (3, 2), (-1, 2)])
def test_impossible_counts_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="successes of"):
        exact(*counts)
