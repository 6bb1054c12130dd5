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

# Rounds of the search for a threshold: every third one halves what is left, so that
# float64 has no more to give after so many. Most rows are done after ten.
ROUNDS = 180
CLOSE = 1e-12  # share of the radius that a row may lack when its search ends


class L1(Ball):
    """The changes of all pixels together add up to at most `eps`."""

    norm = "l1"

    def project(self, x: Tensor, center: Tensor) -> Tensor:
        """Nearest point of the intersection of ball and [0, 1]; see `Ball.project`."""
        radius = torch.full(x.shape[:1], self.eps, device=x.device)
        return project(x, center, radius.double())

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


def project(x: Tensor, center: Tensor, radius: Tensor) -> Tensor:
    """Nearest point of the intersection of [0, 1] and each row's own ball.

    With d = x - center and r the room of a pixel in the direction of its d, it is
    center + sign(d) min(max(|d| - t, 0), r), with the least t >= 0 for which that is in
    the ball.

    Args:
        x: [N, ...] finite images, anywhere.
        center: [N, ...] in [0, 1].
        radius: [N] float64, >= 0.

    Returns:
        [N, ...]; `center` to the last bit where the radius is 0.
    """
    delta = (x - center).double()
    own = center.double()
    size, room = delta.abs(), torch.where(delta > 0, 1 - own, own)
    size, room = size.flatten(1), room.flatten(1)
    threshold = _threshold(size, room, radius[:, None])
    moved = _kept(size, room, threshold).reshape(delta.shape) * delta.sign()
    # Each pixel towards the center: all at once might each gain half a rounding.
    return add_inward(center, moved.to(x.dtype)).clamp(0, 1)


def _threshold(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """[N, 1]: what is taken from every pixel's move.

    The sum of moves falls with it along straight pieces, so a Newton step ends at the
    zero once it is on the right piece; before that it may leave the bracket, and half
    of the bracket is taken instead.
    """
    low = torch.zeros_like(radius)
    high = size.amax(1, keepdim=True)
    here = low
    for number in range(ROUNDS):
        kept = _kept(size, room, here)
        over = kept.sum(1, keepdim=True) - radius
        pieces = ((kept > 0) & (kept < room)).sum(1, keepdim=True)
        low = torch.where(over > 0, here, low)
        high = torch.where(over > 0, high, here)
        # A row that is done stays as it is, whatever others still need.
        done = (low >= high) | ((over <= 0) & (over >= -CLOSE * radius))
        if bool(done.all()):
            break
        # A little inside: the zero itself may be rounded to the far side.
        newton = here + (over + CLOSE / 2 * radius) / pieces.clamp_min(1)
        outside = (newton <= low) | (newton >= high) | (number % 3 == 2)
        here = torch.where(outside, (low + high) / 2, newton)
        here = torch.where(done, high, here)
    return high


def _kept(size: Tensor, room: Tensor, threshold: Tensor) -> Tensor:
    """How far each pixel moves: [N, D], [N, D], [N, 1] -> [N, D]."""
    return torch.minimum((size - threshold).clamp_min(0), room)
