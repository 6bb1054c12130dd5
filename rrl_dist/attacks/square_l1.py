"""Proposals of the Square Attack in L1 balls.

Croce and Hein 2021, arXiv:2103.01208, carry the attack over to L1; the details are from
their code (fra31/auto-attack). Moves are those of Euclidean balls, with sums of
magnitudes for lengths, and a projection onto the ball's intersection with [0, 1] ends
each.
"""

from dataclasses import dataclass

from torch import Tensor

from rrl_dist.attacks.bumps import Move, Profile, column, tiled
from rrl_dist.attacks.l1 import L1
from rrl_dist.attacks.windows import Draw, Sizes, odd_window_side

BUMPS = Profile(power=4, order=1)
_TINY = 1e-12  # the authors' code: keeps windows without a change from a division by 0


@dataclass(frozen=True)
class L1Proposals:
    """See `windows.Proposals`; its frame holds the clean image alone."""

    ball: L1

    def side(self, share: float, height: int, width: int) -> int:
        return odd_window_side(share, height, width)

    def frame(self, center: Tensor) -> Tensor:
        return center[:, None]

    def first(self, frame: Tensor, draw: Draw) -> Tensor:
        """Tiles, of which the projection leaves little more than the peaks."""
        center = frame[:, 0]
        delta = tiled(center.shape, draw, BUMPS)
        return self.ball.project(center + delta, center)

    def next(self, frame: Tensor, best: Tensor, sizes: Sizes, draw: Draw) -> Tensor:
        center = frame[:, 0]
        move = Move.drawn(best.shape, sizes, draw, BUMPS)
        return self.ball.project(center + self._moved(best - center, move), center)

    def _moved(self, delta: Tensor, move: Move) -> Tensor:
        """The change with the length of both windows, and with what it lacks of eps, in
        the window `to`, where its old shape and the pattern count alike."""
        either, size, channels = move.to | move.source, delta.abs(), delta.shape[1]
        lacks = (self.ball.eps - _per_channel(size).sum(1, keepdim=True)).clamp_min(0)
        room = lacks / channels + _per_channel(size * either)
        old = _per_channel(size * move.to)
        shape = delta * move.to / column(old + _TINY) + move.pattern
        # As in the authors' code each channel gets what would do for all; the
        # projection then takes the same off every pixel, so that faint ones vanish.
        room = room * channels / (_per_channel(shape.abs()) + _TINY)
        return delta * ~either + shape * column(room)


def _per_channel(size: Tensor) -> Tensor:
    """[M, C, H, W] -> [M, C] sums."""
    return size.flatten(2).sum(2)
