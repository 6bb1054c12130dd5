"""Threat models: the images an attacker may choose from around a clean one.

Radii are in [0, 1] pixels. Every method works row by row: what a sample gets does not
depend on the rest of the batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import Key, normal, uniform


@dataclass(frozen=True)
class Ball(ABC):
    """All images within `eps` of a clean one, and inside [0, 1].

    Attributes:
        eps: radius in [0, 1] pixels, >= 0.
        norm: short name of the norm, such as "linf".

    Raises:
        UserError: if `eps` is negative or not finite.
    """

    eps: float
    norm: ClassVar[str]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise UserError(f"ball radius eps={self.eps}; set a number >= 0")

    def with_eps(self, eps: float) -> Self:
        """The ball of the same norm with another radius."""
        return replace(self, eps=eps)

    def label(self) -> str:
        """Short name with the radius to four digits, such as "linf@0.03137"."""
        return f"{self.norm}@{self.eps:.4g}"

    @abstractmethod
    def project(self, x: Tensor, center: Tensor) -> Tensor:
        """Nearest point of the ball, then the nearest in [0, 1].

        Args:
            x: [N, ...] finite images, anywhere.
            center: [N, ...] in [0, 1]. Since it is, the last clip only brings pixels
                nearer to it.

        Returns:
            [N, ...], no further than `eps` from `center` but for a few roundings of
            the distance itself; `center` to the last bit if `eps` is 0.
        """

    @abstractmethod
    def steepest(self, grad: Tensor) -> Tensor:
        """[N, ...] gradient -> the step of length 1 along which it rises most.

        Zero where the gradient is zero; NaN counts as zero. A gradient may be as
        small as float32 can tell: its size does not matter.
        """

    @abstractmethod
    def start(
        self, center: Tensor, *, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        """A uniform draw from the ball, clipped to [0, 1], one per sample.

        Args:
            center: [N, ...] in [0, 1].
            seed, key: what the draw is for.
            index: [N] int64, the samples; draws belong to them.
        """

    @abstractmethod
    def surface_start(
        self, center: Tensor, *, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        """As `start`, but scaled outwards to the surface before it is clipped."""

    @abstractmethod
    def distance(self, x: Tensor, center: Tensor) -> Tensor:
        """[N, ...], [N, ...] -> [N] distances in the ball's norm."""


class Linf(Ball):
    """No pixel changes by more than `eps`."""

    norm = "linf"

    def project(self, x: Tensor, center: Tensor) -> Tensor:
        radius = torch.full_like(center, self.eps)
        lower, upper = add_inward(center, -radius), add_inward(center, radius)
        return x.clamp(lower, upper).clamp(0, 1)

    def steepest(self, grad: Tensor) -> Tensor:
        return torch.nan_to_num(grad, nan=0.0).sign()

    def start(
        self, center: Tensor, *, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        shift = self._cube(center, seed, key, index)
        return self.project(center + self.eps * shift, center)

    def surface_start(
        self, center: Tensor, *, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        shift = self._cube(center, seed, key, index)
        return self.project(center + self.eps * _by_largest(shift), center)

    def distance(self, x: Tensor, center: Tensor) -> Tensor:
        return (x - center).abs().flatten(1).amax(1)

    def _cube(
        self, center: Tensor, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        pixels = math.prod(center.shape[1:])
        u = uniform(seed, *key, index=index, n=pixels)
        return (2 * u - 1).reshape(center.shape).to(center.dtype)


class L2(Ball):
    """The change of all pixels together has Euclidean length at most `eps`."""

    norm = "l2"

    def project(self, x: Tensor, center: Tensor) -> Tensor:
        if self.eps == 0:
            return center.clone()
        delta = x - center
        size = as_column(_length(delta), delta)
        tiny = torch.finfo(delta.dtype).tiny
        surface = add_inward(center, delta * (self.eps / size.clamp_min(tiny)))
        return torch.where(size <= self.eps, x, surface).clamp(0, 1)

    def steepest(self, grad: Tensor) -> Tensor:
        # Squares of gradients below 1e-19 would vanish, above 1e19 overflow.
        scaled = _by_largest(torch.nan_to_num(grad, nan=0.0))
        return scaled / as_column(_length(scaled).clamp_min(1), scaled)

    def start(
        self, center: Tensor, *, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        pixels = math.prod(center.shape[1:])
        u = uniform(seed, *key, "radius", index=index, n=1)[:, 0].to(center.dtype)
        radius = self.eps * u ** (1 / pixels)
        shift = self._direction(center, seed, key, index)
        return self.project(center + as_column(radius, center) * shift, center)

    def surface_start(
        self, center: Tensor, *, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        shift = self._direction(center, seed, key, index)
        return self.project(center + self.eps * shift, center)

    def distance(self, x: Tensor, center: Tensor) -> Tensor:
        return _length(x - center)

    def _direction(
        self, center: Tensor, seed: int, key: Sequence[Key], index: Tensor
    ) -> Tensor:
        pixels = math.prod(center.shape[1:])
        z = normal(seed, *key, "direction", index=index, n=pixels)
        return self.steepest(z.reshape(center.shape).to(center.dtype))


def as_column(rows: Tensor, like: Tensor) -> Tensor:
    """[N] -> [N, 1, ...] with as many dimensions as `like`."""
    return rows.reshape(-1, *[1] * (like.ndim - 1))


def _length(delta: Tensor) -> Tensor:
    """[N, ...] -> [N] Euclidean lengths; torch sums in a cascade, which is exact
    enough for images of any size."""
    return delta.flatten(1).square().sum(1).sqrt()


def _by_largest(delta: Tensor) -> Tensor:
    """Each row over its largest magnitude; a row of zeros stays."""
    largest = delta.abs().flatten(1).amax(1)
    tiny = torch.finfo(delta.dtype).tiny
    return delta / as_column(largest.clamp_min(tiny), delta)


def add_inward(center: Tensor, delta: Tensor) -> Tensor:
    """center + delta, rounded so that no element moves further than `delta` says.

    Rounding to nearest may leave a ball of radius 8/255 by a millionth of it, and all
    pixels of one colour by the same millionth.
    """
    moved = center + delta
    too_far = (moved - center).abs() > delta.abs()
    return torch.where(too_far, torch.nextafter(moved, center), moved)
