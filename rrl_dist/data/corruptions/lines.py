"""Blur along a line: one half of a normal, whole pixels, the border repeated.

As ImageMagick's MotionBlurImage (MagickCore/effect.c), which the authors call.
"""

import math

import torch
from torch import Tensor

from rrl_dist.data.corruptions.kind import rows_and_columns, taken


def along_line(x: Tensor, angle: Tensor, *, radius: int, sigma: float) -> Tensor:
    """x: [N, C, H, W]; angle: [N] double, in degrees, 0 to the right and 90 down.

    Each pixel is the weighted mean of the 2 radius + 1 pixels that begin with it.
    """
    count = 2 * radius + 1
    weights = torch.exp(-0.5 * (torch.arange(count).double() / sigma).square())
    weights = weights / weights.sum()
    turn = angle * (math.pi / 180)
    right, down = turn.cos()[:, None, None], turn.sin()[:, None, None]
    rows, columns = rows_and_columns(x)
    last_row, last_column = x.shape[2] - 1, x.shape[3] - 1
    y = torch.zeros_like(x)
    for step, weight in enumerate(weights.tolist()):
        row = rows + torch.ceil(step * down - 0.5).long()  # [N, H, 1]
        column = columns + torch.ceil(step * right - 0.5).long()  # [N, 1, W]
        row, column = row.clamp(0, last_row), column.clamp(0, last_column)
        shape = (len(x), *x.shape[2:])
        y += weight * taken(x, row.expand(shape), column.expand(shape))
    return y
