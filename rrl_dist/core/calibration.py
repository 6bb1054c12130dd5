"""Calibration errors of top-label confidences, from sums that can be added up.

With n outputs, n_b of them in bin b, their share that is right acc_b and their mean
confidence conf_b (Guo et al. 2017, arXiv:1706.04599, eq. 3 and 5; Hendrycks, Mazeika,
Dietterich 2019, arXiv:1812.04606):

    ECE = sum_b n_b/n |acc_b - conf_b|
    RMS = sqrt(sum_b n_b/n (acc_b - conf_b)^2)
    MCE = max_b |acc_b - conf_b|

Bins are [0, 1/15), [1/15, 2/15), ... [14/15, 1]: the last one holds a confidence of
exactly 1. Of each bin there are three sums, of whole numbers: confidences are counted
in units of 2^-38, of which every float32 above 2^-15 is a multiple. So sums are exact,
and the same in any order and for any cut.

Intervals. With d_b = n_b (conf_b - acc_b) the three errors are norms of vectors: L1 of
d_b / n, L2 of d_b / sqrt(n n_b), the largest of d_b / n_b. What is found is too high,
since noise has a size too, and a resample adds as much again: quantiles of
resampled errors would lie above the true one. What resamples do tell is the noise h of
the vector, and of it follows how far its norm may be off: by the size of h in bins that
may as well be 0, by h with its sign, to first order, in those that are surely not (over
three standard deviations; Fang and Santos 2019, arXiv:1404.3763, for the derivative of
norms at and off 0). The 95 % quantile of that is taken to either side. The largest is
off by at most the largest of |h|. What is covered is the error of these bins in the
population that images are drawn from.

Resamples give each image a weight that is Poisson of mean 1 and a function of its index
alone, so that their sums can be added up too. All outputs of one image have its weight.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from rrl_dist.core.aggregate import Mean
from rrl_dist.core.randomness import uniform

BINS = 15
BINNING = f"{BINS} equal-width bins"
RESAMPLES = 399  # the 380th largest deviation is at 95 %
INTERVAL = (
    f"95 %, Poisson bootstrap over images ({RESAMPLES} resamples) of the bins' "
    "deviations"
)
_BITS, _HALF = 38, 19  # sums of 2**24 confidences stay below 2**63
_MANY = 2**12  # images at a time
_KEPT = 16  # times so many images' weights, for the next component: 26 MB
_POISSON = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(10)])

Whole = NDArray[np.int64]
Real = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram.

    Attributes:
        count: outputs in it.
        confidence, accuracy: their means, in [0, 1]; None of no output.
    """

    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Errors:
    """Calibration errors in [0, 1], with their intervals; `count` is of images."""

    ece: Mean
    rms: Mean
    mce: Mean


@dataclass(frozen=True)
class Calibration:
    """Sums by bin, of outputs as they are and of resamples. They can be added.

    Attributes:
        count: [1 + RESAMPLES, BINS] outputs; the first row is of the outputs as they
            are, the others are weighted.
        confidence: [1 + RESAMPLES, BINS] sums of confidences, in units of 2^-38.
        correct: [1 + RESAMPLES, BINS] outputs that are right.
    """

    count: Whole
    confidence: Whole
    correct: Whole

    @classmethod
    def of(
        cls,
        index: NDArray[np.int64],
        confidence: NDArray[np.float64],
        correct: NDArray[np.bool_],
    ) -> "Calibration":
        """Of some outputs.

        Args:
            index: [N] of the images.
            confidence: [N] probability of the answer, in [0, 1].
            correct: [N] whether the answer is right.

        Raises:
            ValueError: a confidence is NaN or not in [0, 1].
        """
        units = _units(confidence)
        bins = np.minimum(units * BINS >> _BITS, BINS - 1)
        halves = units >> _HALF, units & (2**_HALF - 1)
        values = np.stack([np.ones_like(units), *halves, correct], 1).astype(np.float64)
        sums = np.zeros((1 + RESAMPLES, BINS, 4), dtype=np.int64)
        for at in range(0, len(index), _MANY):
            part = slice(at, at + _MANY)
            weights = _weights(index[part].tobytes())
            for place in np.unique(bins[part]):
                there = np.flatnonzero(bins[part] == place)
                # Whole numbers below 2**53, so that any order of additions is exact.
                found = weights[there].T.astype(np.float64) @ values[part][there]
                sums[:, place] += found.astype(np.int64)
        count, high, low, right = np.moveaxis(sums, 2, 0)
        return cls(count, (high << _HALF) + low, right)

    def __add__(self, other: "Calibration") -> "Calibration":
        """Of the outputs of both, which may be of the same images or of others."""
        return Calibration(
            self.count + other.count,
            self.confidence + other.confidence,
            self.correct + other.correct,
        )

    def errors(self, images: int) -> Errors:
        """ECE, RMS and MCE.

        Args:
            images: that the outputs are of.

        Raises:
            ValueError: there is no output.
        """
        if not self.count[0].any():
            raise ValueError("no outputs to calibrate")
        found = []
        for vectors, norm in zip(self._deviations(), _NORMS, strict=True):
            value, apart = norm(vectors[0], vectors[1:] - vectors[0])
            half = float(np.sort(apart)[math.ceil(0.95 * (RESAMPLES + 1)) - 1])
            low, high = max(value - half, 0.0), min(value + half, 1.0)
            found.append(Mean(value, low, high, images))
        return Errors(*found)

    def _deviations(self) -> tuple[Real, ...]:
        """[1 + RESAMPLES, BINS] each: the vectors whose norms are the errors."""
        surplus = (self.confidence - (self.correct << _BITS)) / 2.0**_BITS
        own = np.maximum(self.count, 1)  # of none the surplus is 0
        all_ = np.maximum(self.count.sum(1, keepdims=True), 1)
        return surplus / all_, surplus / np.sqrt(all_ * own), surplus / own

    def bins(self) -> list[Bin]:
        """The reliability diagram of the outputs as they are."""
        rows = (self.count[0], self.confidence[0], self.correct[0])
        return [
            Bin(int(n), int(units) / (int(n) << _BITS), int(right) / int(n))
            if n
            else Bin(0, None, None)
            for n, units, right in zip(*rows, strict=True)
        ]


def _l1(x: Real, h: Real) -> tuple[float, Real]:
    """The norm of x: [BINS], and how far noise h: [RESAMPLES, BINS] puts it off."""
    sure = _sure(x, h)
    signed = np.abs(h[:, sure] @ np.sign(x[sure]))
    return math.fsum(np.abs(x)), signed + np.abs(h[:, ~sure]).sum(1)


def _l2(x: Real, h: Real) -> tuple[float, Real]:
    """As `_l1`; with the second order, and never more than the norm of h."""
    size, sure = math.sqrt(math.fsum(x * x)), _sure(x, h)
    all_, inside, rest = (_lengths(part) for part in (h, h[:, sure], h[:, ~sure]))
    if not sure.any():
        return size, all_
    first, second = np.abs(h[:, sure] @ x[sure]), inside**2 / 2
    return size, np.minimum((first + second) / size + rest, all_)


def _largest(x: Real, h: Real) -> tuple[float, Real]:
    """As `_l1`."""
    return float(np.abs(x).max()), np.abs(h).max(1)


def _lengths(h: Real) -> Real:
    found: Real = np.sqrt((h * h).sum(1))
    return found


def _sure(x: Real, h: Real) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.abs(x) > 3 * h.std(0)
    return found


_NORMS = (_l1, _l2, _largest)


def _units(confidence: NDArray[np.float64]) -> Whole:
    unusable = ~((confidence >= 0) & (confidence <= 1))
    if unusable.any():
        raise ValueError(
            f"{int(unusable.sum())} of {len(confidence)} confidences are not in "
            f"[0, 1], such as {confidence[unusable][0]}"
        )
    return np.rint(np.ldexp(confidence, _BITS)).astype(np.int64)


@lru_cache(maxsize=_KEPT)
def _weights(index: bytes) -> NDArray[np.uint8]:
    """[N, 1 + RESAMPLES] of images [N] int64: ones, and beside them the resamples'."""
    images = torch.frombuffer(bytearray(index), dtype=torch.int64)
    draws = uniform(0, "calibration", index=images, n=RESAMPLES).numpy()
    weights = np.ones((len(images), 1 + RESAMPLES), dtype=np.uint8)
    weights[:, 1:] = 0
    for share in _POISSON.tolist():
        weights[:, 1:] += draws >= share
    return weights
