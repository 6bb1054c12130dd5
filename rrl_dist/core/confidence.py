"""Intervals that stay valid however often one looks, and whenever one stops.

Waudby-Smith and Ramdas 2020, arXiv:2006.04347, section 2: the prior-posterior-ratio
martingale of sampling without replacement. The N samples of a test set are drawn in
random order, the first t of them hold s successes, and n of all N would be successes.
With the uniform prior on n the posterior is beta-binomial, and

    posterior(n | s, t) / prior(n) = (t + 1) C(n, s) C(N - n, t - s) / C(N, t).

At the true n the inverse is a martingale that starts at 1. By Ville's inequality it
ever reaches 1 / alpha with probability at most alpha, so that the n where it is below
hold the truth at all looks together. The prior moves the width alone, never the
coverage; the uniform one (a = b = 1) favours no share, as nothing is known before the
first attack, and makes the ratio the one formula above.

The order has to be random and told beforehand. Looks are at its prefixes: the samples
that happen to be finished are no random ones if a broken sample is finished sooner.
"""

import math

import torch
from torch import Tensor

from rrl_dist.core.aggregate import Proportion

# Above the rounding of `_log_ratio`, far below what shows. What is within it of the
# threshold is kept, so that rounding can only widen.
_ROUNDING = 1e-8


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    """n, k: float64, broadcast, 0 <= k <= n -> log C(n, k)."""
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)


def _log_ratio(successes: int, drawn: int, total: int) -> Tensor:
    """log(posterior / prior) of each number of successes among all that is possible:
    [total - drawn + 1] float64, for successes .. total - drawn + successes.

    Log factorials by `torch.lgamma`: against 40 digits it is right to 2e-11 for a total
    of 10,000 and to 3e-9 for 1.3 million, in 4 and 75 ms on one core.
    """
    s, t, size = torch.tensor([successes, drawn, total], dtype=torch.float64)
    n = torch.arange(total - drawn + 1, dtype=torch.float64) + s
    ways = _log_choose(n, s) + _log_choose(size - n, t - s)
    return ways - _log_choose(size, t) + math.log(drawn + 1)


def anytime(
    successes: int, drawn: int, total: int, *, level: float = 0.95
) -> Proportion:
    """One look of the confidence sequence for the share of successes in all samples.

    With probability `level` the intervals of all looks hold that share together. The
    set is an interval, since the ratio has one peak, and it always holds
    successes / drawn and a possible share. At drawn == total it is that share alone.

    Args:
        successes: among the drawn samples.
        drawn: samples, in random order without replacement, at least 1: of none there
            is no share to tell (the interval would be 0 to 1).
        total: samples there are.
        level: in (0, 1).

    Returns:
        value is successes / drawn and count is `drawn`; low and high are multiples of
        1 / total.

    Raises:
        ValueError: if the counts are impossible, or the level is none.
    """
    if not (0 <= successes <= drawn <= total and drawn > 0):
        raise ValueError(f"{successes} successes of {drawn} drawn of {total} samples")
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not between 0 and 1")
    ratio = _log_ratio(successes, drawn, total)
    kept = torch.nonzero(ratio > math.log(1 - level) - _ROUNDING)[:, 0] + successes
    low, high = int(kept[0]) / total, int(kept[-1]) / total
    return Proportion(successes / drawn, low, high, drawn)


class ConfidenceSequence:
    """The looks at one share, each cut with the interval of the look before.

    The intersection of all looks is as valid as each of them, and never widens. With
    probability at most 1 - level it comes to be empty or without successes / drawn,
    the estimate: earlier looks then contradict the later ones. The look's own interval
    is told instead and cut from there on. That costs no coverage, since every interval
    told still holds the intersection of all looks; and low <= value <= high always,
    and the share is exact when all samples are drawn.

    Args:
        total: samples there are.
        level: in (0, 1), of all looks together.
    """

    def __init__(self, total: int, *, level: float) -> None:
        self.total, self.level = total, level
        self._successes, self._drawn = 0, 0
        self._low, self._high = 0.0, 1.0

    def look(self, successes: int, drawn: int) -> Proportion:
        """The interval after `drawn` samples, `successes` of them right. A look may be
        repeated.

        Raises:
            ValueError: if the counts are impossible, alone or after the look before.
        """
        now = anytime(successes, drawn, self.total, level=self.level)
        if not 0 <= successes - self._successes <= drawn - self._drawn:
            raise ValueError(
                f"{successes} successes of {drawn} samples after "
                f"{self._successes} of {self._drawn}"
            )
        low, high = max(self._low, now.low), min(self._high, now.high)
        if not low <= now.value <= high:
            low, high = now.low, now.high
        self._successes, self._drawn = successes, drawn
        self._low, self._high = low, high
        return Proportion(now.value, low, high, drawn)
