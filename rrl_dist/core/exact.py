"""Intervals of shares that are right at any count, however small.

Clopper and Pearson 1934, The use of confidence or fiducial limits. Wilson's interval is
nearer to its level on average, and too short for a few successes: of one in 64 its
lower end is 0.003, where a share of 0.0004 still gives one with a chance of 2.5 %.
"""

import torch
from torch import Tensor

from rrl_dist.core.aggregate import Proportion

# Halvings of [0, 1]: below what results.json is rounded to.
_HALVINGS = 40


def exact(successes: int, count: int, *, level: float = 0.95) -> Proportion:
    """The share of successes and its exact interval.

    Args:
        successes: among `count` samples.
        count: at least 1.
        level: in (0, 1).

    Raises:
        ValueError: the counts are impossible.
    """
    if count <= 0 or not 0 <= successes <= count:
        raise ValueError(f"{successes} successes of {count} samples")
    half = (1 - level) / 2
    low = 0.0 if successes == 0 else _lower(successes, count, half)
    failures = count - successes
    high = 1.0 if failures == 0 else 1 - _lower(failures, count, half)
    return Proportion(successes / count, low, high, count)


def _lower(successes: int, count: int, chance: float) -> float:
    """The share at which so many successes or more have that chance; it grows with the
    share."""
    low, high = 0.0, successes / count
    ways = _log_ways(successes, count)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _tail(ways, successes, count, middle) < chance:
            low = middle
        else:
            high = middle
    return low


def _log_ways(successes: int, count: int) -> Tensor:
    """log C(count, k) for k = successes .. count, float64."""
    k = torch.arange(successes, count + 1, dtype=torch.float64)
    n = torch.tensor(float(count), dtype=torch.float64)
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)


def _tail(ways: Tensor, successes: int, count: int, share: float) -> float:
    """P(X >= successes) of a binomial X."""
    k = torch.arange(successes, count + 1, dtype=torch.float64)
    p = torch.tensor(share, dtype=torch.float64)
    return float((ways + k * p.log() + (count - k) * (-p).log1p()).exp().sum())
