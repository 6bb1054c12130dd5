"""The mean over a disk whose edge is smoothed; images mirrored at the border."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from rrl_dist.data.corruptions.filters import normal_taps
from rrl_dist.data.corruptions.kind import Given, Kind


def _apply(x: Tensor, lens: tuple[float, float], given: Given) -> Tensor:
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
    taps = normal_taps(smoothing, 1 if radius <= 8 else 2)
    half = len(taps) // 2
    padded = F.pad(disk[None], [half] * 4, mode="reflect")[0]
    smooth = padded.unfold(0, len(taps), 1).unfold(1, len(taps), 1)
    kernel = torch.einsum("ijkl,k,l->ij", smooth, taps, taps)
    # Weights that no step of 1/255 could show.
    kernel = kernel.where(kernel > 1e-12, 0)
    reach = int(kernel.nonzero().sub(side).abs().max())
    return kernel[side - reach : side + reach + 1, side - reach : side + reach + 1]


KIND = Kind(  # radius and smoothing, in pixels
    _apply,
    small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    large=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    group="blur",
    role="test",
    place=4,
)
