"""Normal filters and normal draws."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rrl_dist.data.corruptions.kind import Draw


def normal_draws(draw: Draw, count: int) -> Tensor:
    """[N, count] standard normal, by Box and Muller's transform of two draws each."""
    radius, turn = draw(2 * count).chunk(2, dim=1)
    return torch.sqrt(-2 * torch.log(radius)) * torch.cos(2 * math.pi * turn)


def normal_taps(sigma: float, half: int) -> Tensor:
    """[2 half + 1] double, of sum 1; sigma in pixels."""
    place = torch.arange(-half, half + 1, dtype=torch.float64)
    weight = torch.exp(-0.5 * (place / sigma).square())
    return weight / weight.sum()


def gaussian(x: Tensor, sigma: float) -> Tensor:
    """[N, C, H, W]: a normal filter of sigma pixels, cut at four of them; the border's
    pixels are repeated."""
    half = int(4 * sigma + 0.5)
    if half == 0:
        return x
    taps = normal_taps(sigma, half).tolist()
    padded = F.pad(x, [half] * 4, mode="replicate")
    for dim in (3, 2):
        length = padded.shape[dim] - 2 * half
        y = torch.zeros_like(padded.narrow(dim, 0, length))
        for start, weight in enumerate(taps):
            y += weight * padded.narrow(dim, start, length)
        padded = y
    return padded


def wide_gaussian(x: Tensor, sigma: float) -> Tensor:
    """[N, H, W]: a normal filter cut at three sigma, which may be wider than the image;
    mirrored at the border, the border's pixels twice.

    One matrix for each direction: with hundreds of taps that is far less work.
    """
    if sigma == 0:
        return x
    down, across = (_mirrored(n, sigma).to(x.device) for n in x.shape[1:])
    return torch.stack([down @ one @ across.T for one in x])


def _mirrored(length: int, sigma: float) -> Tensor:
    """[length, length] double: what each place takes of each."""
    half = int(3 * sigma + 0.5)
    taps = normal_taps(sigma, half)
    rows = torch.arange(length)[:, None].expand(-1, 2 * half + 1)
    source = (rows + torch.arange(-half, half + 1)) % (2 * length)
    source = torch.minimum(source, 2 * length - 1 - source)
    matrix = torch.zeros(length, length, dtype=torch.float64)
    return matrix.index_put_((rows, source), taps.expand_as(rows), accumulate=True)
