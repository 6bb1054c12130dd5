"""Fewer pixels, shown as large ones, as Pillow's box filter makes them."""

import torch
from torch import Tensor

from rrl_dist.data.corruptions.kind import Given, Kind, levels


def _apply(x: Tensor, share: float, given: Given) -> Tensor:
    height, width = x.shape[2:]
    few = max(1, int(height * share)), max(1, int(width * share))
    y = levels(x)
    for wide in (few, (height, width)):
        y = _resized(_resized(y, wide[1], 3), wide[0], 2)
    return y.double() / 255


def _resized(x: Tensor, count: int, dim: int) -> Tensor:
    """Whole numbers: means over the pixels whose middle lies in each new one, halves
    rounded up."""
    length = x.shape[dim]
    ratio = length / count
    reach = max(ratio, 1) / 2
    parts = []
    for place in range(count):
        middle = (place + 0.5) * ratio
        first = max(0, int(middle - reach + 0.5))
        last = min(length, int(middle + reach + 0.5))
        total = x.narrow(dim, first, last - first).sum(dim)
        parts.append((2 * total + last - first) // (2 * (last - first)))
    return torch.stack(parts, dim)


KIND = Kind(  # share of the pixels of a side
    _apply,
    small=(0.95, 0.9, 0.85, 0.75, 0.65),
    large=(0.6, 0.5, 0.4, 0.3, 0.25),
    group="digital",
    role="test",
    place=14,
)
