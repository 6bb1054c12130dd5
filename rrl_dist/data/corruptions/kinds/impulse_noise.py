"""Salt and pepper: a share of the values, half of it black and half of it white."""

import torch
from torch import Tensor

from rrl_dist.data.corruptions.kind import Given, Kind


def _apply(x: Tensor, amount: float, given: Given) -> Tensor:
    u = given.draw(x[0].numel()).view_as(x)
    return torch.where(u < amount, (u < amount / 2).logical_not().double(), x)


KIND = Kind(  # share of the values
    _apply,
    small=(0.01, 0.02, 0.03, 0.05, 0.07),
    large=(0.03, 0.06, 0.09, 0.17, 0.27),
    group="noise",
    role="test",
    place=3,
)
