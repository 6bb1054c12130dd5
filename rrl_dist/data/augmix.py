"""AugMix: an image mixed with chains of random operations on it.

Hendrycks et al., AugMix: A Simple Data Processing Method to Improve Robustness and
Uncertainty, ICLR 2020, arXiv:1912.02781, after the authors' code
(google-research/augmix, cifar.py). With k chains of operations, m ~ Beta(alpha, alpha)
and (w_1, ..., w_k) ~ Dirichlet(alpha, ..., alpha):

    mixed = (1 - m) * x + m * sum_i w_i * chain_i(x)

Where theirs rounds to 8 bits after every operation, this does not; see
`augmix_operations`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import Key, uniform
from rrl_dist.data.augmix_operations import NAMES, apply
from rrl_dist.data.geometry import per_sample

_LONGEST = 3  # operations of a chain of random length
_LEAST = 0.1  # level of an operation, as in the authors' code
_HALVINGS = 64  # as many as double precision has use for


@dataclass(frozen=True, kw_only=True)
class AugMix:
    """An operation of views that mixes an image with what chains make of it.

    Attributes:
        severity: an upper limit: each operation draws its level from [0.1, severity],
            tenths of its largest strength. At least 0.1, at most 10.
        width: number of chains, at least 1.
        depth: operations of each chain, at least 1; or -1 for 1, 2 or 3 at random.
        alpha: of the weights' distributions, in [0.1, 100]; 1 is uniform.

    Raises:
        UserError: a number out of its range.
    """

    severity: float
    width: int
    depth: int
    alpha: float

    def __post_init__(self) -> None:
        if not _LEAST <= self.severity <= 10:
            raise UserError(f"AugMix has severity={self.severity}; set 0.1 to 10")
        if self.width < 1:
            raise UserError(f"AugMix has width={self.width}; set at least 1")
        if self.depth != -1 and self.depth < 1:
            raise UserError(
                f"AugMix has depth={self.depth}; set at least 1, or -1 for 1 to 3"
            )
        if not 0.1 <= self.alpha <= 100:
            raise UserError(f"AugMix has alpha={self.alpha}; set 0.1 to 100")

    def __call__(
        self, x: Tensor, *, seed: int, key: tuple[Key, ...], index: Tensor
    ) -> Tensor:
        """See `views.Operation`."""
        share, weights, chains = self.parts(x, seed=seed, key=key, index=index)
        mix = torch.zeros_like(x)
        for weight, chain in zip(weights.unbind(1), chains, strict=True):
            mix += per_sample(weight) * chain
        share = per_sample(share)
        # Weights sum to 1 but for rounding.
        return ((1 - share) * x + share * mix).clamp_(0, 1)

    def parts(
        self, x: Tensor, *, seed: int, key: tuple[Key, ...], index: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What is mixed: m [N], w [N, width], and each chain's images [N, 3, H, W]."""
        longest = _LONGEST if self.depth == -1 else self.depth
        counts = [2, self.width, self.width, 3 * self.width * longest]
        draws = uniform(seed, *key, index=index, n=sum(counts)).double()
        pair, weights, lengths, steps = torch.split(draws, counts, dim=1)
        share = _shares(pair, self.alpha)[:, 0].to(x.dtype)
        weights = _shares(weights, self.alpha).to(x.dtype)
        steps = steps.view(-1, self.width, longest, 3)
        chains = self._chains(x, self._lengths(lengths), steps)
        return share, weights, chains

    def _lengths(self, draws: Tensor) -> Tensor:
        """[N, width] uniform -> operations of each chain, int64."""
        if self.depth == -1:
            return 1 + (draws * _LONGEST).long()
        return torch.full_like(draws, self.depth, dtype=torch.int64)

    def _chains(self, x: Tensor, lengths: Tensor, draws: Tensor) -> list[Tensor]:
        """draws: [N, width, longest, 3] uniform -> `width` times [N, 3, H, W]."""
        # All chains at once, chain after chain: an operation is one call for all.
        y = torch.cat([x] * self.width)
        lengths = lengths.T.flatten()
        steps = draws.transpose(0, 1).flatten(0, 1).unbind(1)  # [width * N, 3] each
        for step, drawn in enumerate(steps):
            kind, height, side = drawn.unbind(1)
            operation = (kind * len(NAMES)).long()
            level = _LEAST + (self.severity - _LEAST) * height
            sign = torch.where(side < 0.5, 1.0, -1.0).to(level.dtype)
            y = apply(y, operation.where(step < lengths, -1), level, sign)
        return list(y.chunk(self.width))


def _shares(draws: Tensor, alpha: float) -> Tensor:
    """[N, K] uniform in [0, 1), multiples of 2**-24 -> a sample of the Dirichlet
    distribution with all parameters alpha, [N, K], rows that sum to 1.

    As independent gamma variables over their sum, each the quantile at its draw.
    """
    middle = draws + 2.0**-25  # neither 0 nor 1
    gamma = -torch.log(middle) if alpha == 1 else gamma_quantile(middle, alpha)
    # Written out: the order of a sum over columns may depend on the number of rows.
    total = sum(gamma.unbind(1), torch.zeros_like(gamma[:, 0]))
    return gamma / total[:, None]


def gamma_quantile(p: Tensor, alpha: float) -> Tensor:
    """The value that a gamma variable of shape alpha and scale 1 stays below with
    probability p: by bisection of its logarithm.

    Args:
        p: any shape, double, in [2**-25, 1 - 2**-25].
        alpha: in [0.1, 100].
    """
    shape = torch.full_like(p, alpha)
    low = torch.full_like(p, -300.0)
    high = torch.full_like(p, math.log(alpha + 10 * math.sqrt(alpha) + 60))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = torch.special.gammainc(shape, middle.exp()) < p
        low, high = middle.where(below, low), high.where(below, middle)
    return ((low + high) / 2).exp()
