"""A normal filter."""

from torch import Tensor

from rrl_dist.data.corruptions.filters import gaussian
from rrl_dist.data.corruptions.kind import Given, Kind


def _apply(x: Tensor, sigma: float, given: Given) -> Tensor:
    return gaussian(x, sigma)


KIND = Kind(  # standard deviation in pixels
    _apply,
    small=(0.4, 0.6, 0.7, 0.8, 1),
    large=(1, 2, 3, 4, 6),
    group="blur",
    role="validation",
    place=17,
)
