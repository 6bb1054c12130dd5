"""Normal noise."""

from torch import Tensor

from rrl_dist.data.corruptions.filters import normal_draws
from rrl_dist.data.corruptions.kind import Given, Kind


def _apply(x: Tensor, std: float, given: Given) -> Tensor:
    return x + std * normal_draws(given.draw, x[0].numel()).view_as(x)


KIND = Kind(  # standard deviation
    _apply,
    small=(0.04, 0.06, 0.08, 0.09, 0.10),
    large=(0.08, 0.12, 0.18, 0.26, 0.38),
    group="noise",
    role="test",
    place=1,
)
