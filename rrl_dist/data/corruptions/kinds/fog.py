"""Fog banks: a plasma fractal, and less contrast."""

from torch import Tensor

from rrl_dist.data.corruptions.kind import Given, Kind
from rrl_dist.data.corruptions.plasma import plasma, side_of


def _apply(x: Tensor, fog: tuple[float, float], given: Given) -> Tensor:
    thickness, decay = fog
    height, width = x.shape[2:]
    size = max(height, width)
    draws = given.draw(side_of(size) ** 2 - 1)
    banks = plasma(draws, size, decay=decay)[:, None, :height, :width]
    brightest = x.amax((1, 2, 3), keepdim=True)
    return (x + thickness * banks) * brightest / (brightest + thickness)


KIND = Kind(  # thickness, and decay of the landscape
    _apply,
    small=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    large=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    group="weather",
    role="test",
    place=10,
)
