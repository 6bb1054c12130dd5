"""Poisson counts of photons, by inversion: a count is the smallest whose distribution
function is above the draw."""

import math
from functools import cache

import torch
from torch import Tensor

from rrl_dist.data.corruptions.kind import Given, Kind, levels


def _apply(x: Tensor, rate: int, given: Given) -> Tensor:
    """Counts with mean `rate` * x, over `rate`."""
    steps = _steps(rate).to(x.device)  # [256, K]
    level = levels(x)
    # Each level's steps lie one above the level before: one sorted row for all.
    offset = torch.arange(256, dtype=steps.dtype, device=x.device)[:, None]
    row = (steps + offset).flatten()
    draws = given.draw(x[0].numel()).view_as(x)
    found = torch.searchsorted(row, (level + draws).contiguous(), right=True)
    return (found - level * steps.shape[1]).double() / rate


@cache
def _steps(rate: int) -> Tensor:
    """[256, K] double: P(count <= k) of Poisson counts with mean rate * level / 255.

    K is ten standard deviations above the largest mean, and ten more counts: far more
    than the largest draw can ask for.
    """
    mean = torch.arange(256, dtype=torch.float64)[:, None] * (rate / 255)  # [256, 1]
    count = torch.arange(rate + 10 * math.isqrt(rate) + 10, dtype=torch.float64)
    # xlogy: 0 log 0 is 0, for black.
    log_p: Tensor = torch.special.xlogy(count, mean) - mean - torch.lgamma(count + 1)
    return log_p.exp().cumsum(1).clamp_max(1)


KIND = Kind(  # counts of a white pixel
    _apply,
    small=(500, 250, 100, 75, 50),
    large=(60, 25, 12, 5, 3),
    group="noise",
    role="test",
    place=2,
)
