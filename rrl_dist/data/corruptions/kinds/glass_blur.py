"""Frosted glass: pixels change places with near ones, between two normal filters.

The authors' swap is none: of two pixels of a numpy array it makes copies of one. What
their benchmark has is here: each pixel becomes a copy of a near one, in turn.
"""

import torch
from torch import Tensor

from rrl_dist.data.corruptions.filters import gaussian
from rrl_dist.data.corruptions.kind import Given, Kind, levels, rows_and_columns, taken


def _apply(x: Tensor, glass: tuple[float, int, int], given: Given) -> Tensor:
    sigma, reach, rounds = glass
    y = levels(gaussian(x, sigma)).double() / 255
    pixels = x.shape[2] * x.shape[3]
    draws = given.draw(2 * rounds * pixels).view(len(x), rounds, 2, *x.shape[2:])
    for own in (draws * (2 * reach)).long().sub(reach).unbind(1):
        place = _source(own[:, 0], own[:, 1], reach)
        y = taken(y, place // x.shape[3], place % x.shape[3])
    return gaussian(y, sigma)


def _source(down: Tensor, right: Tensor, reach: int) -> Tensor:
    """down, right: [N, H, W] from -reach to reach - 1 -> [N, H, W], places in H * W
    whose colours end up at each pixel.

    Pixels are seen to from the last to the first, so one whose neighbour comes after it
    copies what that has become: a chain, whose end is found by doubling of its steps.
    """
    height, width = down.shape[1:]
    rows, columns = rows_and_columns(down)
    seen = (rows > reach) & (rows <= height - reach) & (columns > reach)
    seen = seen & (columns <= width - reach)
    own = rows * width + columns  # [H, W]
    other = torch.where(seen, own + down * width + right, own).flatten(1)  # [N, H W]
    count, own = height * width, own.flatten()
    # A place below `count` is what the pixel becomes, one above it what it was.
    first = (other > own) & seen.flatten()[other]
    step = torch.where(first, other, other + count)
    ends = (own + count).expand_as(step)
    step = torch.cat([step, ends], dim=1)
    for _ in range(count.bit_length()):
        step = step.gather(1, step)
    return (step[:, :count] - count).view(-1, height, width)


KIND = Kind(  # sigma in pixels, reach in pixels, rounds
    _apply,
    small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    large=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    group="blur",
    role="test",
    place=5,
)
