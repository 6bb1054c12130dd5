"""The point of a hyperplane inside [0, 1]^d that is nearest in a norm, exactly.

The problem is that of Croce and Hein 2020, arXiv:1907.02044. From x each element moves
to the side that its element of the normal w asks for, by at most its room to 0 or 1. It
brings its weight |w_i| times its path, and together they have to close the gap
|<w, x> + b|. In Linf all elements move alike, in L2 in proportion to their weight, each
until its room is used up; in L1 they use up their rooms one after another, the heaviest
first. So what is closed grows piece by piece linearly, and the piece in which the gap
ends is looked for: by Newton's method, in L1 by bisection.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# A hyperplane's distance is |<w, x> + b| over the dual norm of w.
DUAL_ORDER = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}


class Hyperplane(NamedTuple):
    """{z : <w, z - at> + value = 0}, one for each row.

    Attributes:
        at: [M, d] points in [0, 1].
        w: [M, d] normals, finite; their largest magnitude is 1, or all are 0.
        value: [M] of the linear function at `at`; it may be infinite.
    """

    at: Tensor
    w: Tensor
    value: Tensor

    @classmethod
    def of(cls, at: Tensor, w: Tensor, value: Tensor) -> "Hyperplane":
        """From a normal of any size: squares of gradients below 1e-19 would vanish,
        above 1e19 overflow. NaN counts as zero in a normal, as -inf in a value."""
        w, value = torch.nan_to_num(w, nan=0.0), torch.nan_to_num(value, nan=-torch.inf)
        largest = w.abs().amax(1).clamp_min(torch.finfo(w.dtype).tiny)
        return cls(at, w / largest[:, None], value / largest)

    def distance(self, norm: str) -> Tensor:
        """[M] distances of `at`, as if there were no box; inf where w is zero."""
        size = torch.linalg.vector_norm(self.w, DUAL_ORDER[norm], dim=1)
        return torch.where(size > 0, self.value.abs() / size, torch.inf)

    def shift(self, x: Tensor, norm: str) -> Tensor:
        """The way from x [M, d] in [0, 1] to the nearest point that is in both.

        Returns:
            [M, d]; x plus it is in [0, 1] but for a rounding. Where the hyperplane
            misses the box it leads to the point that comes nearest in value, and it is
            zero where w is.
        """
        value = self.value + (self.w * (x - self.at)).sum(1)
        forward = -value.sign()[:, None] * self.w.sign()
        # None where an element cannot help.
        room = torch.where(forward > 0, 1 - x, x) * forward.abs()
        return forward * _PATHS[norm](self.w.abs(), room, value.abs())


def _linf_path(weight: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """[M, d] >= 0, [M, d] >= 0, [M] >= 0 -> [M, d], how far each element moves."""
    return _together(weight, room, gap, torch.ones_like(weight))


def _l2_path(weight: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """As `_linf_path`."""
    return _together(weight, room, gap, weight)


def _together(weight: Tensor, room: Tensor, gap: Tensor, pace: Tensor) -> Tensor:
    """min(t * pace, room), with the time t at which the gap is closed.

    What is closed by a time is concave, so Newton's steps from 0 come nearer from
    below, and end where the gap does: then one more changes nothing.
    """
    tiny = torch.finfo(weight.dtype).tiny
    stop = room / pace.clamp_min(tiny)  # the time at which the room is used up
    whole, speed = weight * room, weight * pace
    time = torch.zeros_like(gap)[:, None]
    # Beyond the last stop lies only a gap that cannot be closed.
    last = stop.amax(1, keepdim=True)
    for _ in range(weight.shape[1]):
        used = stop <= time
        rest = gap - torch.where(used, whole, 0).sum(1)
        left = torch.where(used, 0, speed).sum(1).clamp_min(tiny)
        later = torch.minimum((rest / left)[:, None], last)
        if not bool((later > time).any()):
            break
        # Rounding must not lead back.
        time = torch.maximum(time, later)
    return torch.minimum(time * pace, room)


def _l1_path(weight: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """As `_linf_path`."""
    # Stable: equal weights keep the order of pixels on any device.
    weight, order = weight.sort(dim=1, descending=True, stable=True)
    room = room.gather(1, order)
    whole = weight * room
    rank = torch.arange(weight.shape[1], device=weight.device)

    def closed(place: Tensor) -> Tensor:
        return torch.where(rank <= place[:, None], whole, 0).sum(1) >= gap

    last = _first(closed, weight)[:, None]
    rest = gap - torch.where(rank < last, whole, 0).sum(1)
    tiny = torch.finfo(weight.dtype).tiny
    part = rest.clamp_min(0)[:, None] / weight.clamp_min(tiny)
    path = torch.where(rank < last, room, torch.minimum(part, room))
    path = torch.where(rank > last, 0, path)
    return torch.zeros_like(path).scatter(1, order, path)


_PATHS = {"linf": _linf_path, "l2": _l2_path, "l1": _l1_path}


def _first(holds: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """[M] int64, per row the first place of `like` [M, d] at which `holds`; the last
    place if there is none. What holds at a place holds at all later ones."""
    low = torch.zeros(len(like), dtype=torch.int64, device=like.device)
    high = low + like.shape[1] - 1
    for _ in range((like.shape[1] - 1).bit_length()):
        middle = (low + high) // 2
        found = holds(middle)
        low, high = (
            torch.where(found, low, middle + 1),
            torch.where(found, middle, high),
        )
    return high
