"""Common corruptions of test images, at five severities.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations, ICLR 2019, arXiv:1903.12261. Kinds and constants are those of the
authors' generators, github.com/hendrycks/robustness: make_cifar_c.py for images of up
to `SMALL` pixels, corruptions.py of ImageNet-C for larger ones. `gaussian_blur` is one
of their four kinds for validation, the others are of their fifteen for testing.

Not pixel for pixel the published sets, which were drawn without a seed. Three more
differences: noise belongs to samples and not to a place in a stream, results are
rounded to 8 bits where the generators cut the fraction off (half a step darker on
average), and no JPEG is written and read again, as it was for ImageNet-C.

A further kind is one function and one entry of `_KINDS`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import uniform

SEVERITIES = (1, 2, 3, 4, 5)
SMALL = 64  # pixels of the shorter side up to which the constants of CIFAR-10-C hold

# [N, n] double draws in (0, 1) that belong to the samples.
_Draw = Callable[[int], Tensor]


@dataclass(frozen=True)
class _Kind:
    """A corruption.

    Attributes:
        apply: x [N, 3, H, W] double, multiples of 1/255 in [0, 1]; the constant of a
            severity; draws -> [N, 3, H, W] double, which may leave [0, 1].
        small, large: the constants of severities 1 to 5, by the images' size.
    """

    apply: Callable[[Tensor, Any, _Draw], Tensor]
    small: tuple[Any, ...]
    large: tuple[Any, ...]


def corrupt(x: Tensor, name: str, severity: int, *, seed: int, index: Tensor) -> Tensor:
    """Images as they would come from an 8-bit file of a corrupted test set.

    A sample's result is a function of (image, name, severity, seed, its index): not of
    the batch it is in nor of its place there. No operation sums over the batch, and all
    is done in double precision: the last bits of a logarithm or a cosine, which may
    depend on an element's place in memory, are far below a step of 1/255.

    Args:
        x: [N, 3, H, W] float in [0, 1]; brought to multiples of 1/255 first, as the
            published sets are made from 8-bit images.
        name: one of `corruption_names()`.
        severity: 1 (mild) to 5.
        seed: of the draws, with the name and the severity.
        index: [N] int64, the samples; draws belong to them.

    Returns:
        [N, 3, H, W] of x's type, multiples of 1/255 in [0, 1].

    Raises:
        UserError: there is no such corruption or severity.
    """
    check_corruption(name, severity)
    kind = _KINDS[name]
    constants = kind.small if min(x.shape[2:]) <= SMALL else kind.large

    def draw(n: int) -> Tensor:
        u = uniform(seed, "corruption", name, severity, index=index, n=n)
        # Multiples of 2**-24 moved by half a step: 0 would be an infinite quantile.
        return u.double() + 2.0**-25

    y = kind.apply(_levels(x).double() / 255, constants[severity - 1], draw)
    # The last division in x's type gives what a loader of 8-bit files gives.
    return y.clamp(0, 1).mul(255).round().to(x.dtype) / 255


def corruption_names() -> tuple[str, ...]:
    """The corruptions there are, in the order of the authors' tables."""
    return tuple(_KINDS)


def check_corruption(name: str, severity: int) -> None:
    """Raises `UserError` for a corruption or a severity that there is not."""
    if name not in _KINDS:
        known = "|".join(_KINDS)
        raise UserError(f"there is no corruption {name!r}; choose {known}")
    if severity not in SEVERITIES:
        raise UserError(
            f"corruption {name} has severities {SEVERITIES[0]} to {SEVERITIES[-1]}, "
            f"not {severity}; choose one of them"
        )


def _levels(x: Tensor) -> Tensor:
    """[...] in [0, 1] -> [...] int64, 0 to 255."""
    return x.double().clamp(0, 1).mul(255).round().long()


def _gaussian_noise(x: Tensor, std: float, draw: _Draw) -> Tensor:
    """Normal noise by Box and Muller's transform of two draws for each value."""
    u = draw(2 * x[0].numel())
    radius, turn = u.chunk(2, dim=1)
    z = torch.sqrt(-2 * torch.log(radius)) * torch.cos(2 * math.pi * turn)
    return x + std * z.view_as(x)


def _shot_noise(x: Tensor, rate: int, draw: _Draw) -> Tensor:
    """Poisson counts with mean `rate` * x, over `rate`; by inversion: a count is the
    smallest whose distribution function is above the draw."""
    steps = _poisson_steps(rate).to(x.device)  # [256, K]
    level = _levels(x)
    # Each level's steps lie one above the level before: one sorted row for all.
    offset = torch.arange(256, dtype=steps.dtype, device=x.device)[:, None]
    row = (steps + offset).flatten()
    found = torch.searchsorted(row, level + draw(x[0].numel()).view_as(x), right=True)
    return (found - level * steps.shape[1]).double() / rate


@cache
def _poisson_steps(rate: int) -> Tensor:
    """[256, K] double: P(count <= k) of Poisson counts with mean rate * level / 255.

    K is ten standard deviations above the largest mean, and ten more counts: far more
    than the largest draw can ask for.
    """
    mean = torch.arange(256, dtype=torch.float64)[:, None] * (rate / 255)  # [256, 1]
    count = torch.arange(rate + 10 * math.isqrt(rate) + 10, dtype=torch.float64)
    # xlogy: 0 log 0 is 0, for black.
    log_p: Tensor = torch.special.xlogy(count, mean) - mean - torch.lgamma(count + 1)
    return log_p.exp().cumsum(1).clamp_max(1)


def _impulse_noise(x: Tensor, amount: float, draw: _Draw) -> Tensor:
    """A share `amount` of the values, half of it black and half of it white."""
    u = draw(x[0].numel()).view_as(x)
    return torch.where(u < amount, (u < amount / 2).logical_not().double(), x)


def _defocus_blur(x: Tensor, lens: tuple[float, float], draw: _Draw) -> Tensor:
    """The mean over a disk whose edge is smoothed; images mirrored at the border."""
    kernel = _disk(*lens)
    half = kernel.shape[0] // 2
    padded = F.pad(x, [half] * 4, mode="reflect")
    height, width = x.shape[2:]
    y = torch.zeros_like(x)
    for row, column in kernel.nonzero().tolist():
        part = padded[:, :, row : row + height, column : column + width]
        y += float(kernel[row, column]) * part
    return y


@cache
def _disk(radius: float, smoothing: float) -> Tensor:
    """[K, K] double: a disk of weight 1, blurred by a normal of standard deviation
    `smoothing` over 3 x 3 pixels (5 x 5 for radii above 8), and cut to where it is not
    0. The blur mirrors the window's edge, which a radius of 8 touches, as OpenCV does.
    """
    side = max(8, int(radius))
    place = torch.arange(-side, side + 1, dtype=torch.float64)
    inside = place[:, None].square() + place.square() <= radius**2
    disk = inside.double() / inside.sum()
    taps = _normal_taps(smoothing, 1 if radius <= 8 else 2)
    half = len(taps) // 2
    padded = F.pad(disk[None], [half] * 4, mode="reflect")[0]
    smooth = padded.unfold(0, len(taps), 1).unfold(1, len(taps), 1)
    kernel = torch.einsum("ijkl,k,l->ij", smooth, taps, taps)
    # Weights that no step of 1/255 could show.
    kernel = kernel.where(kernel > 1e-12, 0)
    reach = int(kernel.nonzero().sub(side).abs().max())
    return kernel[side - reach : side + reach + 1, side - reach : side + reach + 1]


def _gaussian_blur(x: Tensor, sigma: float, draw: _Draw) -> Tensor:
    """A normal filter cut at four standard deviations; the border's pixels repeated."""
    half = int(4 * sigma + 0.5)
    taps = _normal_taps(sigma, half).tolist()
    padded = F.pad(x, [half] * 4, mode="replicate")
    for dim in (3, 2):
        length = padded.shape[dim] - 2 * half
        y = torch.zeros_like(padded.narrow(dim, 0, length))
        for start, weight in enumerate(taps):
            y += weight * padded.narrow(dim, start, length)
        padded = y
    return padded


def _normal_taps(sigma: float, half: int) -> Tensor:
    """[2 half + 1] double, of sum 1."""
    place = torch.arange(-half, half + 1, dtype=torch.float64)
    weight = torch.exp(-0.5 * (place / sigma).square())
    return weight / weight.sum()


def _contrast(x: Tensor, share: float, draw: _Draw) -> Tensor:
    """Each channel's distance from its mean over the image, times `share`."""
    # Sums of integers are exact, so no order of summing changes them.
    total = _levels(x).sum(dim=(2, 3), keepdim=True)
    mean = total.double() / (255 * x.shape[2] * x.shape[3])
    return (x - mean) * share + mean


_KINDS = {
    "gaussian_noise": _Kind(  # standard deviation
        _gaussian_noise,
        small=(0.04, 0.06, 0.08, 0.09, 0.10),
        large=(0.08, 0.12, 0.18, 0.26, 0.38),
    ),
    "shot_noise": _Kind(  # counts of a white pixel
        _shot_noise, small=(500, 250, 100, 75, 50), large=(60, 25, 12, 5, 3)
    ),
    "impulse_noise": _Kind(  # share of the values
        _impulse_noise,
        small=(0.01, 0.02, 0.03, 0.05, 0.07),
        large=(0.03, 0.06, 0.09, 0.17, 0.27),
    ),
    "defocus_blur": _Kind(  # radius and smoothing, in pixels
        _defocus_blur,
        small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        large=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    "contrast": _Kind(  # share that is left
        _contrast,
        small=(0.75, 0.5, 0.4, 0.3, 0.15),
        large=(0.4, 0.3, 0.2, 0.1, 0.05),
    ),
    "gaussian_blur": _Kind(  # standard deviation in pixels
        _gaussian_blur, small=(0.4, 0.6, 0.7, 0.8, 1), large=(1, 2, 3, 4, 6)
    ),
}
