"""The interval rule keeps its error rate, ends what is clearly worse, and no more."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from rrl_dist.core.randomness import stream
from rrl_dist.tune.intervals import Intervals, exact_interval
from rrl_dist.tune.rules import Look, Rule
from tests.tune.simulation import (
    Noise,
    counted,
    look,
    outcome,
    play,
    recorded,
    rules,
)

IMAGES = 145


@pytest.mark.parametrize("count", [1, 7, 145, 1000])
@pytest.mark.parametrize("error", [0.05, 1e-4])
def test_exact_interval_is_clopper_and_pearsons(count, error):
    for right in {0, 1, count // 3, count // 2, count - 1, count}:
        low, high = exact_interval(right, count, error=error)
        tail = error / 2
        want_low = stats.beta.ppf(tail, right, count - right + 1) if right else 0.0
        left = count - right
        want_high = stats.beta.isf(tail, right + 1, left) if left else 1.0
        assert (low, high) == pytest.approx((want_low, want_high), abs=1e-9)


@pytest.mark.parametrize("count", [5, 145])
def test_exact_interval_misses_no_share_more_often_than_told(count):
    """All outcomes weighed, nothing drawn."""
    error = 0.01
    ends = [exact_interval(k, count, error=error) for k in range(count + 1)]
    low, high = np.array(ends).T
    worst = 0.0
    for share in np.linspace(0.001, 0.999, 199):
        weight = stats.binom.pmf(np.arange(count + 1), count, share)
        below, above = weight[high < share].sum(), weight[low > share].sum()
        worst = max(worst, below, above)
    assert error / 4 < worst <= error / 2


def share_of_sweeps(
    make: Callable[[], Rule],
    accuracy: Sequence[float],
    wrong: Callable[[list[int]], bool],
    *,
    noise: Noise,
    sweeps: int,
    probes: int = 8,
) -> float:
    """Of sweeps whose trials keep one accuracy each throughout."""
    truth = np.repeat(np.array(accuracy)[:, None], probes, axis=1)
    steps = [10 * (k + 1) for k in range(probes)]
    found = 0
    for number in range(sweeps):
        random = stream(number, "sweep")
        right = counted(truth, IMAGES, noise, random)
        made = play(make(), steps, right, IMAGES, at_once=4, random=random)
        found += wrong(made)
    return found / sweeps


EQUAL = [0.6] * 12  # trials, and looks in all


def any_ended(made: list[int]) -> bool:
    return min(made) < 8


class Uncorrected(Intervals):
    """As if each look were the only one."""

    def _judge(self, trial: int, look: Look) -> str | None:
        self._spent = 0
        return super()._judge(trial, look)


@pytest.mark.parametrize("noise", ["own images", "same images"])
@pytest.mark.parametrize("alpha", [0.05, 0.5])
def test_equal_trials_are_ended_in_no_more_sweeps_than_alpha(alpha, noise):
    def make() -> Rule:
        return Intervals(alpha=alpha, looks=len(EQUAL) * 8, grace=10)

    sweeps = 300
    share = share_of_sweeps(make, EQUAL, any_ended, noise=noise, sweeps=sweeps)
    assert share <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / sweeps)


def test_levels_that_are_not_corrected_would_end_equal_trials():
    """The simulation sees what the correction is for."""

    def make() -> Rule:
        return Uncorrected(alpha=0.05, looks=1, grace=10)

    share = share_of_sweeps(make, EQUAL, any_ended, noise="own images", sweeps=100)
    assert share > 0.2


@pytest.mark.parametrize("noise", ["own images", "same images"])
def test_trials_that_are_clearly_worse_are_ended(noise):
    def make() -> Rule:
        return Intervals(alpha=0.05, looks=96, grace=10)

    def kept(made: list[int]) -> bool:
        return made[0] < 8 or max(made[4:]) == 8

    accuracy = [0.75] * 4 + [0.3] * 8
    assert share_of_sweeps(make, accuracy, kept, noise=noise, sweeps=100) <= 0.01


def test_only_looks_at_the_same_step_are_compared():
    rule = Intervals(alpha=0.05, looks=100, grace=10)
    assert rule.look(0, look(10, 10)) is None
    assert rule.look(0, look(20, 140)) is None
    assert rule.look(1, look(10, 10)) is None
    assert rule.look(1, look(15, 0)) is None
    why = rule.look(1, look(20, 10))
    assert why is not None
    assert "step 20" in why
    assert "trial 0" in why


def test_looks_beyond_the_number_told_end_nobody_and_early_ones_do_not_count():
    rule = Intervals(alpha=0.05, looks=2, grace=10)
    assert rule.look(0, look(5, 145)) is None
    assert rule.look(1, look(5, 0)) is None  # not judged
    assert rule.look(0, look(10, 145)) is None
    assert rule.look(1, look(10, 0)) is not None
    assert rule.look(2, look(10, 0)) is None  # the third


def test_simulated_sweeps_are_the_same_for_all_rules_and_never_saves_nothing():
    curves = recorded()
    assert (curves.accuracy >= 0).all()
    assert (curves.accuracy <= 1).all()
    made = rules(curves)
    none = [outcome(curves, 145, "own images", made["none"], k) for k in range(5)]
    assert all(each.saved == each.lost == each.left == 0 for each in none)
    halved = [
        outcome(curves, 145, "own images", made["ASHA, eta 2"], k) for k in range(5)
    ]
    assert all(0.2 < each.saved < 0.9 for each in halved)
