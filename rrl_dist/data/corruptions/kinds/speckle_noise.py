"""Normal noise in proportion to the light."""

from torch import Tensor

from rrl_dist.data.corruptions.filters import normal_draws
from rrl_dist.data.corruptions.kind import Given, Kind


def _apply(x: Tensor, std: float, given: Given) -> Tensor:
    return x + x * std * normal_draws(given.draw, x[0].numel()).view_as(x)


KIND = Kind(  # standard deviation at white
    _apply,
    small=(0.06, 0.1, 0.12, 0.16, 0.2),
    large=(0.15, 0.2, 0.35, 0.45, 0.6),
    group="noise",
    role="validation",
    place=16,
)
