"""Rows to numbers: the one place that averages."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, stdev
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rrl_dist.core.columns import Columns


@dataclass(frozen=True)
class Proportion:
    """A share of samples with its interval, Wilson's where nothing else is said.

    Attributes:
        value: successes / count, in [0, 1].
        low, high: the interval, in [0, 1]; it covers the sampling of test images
            only, not the training seed.
        count: samples.
    """

    value: float
    low: float
    high: float
    count: int

    def as_dict(self) -> dict[str, float | int]:
        """For results.json: rounded far below the interval's width."""
        return {
            "value": round(self.value, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
            "count": self.count,
        }


def wilson(successes: int, count: int, *, level: float = 0.95) -> Proportion:
    """Wilson 1927. Never leaves [0, 1], and has a width at 0 and at 1.

    Raises:
        ValueError: if there is no sample, or more successes than samples.
    """
    if count <= 0 or not 0 <= successes <= count:
        raise ValueError(f"{successes} successes of {count} samples")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / count
    scale = 1 + z * z / count
    centre = (p + z * z / (2 * count)) / scale
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / scale
    # At 0 and 1 the end is exact; rounding would move it off the value.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == count else centre + half
    return Proportion(p, low, high, count)


@dataclass(frozen=True)
class Mean:
    """A mean over samples with its normal interval.

    Attributes:
        value: the mean.
        low, high: the interval; it covers the sampling of test images only, not the
            training seed. Of one sample it has no width, since none can be told.
        count: samples.
    """

    value: float
    low: float
    high: float
    count: int

    def as_dict(self) -> dict[str, float | int]:
        """For results.json: rounded far below the interval's width."""
        return {
            "value": rounded(self.value),
            "low": rounded(self.low),
            "high": rounded(self.high),
            "count": self.count,
        }


def rounded(value: float) -> float:
    """To six significant digits."""
    return float(f"{value:.6g}")


def mean_of(values: Sequence[float], *, level: float = 0.95) -> Mean:
    """Mean and normal interval, whatever the order of `values`.

    Raises:
        ValueError: if there is no value.
    """
    count = len(values)
    if count == 0:
        raise ValueError("no values to average")
    value = math.fsum(values) / count
    if count == 1:
        return Mean(value, value, value, count)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    half = z * stdev(values) / math.sqrt(count)
    return Mean(value, value - half, value + half, count)


class Interval(Protocol):
    """What makes a share with its interval of two counts, as `wilson` does."""

    def __call__(self, successes: int, count: int) -> Proportion: ...


def accuracy(
    components: Iterable[Columns], *, interval: Interval = wilson
) -> Proportion:
    """Share of samples that are right in every one of some components.

    Given one component it is its accuracy; given several, the accuracy under the worst
    of them. They are read one after another: one of them is held at a time.

    Raises:
        ValueError: there is none, or they are not of the same samples.
    """
    right: NDArray[np.bool_] | None = None
    index: NDArray[np.int64] | None = None
    for columns in components:
        if index is None or right is None:
            index, right = columns.index, columns.correct.copy()
        elif not np.array_equal(index, columns.index):
            raise ValueError("components of different samples have no worst case")
        else:
            right &= columns.correct
    if right is None:
        raise ValueError("0 samples")
    return interval(int(right.sum()), len(right))


def accuracy_after(
    columns: Columns, attacks: Collection[str], *, interval: Interval = wilson
) -> Proportion:
    """Share of one component's samples that none of these of its attacks has broken.

    Args:
        columns: of a component that is several attacks in turn.
        attacks: their names; "clean" is the image itself.
    """
    codes = [columns.attacks.index(name) for name in attacks if name in columns.attacks]
    broken = np.isin(columns.broken_by, codes)
    return interval(int((~broken).sum()), len(broken))
