"""A camera that moves, along a line of each image's own."""

from torch import Tensor

from rrl_dist.data.corruptions.kind import Given, Kind, spread
from rrl_dist.data.corruptions.lines import along_line


def _apply(x: Tensor, line: tuple[int, float], given: Given) -> Tensor:
    radius, sigma = line
    angle = spread(given.draw(1)[:, 0], -45, 45)
    return along_line(x, angle, radius=radius, sigma=sigma)


KIND = Kind(  # radius and sigma, in pixels
    _apply,
    small=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    large=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    group="blur",
    role="test",
    place=6,
)
