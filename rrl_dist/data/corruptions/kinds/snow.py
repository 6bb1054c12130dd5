"""Flakes that fall aslant, over a whitened image."""

import torch
from torch import Tensor

from rrl_dist.data.corruptions.enlarge import enlarged
from rrl_dist.data.corruptions.filters import normal_draws
from rrl_dist.data.corruptions.kind import Given, Kind, spread
from rrl_dist.data.corruptions.lines import along_line

_GREY = (0.299, 0.587, 0.114)  # OpenCV's weights, ITU-R BT.601


def _apply(x: Tensor, snow: tuple[float, ...], given: Given) -> Tensor:
    mean, std, size, least, radius, sigma, kept = snow
    height, width = x.shape[2:]
    draws = given.draw(2 * height * width + 1)
    noise = normal_draws(lambda _: draws[:, 1:], height * width)
    flakes = enlarged((mean + std * noise).view(-1, 1, height, width), size)
    flakes = flakes.where(flakes >= least, 0).clamp(0, 1)
    angle = spread(draws[:, 0], -135, -45)
    flakes = along_line(flakes, angle, radius=int(radius), sigma=sigma)
    red, green, blue = (w * x[:, i : i + 1] for i, w in enumerate(_GREY))
    grey = red + green + blue
    y = kept * x + (1 - kept) * torch.maximum(x, 1.5 * grey + 0.5)
    return y + flakes + flakes.flip(2, 3)


KIND = Kind(  # mean, std, enlargement, threshold; radius, sigma; share of the image
    _apply,
    small=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    large=(
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    group="weather",
    role="test",
    place=8,
)
