"""A random affine map, and after it a random field of small displacements.

(Simard, Steinkraus, Platt 2003.) Constants are shares of the image's side: the authors
write theirs for 32 px, and for 224 px as shares of 244, which is kept.
"""

import torch
from torch import Tensor

from rrl_dist.data.corruptions.filters import wide_gaussian
from rrl_dist.data.corruptions.kind import Given, Kind, rows_and_columns, taken

_LARGE = 244 / 224


def _apply(x: Tensor, elastic: tuple[float, float, float], given: Given) -> Tensor:
    height, width = x.shape[2:]
    side = min(height, width) * (1 if given.small else _LARGE)
    strength, sigma, corner = (side * share for share in elastic)
    pixels = height * width
    u = 2 * given.draw(6 + 2 * pixels) - 1
    y = _affine(x, corner * u[:, :6].view(-1, 3, 2))
    fields = u[:, 6:].view(-1, 2, height, width).unbind(1)
    right, down = (strength * wide_gaussian(field, sigma) for field in fields)
    rows, columns = rows_and_columns(x)
    return _sampled(y, rows + down, columns + right, twice=True)


def _affine(x: Tensor, moved: Tensor) -> Tensor:
    """The map that takes three corners of a square in the middle to others.

    Args:
        x: [N, 3, H, W].
        moved: [N, 3, 2], how far each corner goes, across and down, in pixels. The
            corners are that below on the right, that below on the left (of the square
            as it lies in x and y), and that above on the left.
    """
    height, width = x.shape[2:]
    half = max(1, min(height, width) // 3)
    middle = x.new_tensor([height // 2, width // 2])
    offset = x.new_tensor([[half, half], [half, -half], [-half, -half]])
    ends = middle + offset + moved  # [N, 3, 2]
    first, second, third = ends.unbind(1)
    # Where a step across and a step down go, and where (0, 0) does.
    across, down = (second - third) / (2 * half), (first - second) / (2 * half)
    zero = first - across * (middle[0] + half) - down * (middle[1] + half)
    (a, c), (b, d), (e, f) = (v.unbind(1) for v in (across, down, zero))
    rows, columns = rows_and_columns(x)
    a, b, c, d, e, f = (v[:, None, None] for v in (a, b, c, d, e, f))
    size = a * d - b * c
    inverse = (1 / size).where(size != 0, 0)  # OpenCV's way with a map to a line
    right = (d * (columns - e) - b * (rows - f)) * inverse
    below = (a * (rows - f) - c * (columns - e)) * inverse
    return _sampled(x, below, right, twice=False)


def _sampled(x: Tensor, row: Tensor, column: Tensor, *, twice: bool) -> Tensor:
    """Between four pixels of x [N, C, H, W], at places [N, H, W] in pixels; mirrored at
    the border, whose pixels are there twice, or once."""
    top, left = row.floor(), column.floor()
    down, right = (row - top)[:, None], (column - left)[:, None]
    y = torch.zeros_like(x)
    for i, high in ((0, 1 - down), (1, down)):
        for j, wide in ((0, 1 - right), (1, right)):
            at = _mirrored(top.long() + i, x.shape[2], twice)
            beside = _mirrored(left.long() + j, x.shape[3], twice)
            y += high * wide * taken(x, at, beside)
    return y


def _mirrored(place: Tensor, length: int, twice: bool) -> Tensor:
    """Into 0 to length - 1."""
    period = 2 * length if twice else max(1, 2 * length - 2)
    folded = place % period
    return torch.minimum(folded, (period - 1 if twice else period) - folded)


KIND = Kind(  # strength, sigma of the field, reach of the corners
    _apply,
    small=(
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ),
    large=(
        (2, 0.7, 0.1),
        (2, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    ),
    group="digital",
    role="test",
    place=13,
)
