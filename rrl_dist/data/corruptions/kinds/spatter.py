"""Drops of water or of mud on the lens."""

from torch import Tensor

from rrl_dist.data.corruptions.filters import gaussian, normal_draws
from rrl_dist.data.corruptions.kind import Given, Kind
from rrl_dist.data.corruptions.water import shaded

_WATER = (175 / 255, 238 / 255, 238 / 255)  # pale turquoise
_MUD = (63 / 255, 42 / 255, 20 / 255)


def _apply(x: Tensor, spatter: tuple[float, ...], given: Given) -> Tensor:
    mean, std, sigma, least, strength, mud = spatter
    height, width = x.shape[2:]
    noise = normal_draws(given.draw, height * width).view(-1, 1, height, width)
    liquid = gaussian(mean + std * noise, sigma)
    liquid = liquid.where(liquid >= least, 0)
    if mud:
        cover = gaussian((liquid > least).double(), strength)
        cover = cover.where(cover >= 0.8, 0)
        return x * (1 - cover) + cover * x.new_tensor(_MUD)[:, None, None]
    drops = (liquid[:, 0] * 255).clamp(0, 255).long()  # cut off, as the authors do
    light = drops * shaded(drops)
    most = light.amax((1, 2), keepdim=True).clamp_min(1)  # of no drops there is none
    share = strength * (light.double() / most)[:, None]
    return x + share * x.new_tensor(_WATER)[:, None, None]


KIND = Kind(  # mean, std, sigma and threshold of drops; strength; water 0, or mud 1
    _apply,
    small=(
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    large=(
        (0.65, 0.3, 4, 0.69, 0.6, 0),
        (0.65, 0.3, 3, 0.68, 0.6, 0),
        (0.65, 0.3, 2, 0.68, 0.5, 0),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    ),
    group="weather",
    role="validation",
    place=18,
)
