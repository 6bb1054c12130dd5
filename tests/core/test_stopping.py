from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from rrl_dist.core import confidence
from rrl_dist.core.aggregate import Proportion
from rrl_dist.core.confidence import ConfidenceSequence, anytime
from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import stream
from rrl_dist.core.stopping import Quantity, StopRule, parse_stop


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("half_width<0.01", StopRule("half_width", 0.01, 95)),
        ("  half_width  <\t.01 ", StopRule("half_width", 0.01, 95)),
        ("half_width<0.02 with 99 %", StopRule("half_width", 0.02, 99)),
        ("half_width<1e-3 with 99.9%", StopRule("half_width", 0.001, 99.9)),
        ("below 0.40 with 95 %", StopRule("below", 0.4, 95)),
        ("below 0.40 with 95%", StopRule("below", 0.4, 95)),
        ("below 0.40", StopRule("below", 0.4, 95)),
        ("above   0.4\nwith 90.5 %", StopRule("above", 0.4, 90.5)),
    ],
)
def test_a_rule_is_read(text: str, rule: StopRule) -> None:
    assert parse_stop(text) == rule


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("half_width < .010", "half_width<0.01 with 95 %"),
        ("below 0.40 with 95%", "below 0.4 with 95 %"),
        ("above 0.4 with 99.90 %", "above 0.4 with 99.9 %"),
    ],
)
def test_a_rule_is_written_in_one_way(text: str, canonical: str) -> None:
    assert str(parse_stop(text)) == canonical


@given(
    quantity=st.sampled_from(["half_width", "below", "above"]),
    bound=st.floats(0, 0.5, exclude_min=True, exclude_max=True),
    percent=st.floats(50, 100, exclude_min=True, exclude_max=True),
)
def test_what_is_written_is_read_back(
    quantity: Quantity, bound: float, percent: float
) -> None:
    rule = StopRule(quantity, bound, percent)
    assert parse_stop(str(rule)) == rule
    assert rule.level == percent / 100


@pytest.mark.parametrize(
    ("text", "found", "write"),
    [
        ("", '""', "half_width<0.01"),
        ("width<0.01", "width<0.01", "half_width<0.01"),
        ("half_width>0.01", "half_width>0.01", "half_width<0.01"),
        ("half_width 0.01", "half_width 0.01", "half_width<0.01"),
        ("below < 0.4", "below < 0.4", "below 0.40 with 95 %"),
        ("below 0.4 with 95", "below 0.4 with 95", "below 0.40 with 95 %"),
        ("below 0.4 at 95 %", "below 0.4 at 95 %", "below 0.40 with 95 %"),
        ("below nan", "below nan", "below 0.40"),
        ("not below 0.4", "not below 0.4", "below 0.40"),
        ("below\n0.4\nplease", "below 0.4 please", "below 0.40"),
        ("below 40", "bound 40", "share between 0 and 1, such as 0.40"),
        ("below 0", "bound 0", "share between 0 and 1"),
        ("above 1.0", "bound 1.0", "share between 0 and 1"),
        ("above -0.1", "bound -0.1", "share between 0 and 1"),
        ("half_width<0", "bound 0", "half width between 0 and 0.5, such as 0.01"),
        ("half_width<0.5", "bound 0.5", "half width between 0 and 0.5"),
        ("below 0.4 with 50 %", "level 50 %", "between 50 and 100, such as 95 %"),
        ("below 0.4 with 100 %", "level 100 %", "between 50 and 100"),
        ("half_width<0.1 with 0.95 %", "level 0.95 %", "between 50 and 100"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_write(
    text: str, found: str, write: str
) -> None:
    with pytest.raises(UserError) as caught:
        parse_stop(text)
    message = str(caught.value)
    assert message.startswith("evaluate.stop_when=")
    assert "\n" not in message
    said, told = message.split("; write ")
    assert found in said
    assert write in told


# A value that only a rule on the wrong end of the interval would look at.
@pytest.mark.parametrize(
    ("text", "low", "high", "met"),
    [
        ("half_width<0.125", 0.25, 0.4375, True),
        ("half_width<0.125", 0.25, 0.5, False),
        ("half_width<0.125", 0.25, 0.625, False),
        ("half_width<0.125", 0.5, 0.5, True),
        ("below 0.5", 0.25, 0.4375, True),
        ("below 0.5", 0.25, 0.5, False),
        ("below 0.5", 0.25, 0.75, False),
        ("below 0.5", 0.5, 0.5, False),
        ("above 0.5", 0.5625, 0.75, True),
        ("above 0.5", 0.5, 0.75, False),
        ("above 0.5", 0.25, 0.75, False),
    ],
)
def test_a_rule_is_met_by_the_whole_interval_and_strictly(
    text: str, low: float, high: float, met: bool
) -> None:
    for value in (low, high):
        assert parse_stop(text).met(Proportion(value, low, high, 7)) == met


TOTAL, RUNS, STEP = 500, 1_000, 20


def stopped(text: str, share: float) -> Iterator[tuple[Proportion, bool]]:
    """The last look of each run, and whether the rule was met there."""
    rule = parse_stop(text)
    outcomes = np.tile(np.arange(TOTAL) < round(share * TOTAL), (RUNS, 1))
    counted = stream(0, "stop").permuted(outcomes, axis=1).cumsum(axis=1)
    for row in counted[:, STEP - 1 :: STEP].tolist():
        sequence = ConfidenceSequence(TOTAL, level=rule.level)
        for look, successes in enumerate(row, 1):
            found = sequence.look(successes, look * STEP)
            if rule.met(found):
                break
        yield found, rule.met(found)


@pytest.fixture(autouse=True)
def _each_interval_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confidence, "anytime", cache(anytime))


def most(alpha: float) -> float:
    """Of the runs, what a true rate of alpha exceeds in one of ten thousand tests:
    0.078 for 0.05."""
    return float(binom.ppf(1 - 1e-4, RUNS, alpha)) / RUNS


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.97])
def test_where_the_width_stops_it_the_interval_holds_the_share(share: float) -> None:
    ends = list(stopped("half_width<0.05 with 95 %", share))
    assert all(met and found.high - found.low < 0.1 for found, met in ends)
    assert np.mean([found.count for found, _ in ends]) < TOTAL
    missed = [not found.low <= share <= found.high for found, _ in ends]
    assert np.mean(missed) <= most(0.05)


@pytest.mark.parametrize("percent", [80, 95])
@pytest.mark.parametrize("side", ["below", "above"])
def test_a_claim_that_is_not_true_is_rarely_made(side: str, percent: int) -> None:
    """The share is the bound itself, where a claim is hardest to withhold."""
    ends = list(stopped(f"{side} 0.4 with {percent} %", 0.4))
    assert np.mean([met for _, met in ends]) <= most(1 - percent / 100)
    assert all(met or found.count == TOTAL for found, met in ends)


@pytest.mark.parametrize(("text", "share"), [("below 0.4", 0.3), ("above 0.4", 0.5)])
def test_a_claim_that_is_true_is_always_made_and_mostly_early(
    text: str, share: float
) -> None:
    ends = list(stopped(text, share))
    assert all(met for _, met in ends)
    assert np.mean([found.count for found, _ in ends]) < 0.8 * TOTAL
