"""Proposals of the Square Attack in Euclidean balls.

Andriushchenko et al. 2020, arXiv:1912.00049, Algorithm 3. The length that a change has
in one window is moved into another, where it takes the shape of a pattern with two
opposite bumps.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from rrl_dist.attacks.balls import L2, as_column
from rrl_dist.attacks.bumps import Move, Profile, column, tiled
from rrl_dist.attacks.windows import Draw, Sizes, odd_window_side

BUMPS = Profile(power=2, order=2)  # section 3.4
_TINY = 1e-12  # the authors' code: keeps windows without a change from a division by 0
_HALF_ULP = 2.0**-25  # how far rounding moves a pixel in [0, 1], in float32
_SUMS = 2e-6  # how much of a length its sum's rounding may lose


@dataclass(frozen=True)
class L2Proposals:
    """See `windows.Proposals`; its frame holds the clean image alone."""

    ball: L2

    def side(self, share: float, height: int, width: int) -> int:
        return odd_window_side(share, height, width)

    def frame(self, center: Tensor) -> Tensor:
        return center[:, None]

    def first(self, frame: Tensor, draw: Draw) -> Tensor:
        center = frame[:, 0]
        delta = tiled(center.shape, draw, BUMPS)
        length = _per_channel(delta.square()).sum(1).sqrt()
        scale = as_column(self.ball.eps / length, delta)
        return self.ball.project(center + delta * scale, center)

    def next(self, frame: Tensor, best: Tensor, sizes: Sizes, draw: Draw) -> Tensor:
        center = frame[:, 0]
        move = Move.drawn(best.shape, sizes, draw, BUMPS)
        return (center + self._moved(best - center, move)).clamp(0, 1)

    def _moved(self, delta: Tensor, move: Move) -> Tensor:
        """The change with the length of both windows, and with what it lacks of eps, in
        the window `to`, where its old shape and the pattern count alike."""
        # As numbers: a product with a truth value would be converted each time.
        into, either = (
            inside.to(delta.dtype) for inside in (move.to, move.to | move.source)
        )
        squares, reach = delta.square(), self._reach(delta)
        whole = _per_channel(squares).sum(1, keepdim=True)
        both = _per_channel(squares * either)
        old = _per_channel(squares * into).sqrt()
        shape = delta * into / column(old + _TINY) + move.pattern
        length = _per_channel(shape.square()).sqrt()
        lacks = (reach**2 - whole).clamp_min(0)
        room = (both + lacks / delta.shape[1]).sqrt()
        # Below 1 where roundings have taken the change out of reach.
        scale = (reach / (whole.sqrt() + _TINY)).clamp_max(1)
        kept = delta * ((1 - either) * column(scale))
        return kept + shape * column(scale * room / (length + _TINY))

    def _reach(self, delta: Tensor) -> float:
        """eps, less what the rounding of changed pixels can add to a length; cheaper
        than a projection at each step."""
        pixels = math.prod(delta.shape[1:])
        return max(self.ball.eps * (1 - _SUMS) - _HALF_ULP * math.sqrt(pixels), 0)


def _per_channel(image: Tensor) -> Tensor:
    """[M, C, H, W] -> [M, C] sums."""
    return image.flatten(2).sum(2)
