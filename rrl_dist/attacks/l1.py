"""The L1 ball: the changes of all pixels add up to at most `eps`.

The feasible set is the ball's intersection with [0, 1], as in Croce and Hein 2021,
arXiv:2103.01208, and the projection onto it is exact: clipping the ball's own nearest
point would give up room that other pixels could use.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rrl_dist.attacks.balls import Ball, add_inward, as_column
from rrl_dist.core.randomness import Key, uniform

HALVINGS = 60  # of the search for a threshold: beyond float64's resolution


class L1(Ball):
    """The changes of all pixels together add up to at most `eps`."""

    norm = "l1"

    def project(self, x: Tensor, center: Tensor) -> Tensor:
        """Nearest point of the intersection of ball and [0, 1]; see `Ball.project`.

        With d = x - center and r the room of a pixel in the direction of its d, it is
        center + sign(d) min(max(|d| - t, 0), r), with the least t >= 0 for which that
        is in the ball.
        """
        if self.eps == 0:
            return center.clone()
        delta = (x - center).double()
        size, room = delta.abs(), torch.where(delta > 0, 1 - center.double(), center)
        size, room = size.flatten(1), room.double().flatten(1)
        low = torch.zeros(len(x), 1, dtype=torch.float64, device=x.device)
        high = size.amax(1, keepdim=True)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            outside = _kept(size, room, middle).sum(1, keepdim=True) > self.eps
            low = torch.where(outside, middle, low)
            high = torch.where(outside, high, middle)
        inside = _kept(size, room, low).sum(1, keepdim=True) <= self.eps
        threshold = torch.where(inside, low, high)
        moved = _kept(size, room, threshold).reshape(delta.shape) * delta.sign()
        # Each pixel towards the center: all at once might each gain half a rounding.
        return add_inward(center, moved.to(x.dtype)).clamp(0, 1)

    def steepest(self, grad: Tensor) -> Tensor:
        """One pixel, that of the largest gradient; of equal ones the first."""
        flat = torch.nan_to_num(grad, nan=0.0).flatten(1)
        place = flat.abs().argmax(1, keepdim=True)
        step = torch.zeros_like(flat)
        step.scatter_(1, place, flat.gather(1, place).sign())
        return step.reshape(grad.shape)

    def start(
        self, center: Tensor, *, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        pixels = math.prod(center.shape[1:])
        u = uniform(seed, *key, "radius", index=index, n=1)[:, 0].to(center.dtype)
        radius = self.eps * u ** (1 / pixels)
        shift = self._surface(center, seed, key, index)
        return self.project(center + as_column(radius, center) * shift, center)

    def surface_start(
        self, center: Tensor, *, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        shift = self._surface(center, seed, key, index)
        return self.project(center + self.eps * shift, center)

    def distance(self, x: Tensor, center: Tensor) -> Tensor:
        return (x - center).flatten(1).abs().sum(1)

    def _surface(
        self, center: Tensor, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        """Uniform on the surface of the unit ball: exponential sizes over their sum,
        with signs."""
        pixels = math.prod(center.shape[1:])
        u = uniform(seed, *key, "size", index=index, n=pixels).double()
        signs = uniform(seed, *key, "sign", index=index, n=pixels) < 0.5
        size = -torch.log1p(-u)
        size = size / size.sum(1, keepdim=True)
        return torch.where(signs, -size, size).reshape(center.shape).to(center.dtype)


def _kept(size: Tensor, room: Tensor, threshold: Tensor) -> Tensor:
    """How far each pixel moves: [N, D], [N, D], [N, 1] -> [N, D]."""
    return torch.minimum((size - threshold).clamp_min(0), room)
