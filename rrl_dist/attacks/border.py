"""Where an attack by decisions stands with each of its samples.

What it does next is one of a few acts, each of which asks about one image at a time, so
that samples in any act share calls of the model.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rrl_dist.attacks.balls import as_column
from rrl_dist.attacks.tangent_point import largest_radius, tangent_point
from rrl_dist.attacks.trials import Samples

# Acts: look for a first wrong image; halve the way from one to the clean image; try a
# random direction at the boundary; try a tangent point; ask about what is given back.
START, HALVE, PROBE, TOUCH, LAST = range(5)


class Border(NamedTuple):
    """All tensors have M rows; distances are Euclidean, in [0, 1] pixels.

    Attributes:
        y, ids: label and sample.
        center: [M, ...] the clean image.
        visit: [M, ...] the image that is asked about next.
        act: [M] int64, why it is.
        nearest: [M, ...] the nearest wrong image so far; the clean one before there is
            any.
        distance: [M] its distance; inf before there is any.
        far: [M, ...] wrong image at the end of the way that is halved.
        low, high: [M] shares of that way with a right and with a wrong image.
        point: [M, ...] wrong image at the boundary.
        up, drift: [M, ...] sums over directions tried at `point`: with the sign of
            their answers, and without.
        signs: [M] sum of these signs, 1 for wrong and -1 for right.
        made: [M] int64, how many directions.
        normal: [M, ...] unit length, towards wrong images.
        radius: [M] of the ball whose tangent point is tried.
        turn: [M] int64, how many points of the boundary have been found.
        best, score, wrong, done, queries: see `trials.State`; `wrong` is not told
            before a sample is done.
    """

    y: Tensor
    ids: Tensor
    center: Tensor
    visit: Tensor
    act: Tensor
    nearest: Tensor
    distance: Tensor
    far: Tensor
    low: Tensor
    high: Tensor
    point: Tensor
    up: Tensor
    drift: Tensor
    signs: Tensor
    made: Tensor
    normal: Tensor
    radius: Tensor
    turn: Tensor
    best: Tensor
    score: Tensor
    wrong: Tensor
    done: Tensor
    queries: Tensor

    @classmethod
    def begin(cls, samples: Samples, visit: Tensor) -> "Border":
        """Before the first image, `visit`, is asked about."""
        x, zero = samples.x, torch.zeros_like(samples.y)
        no, real = zero.bool(), zero.to(x.dtype)
        return cls(
            y=samples.y,
            ids=samples.ids,
            center=x,
            visit=visit,
            act=zero + START,
            nearest=x,
            distance=real + torch.inf,
            far=x,
            low=real,
            high=real + 1,
            point=x,
            up=torch.zeros_like(x),
            drift=torch.zeros_like(x),
            signs=real,
            made=zero,
            normal=torch.zeros_like(x),
            radius=real,
            turn=zero,
            best=x,
            score=real - torch.inf,
            wrong=no,
            done=no,
            queries=zero,
        )

    def set(self, rows: Tensor, **columns: Tensor) -> "Border":
        """With other values where `rows` [M] bool says so."""
        kept = {
            name: torch.where(as_column(rows, new), new, getattr(self, name))
            for name, new in columns.items()
        }
        return self._replace(**kept)

    def doing(self, act: int) -> Tensor:
        """[M] bool."""
        return (self.act == act) & ~self.done

    def keep_nearest(self, wrong: Tensor) -> "Border":
        """After the answer to `visit`."""
        distance = length(self.visit - self.center)
        nearer = wrong & (distance < self.distance) & ~self.done
        return self.set(nearer, nearest=self.visit, distance=distance)

    def halve(self, rows: Tensor, far: Tensor) -> "Border":
        """Begin to, from `far` [M, ...]."""
        whole = torch.ones_like(self.high)
        act = torch.full_like(self.act, HALVE)
        return self.set(rows, far=far, low=0 * whole, high=whole, act=act)

    def between(self, share: Tensor) -> Tensor:
        """[M, ...] so far on the way from the clean image to `far`."""
        way = self.center + as_column(share, self.far) * (self.far - self.center)
        return way.clamp(0, 1)

    def probe(self, rows: Tensor, point: Tensor) -> "Border":
        """Begin to, at `point` [M, ...]."""
        none = torch.zeros_like(point)
        return self.set(
            rows,
            point=point,
            up=none,
            drift=none,
            signs=torch.zeros_like(self.signs),
            made=torch.zeros_like(self.made),
            turn=self.turn + 1,
            act=torch.full_like(self.act, PROBE),
        )

    def count_direction(self, rows: Tensor, wrong: Tensor, size: Tensor) -> "Border":
        """Add what the answer to `visit`, `size` [M] away, says about the normal."""
        # As it was after it had been clipped.
        direction = (self.visit - self.point) / as_column(size, self.visit)
        sign = torch.where(wrong, 1.0, -1.0).to(self.signs.dtype)
        return self.set(
            rows,
            up=self.up + as_column(sign, direction) * direction,
            drift=self.drift + direction,
            signs=self.signs + sign,
            made=self.made + 1,
        )

    def estimate(self) -> Tensor:
        """[M, ...] unit normals from the directions so far.

        Chen, Jordan, Wainwright 2020, arXiv:1904.02144, eq. 16: the mean answer is
        taken off, unless all are alike.
        """
        mean = self.signs / self.made.clamp_min(1)
        mean = torch.where(mean.abs() == 1, 0, mean)
        found = self.up - as_column(mean, self.drift) * self.drift
        size = length(found).clamp_min(torch.finfo(found.dtype).tiny)
        return found / as_column(size, found)

    def touch(self, rows: Tensor) -> "Border":
        """Begin to, from the directions so far."""
        normal = self.estimate()
        center, point = self.center.flatten(1), self.point.flatten(1)
        most = largest_radius(center, point, normal.flatten(1))
        paper = length(self.point - self.center) / self.turn.clamp_min(1).sqrt()
        return self.set(
            rows,
            normal=normal,
            radius=torch.minimum(most, paper),
            act=torch.full_like(self.act, TOUCH),
        )

    def tangent(self) -> Tensor:
        """[M, ...] tangent points, as images."""
        center, point, normal = (
            column.flatten(1) for column in (self.center, self.point, self.normal)
        )
        found = tangent_point(center, point, normal, self.radius)
        return found.reshape(self.center.shape).clamp(0, 1)


def length(delta: Tensor) -> Tensor:
    """[M, ...] -> [M] Euclidean."""
    return delta.flatten(1).square().sum(1).sqrt()
