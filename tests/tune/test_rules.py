"""Rules that end trials: what they claim, and that nothing disturbs them."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import stream
from rrl_dist.tune.asha import Asha
from rrl_dist.tune.intervals import Intervals
from rrl_dist.tune.rules import Both, Look, Never, Rule
from tests.tune.simulation import look

IMAGES = 145
Told = list[tuple[int, Look]]


def asha() -> Rule:
    return Asha(grace=10, eta=2)


def intervals() -> Rule:
    return Intervals(alpha=0.05, looks=96, grace=10)


def both() -> Rule:
    return Both(rules=[asha(), intervals()])


RULES = [asha, intervals, both]


def looks_of(seed: int, *, trials: int = 8, probes: int = 12) -> Told:
    """Of all trials if none is ended, in the order in which they could come."""
    random = stream(seed, "looks")
    order = random.permutation(np.repeat(np.arange(trials), probes))
    level = random.uniform(0.2, 0.9, trials)
    made = [0] * trials
    told: Told = []
    for trial in order.tolist():
        made[trial] += 1
        right = int(random.binomial(IMAGES, level[trial]))
        told.append((trial, look(10 * made[trial], right)))
    return told


def run(rule: Rule, told: Told) -> list[tuple[int, Look, str | None]]:
    """What a driver hears that ends the trials it is told to."""
    ended: set[int] = set()
    heard = []
    for trial, each in told:
        if trial not in ended:
            why = rule.look(trial, each)
            heard.append((trial, each, why))
            ended |= {trial} if why is not None else set()
    return heard


# ASHA


def slow_asha(earlier: Told, trial: int, now: Look, *, grace: int, eta: float) -> bool:
    """Whether a trial goes on: all rungs made anew from all looks there were."""

    def rung(each: Look) -> int | None:
        below = [k for k in range(30) if grace * eta**k <= each.step]
        return below[-1] if below else None

    if rung(now) is None:
        return True
    first: dict[int, float] = {}
    for other, each in earlier:
        if rung(each) == rung(now):
            first.setdefault(other, each.value)
    if trial in first or not first:
        return True
    values = sorted(first.values())
    place = (1 - 1 / eta) * (len(values) - 1)
    below, above = values[math.floor(place)], values[math.ceil(place)]
    return now.value >= below + (place - math.floor(place)) * (above - below) - 1e-9


def test_a_tie_with_the_cut_goes_on():
    for eta in (2, 3, 4, 5, 7):
        rule = Asha(grace=10, eta=eta)
        for trial in range(30):
            assert rule.look(trial, look(10, 80)) is None


@pytest.mark.parametrize("eta", [2, 3, 4, 1.5])
@pytest.mark.parametrize("grace", [10, 15, 40])
def test_asha_equals_all_rungs_made_anew_at_each_look(eta, grace):
    for seed in range(3):
        rule, earlier, ended = Asha(grace=grace, eta=eta), [], 0
        for trial, each in looks_of(seed, trials=12):
            goes_on = slow_asha(earlier, trial, each, grace=grace, eta=eta)
            assert (rule.look(trial, each) is None) == goes_on
            earlier.append((trial, each))
            ended += not goes_on
        assert ended


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_asha_equals_ray_tune(eta):
    schedulers = pytest.importorskip("ray.tune.schedulers")
    ended = 0
    for seed in range(20):
        theirs = schedulers.AsyncHyperBandScheduler(
            "step", "value", "max", max_t=1000, grace_period=10, reduction_factor=eta
        )
        ours, random = Asha(grace=10, eta=eta), stream(seed, "ties")
        trials = [SimpleNamespace(trial_id=str(k)) for k in range(24)]
        for each in trials:
            theirs.on_trial_add(None, each)
        gone: set[int] = set()
        for trial, each in looks_of(seed, trials=24):
            if trial in gone:
                continue
            # Without ties, which rounding may decide in theirs.
            each = replace(each, value=each.value + 1e-3 * float(random.random()))
            result = {"step": each.step, "value": each.value}
            said = theirs.on_trial_result(None, trials[trial], result)
            assert (ours.look(trial, each) is None) == (said == "CONTINUE")
            gone |= {trial} if said == "STOP" else set()
        ended += len(gone)
    assert 0.3 * 480 < ended < 480


def test_a_look_between_rungs_counts_at_the_one_below_and_only_once():
    rule = Asha(grace=10, eta=2)
    assert rule.look(0, look(25, 100)) is None  # at 20; it has no value at 10
    assert rule.look(1, look(10, 1)) is None
    assert rule.look(2, look(10, 0)) is not None
    assert rule.look(1, look(21, 99)) is not None
    assert rule.look(0, look(30, 0)) is None


# All rules


@pytest.mark.parametrize("make", RULES)
def test_replayed_looks_give_the_same_endings(make):
    for seed in range(10):
        told = looks_of(seed)
        live = run(make(), told)
        assert any(why for _, _, why in live)
        for cut in (0, 1, len(live) // 2, len(live)):
            rule = make()
            before = [(t, each, rule.look(t, each)) for t, each, _ in live[:cut]]
            after = [(t, each, rule.look(t, each)) for t, each, _ in live[cut:]]
            assert before + after == live


@pytest.mark.parametrize("make", RULES)
def test_looks_that_come_again_change_nothing(make):
    random = stream(0, "again")
    for seed in range(10):
        live = run(make(), looks_of(seed))
        rule, heard = make(), []
        for trial, each, why in live:
            heard.append((trial, each, rule.look(trial, each)))
            for place in random.integers(len(heard), size=3):
                old = heard[place]
                # A resumed trial may measure something else the second time.
                again = look(old[1].step, int(random.integers(IMAGES)))
                assert rule.look(old[0], again) == old[2]
            assert heard[-1][2] == why


@pytest.mark.parametrize("make", RULES)
def test_the_end_of_a_trial_counts_for_others_and_a_failed_one_does_not(make):
    rule = make()
    rule.ended(0, look(10, 140))
    rule.ended(0, None)
    rule.ended(9, None)
    assert rule.look(1, look(10, 10)) is not None
    rule.forget(0)
    rule.forget(9)
    assert rule.look(2, look(10, 9)) is None or make is not intervals
    rule.forget(1)
    rule.forget(2)
    assert rule.look(3, look(10, 0)) is None


def test_both_tells_the_first_reason_and_lets_every_rule_see_every_look():
    first, second = asha(), intervals()
    rule = Both(rules=[first, second])
    rule.look(0, look(10, 140))
    why = rule.look(1, look(10, 10))
    assert why == first.look(1, look(10, 10))
    assert second.look(1, look(10, 10)) not in (None, why)
    assert second.look(2, look(10, 11)) is not None


def test_never_ends_nobody():
    assert not any(why for _, _, why in run(Never(), looks_of(0)))


def test_a_look_at_what_is_no_accuracy_is_refused():
    assert look(10, 37).right == 37
    assert Look(10, round(37 / 145, 4), 0.0, 1.0, 145).right == 37
    for wrong in ((0, 0.5, 9), (1, math.nan, 9), (1, 1.1, 9), (1, 0.5, 0)):
        step, value, count = wrong
        with pytest.raises(ValueError, match="no look"):
            Look(step, value, 0.0, 1.0, count)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Asha(grace=0, eta=2), "grace=0"),
        (lambda: Asha(grace=1, eta=1), "eta=1"),
        (lambda: Asha(grace=1, eta=math.nan), "eta=nan"),
        (lambda: Intervals(alpha=0.0, looks=1, grace=1), "alpha=0.0"),
        (lambda: Intervals(alpha=5, looks=1, grace=1), "alpha=5"),
        (lambda: Intervals(alpha=0.05, looks=0, grace=1), "looks=0"),
        (lambda: Intervals(alpha=0.05, looks=1, grace=0), "grace=0"),
    ],
)
def test_settings_out_of_range_are_told_in_one_line(make, told):
    with pytest.raises(UserError, match=told) as found:
        make()
    assert "\n" not in str(found.value)
