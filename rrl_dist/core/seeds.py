"""Numbers of several training seeds to one: mean, standard deviation, t-interval.

Intervals of one model cover the sampling of test images; these cover the training.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev


@dataclass(frozen=True)
class Spread:
    """A number over training seeds.

    Attributes:
        mean: over seeds.
        deviation: sample standard deviation over seeds; None of one seed.
        count: seeds.
    """

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Interval:
    """A mean over training seeds with its t-interval (Student 1908).

    Attributes:
        mean: over seeds.
        low, high: the interval; None of one seed.
        count: seeds.
    """

    mean: float
    low: float | None
    high: float | None
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation, whatever the order of `values`.

    Raises:
        ValueError: if there is no value.
    """
    count = len(values)
    if count == 0:
        raise ValueError("no seeds to average")
    mean = math.fsum(values) / count
    return Spread(mean, stdev(values) if count > 1 else None, count)


def t_interval(values: Sequence[float], *, level: float = 0.95) -> Interval:
    """The mean's interval, if seeds vary as a normal distribution does.

    Raises:
        ValueError: if there is no value.
    """
    found = spread(values)
    if found.deviation is None:
        return Interval(found.mean, None, None, found.count)
    half = t_quantile(level, found.count - 1) * found.deviation / found.count**0.5
    return Interval(found.mean, found.mean - half, found.mean + half, found.count)


def t_quantile(level: float, freedom: int) -> float:
    """The t that |T| stays under with probability `level`, in [0, 1).

    Found by bisection of the angle in `_within`, to the last digits of a float.

    Args:
        level: of the two-sided interval.
        freedom: degrees of freedom, at least 1.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        if _within(middle, freedom) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """P(|T| < sqrt(freedom) tan(angle)).

    Abramowitz and Stegun 1964, eq. 26.7.3 for odd and 26.7.4 for even degrees.
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
