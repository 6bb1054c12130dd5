"""The nine operations that AugMix chains, each on its own rows of a batch.

Those of the authors' list (google-research/augmix, augmentations.py) that do not
overlap with the test corruptions: colour, contrast, brightness and sharpness are not
among them. Ranges are theirs, results are Pillow's but for what follows from values in
[0, 1] that are not rounded to 8 bits:

- posterize, solarize and equalize take an image as it would be if it were rounded;
  autocontrast, rotations, shears and shifts do not, where Pillow cuts the decimals off
  (up to 1/255 darker, with each operation of a chain).
- equalize divides by the number of pixels and not by the whole number of 255ths of it.
  Pillow's rounding makes images of 32 px brighter, and leaves most of 16 px, of fewer
  than 256 pixels beside their brightest, as they are.

A sample's result has the same bits in any batch: all is elementwise or integer.
"""

import torch
from torch import Tensor

from rrl_dist.data.geometry import per_sample

NAMES = (
    "autocontrast",
    "equalize",
    "posterize",
    "solarize",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
_MOVING = NAMES.index("rotate")  # from here on pixels move
_TOP = 255


def apply(x: Tensor, operation: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """One operation on each image.

    Args:
        x: [N, 3, H, W] in [0, 1], not changed.
        operation: [N] int64, places in `NAMES`; -1 leaves an image as it is.
        level: [N] double in [0, 10], tenths of the operation's largest strength.
        sign: [N] double, -1 or 1, the direction where there are two.

    Returns:
        [N, 3, H, W] in [0, 1].
    """
    y = x.clone()
    for place, function in enumerate((autocontrast, equalize, posterize, solarize)):
        rows = (operation == place).nonzero()[:, 0]
        y[rows] = function(x[rows], level[rows])
    rows = (operation >= _MOVING).nonzero()[:, 0]
    matrix = matrices(operation[rows], level[rows], sign[rows], size=x.shape[2:])
    y[rows] = moved(x[rows], matrix)
    return y


def autocontrast(x: Tensor, level: Tensor) -> Tensor:
    """Stretch each channel from its darkest to its brightest value over [0, 1]; one
    of a single value stays as it is. `level` is not used."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low), x)


def equalize(x: Tensor, level: Tensor) -> Tensor:
    """Each channel's value becomes the share of darker pixels among all but the
    brightest; a channel of a single value stays as it is. `level` is not used."""
    values = _rounded(x).flatten(2)  # [N, 3, H W]
    counts = values.new_zeros(*values.shape[:2], _TOP + 1)
    counts.scatter_add_(2, values, torch.ones_like(values))
    darker = counts.cumsum(2) - counts
    brightest = counts.gather(2, values.amax(2, keepdim=True))
    others = values.shape[2] - brightest
    # Where no pixel is darker the quotient is not used.
    share = darker.double() / others.clamp(min=1)
    y = share.clamp(max=1).gather(2, values).to(x.dtype).view_as(x)
    return torch.where(others[..., None] > 0, y, x)


def posterize(x: Tensor, level: Tensor) -> Tensor:
    """Keep the highest 4 to 0 of 8 bits: 4 less a tenth of 4 levels, whole ones."""
    dropped = 4 + _whole(level, 4)
    step = per_sample(torch.ones_like(dropped) << dropped)
    return (_rounded(x) // step * step).to(x.dtype) / _TOP


def solarize(x: Tensor, level: Tensor) -> Tensor:
    """Invert what is as bright as 256 less a tenth of 256 levels, in 255ths."""
    bright = _rounded(x) >= per_sample(256 - _whole(level, 256))
    return torch.where(bright, 1 - x, x)


def matrices(
    operation: Tensor, level: Tensor, sign: Tensor, *, size: torch.Size
) -> Tensor:
    """Where operations that move pixels take them from.

    Args:
        operation, level, sign: see `apply`; places from that of "rotate" on.
        size: height and width in pixels.

    Returns:
        [N, 2, 3] double: the pixel at (x, y), centres at halves, comes from
        (a x + b y + c, d x + e y + f). Rotations are around the centre, counter-
        clockwise for sign 1; shears leave the first row or column where it is.
    """
    height, width = size
    turn = torch.deg2rad(sign * _whole(level, 30))
    shear = sign * level * (0.3 / 10)
    one, none = torch.ones_like(level), torch.zeros_like(level)
    cos, sin = torch.cos(turn), torch.sin(turn)
    x, y = width / 2, height / 2
    choices = {
        "rotate": (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y),
        "shear_x": (one, shear, none, none, one, none),
        "shear_y": (one, none, none, shear, one, none),
        "translate_x": (one, none, sign * _whole(level, width / 3), none, one, none),
        "translate_y": (one, none, none, none, one, sign * _whole(level, height / 3)),
    }
    table = torch.stack([torch.stack(choices[name], 1) for name in NAMES[_MOVING:]], 1)
    rows = torch.arange(len(level), device=level.device)
    return table[rows, operation - _MOVING].view(-1, 2, 3)


def moved(x: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear resampling, black where an image is left, as Pillow's.

    Args:
        x: [N, 3, H, W].
        matrix: [N, 2, 3], see `matrices`.
    """
    height, width = x.shape[2:]
    device, dtype = matrix.device, matrix.dtype
    across = torch.arange(width, device=device, dtype=dtype) + 0.5
    down = torch.arange(height, device=device, dtype=dtype)[:, None] + 0.5
    m = matrix[..., None, None]  # [N, 2, 3, 1, 1]
    source = m[:, :, 0] * across + m[:, :, 1] * down + m[:, :, 2]  # [N, 2, H, W]
    column, row = source.unbind(1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    left, right, to_right = _neighbours(column, width)
    upper, lower, to_lower = _neighbours(row, height)
    flat, shape = x.flatten(2), x.shape

    def at(row: Tensor, column: Tensor) -> Tensor:
        place = (row * width + column).flatten(1)[:, None].expand(-1, shape[1], -1)
        return flat.gather(2, place).view(shape)

    above = _between(at(upper, left), at(upper, right), to_right.to(x.dtype))
    below = _between(at(lower, left), at(lower, right), to_right.to(x.dtype))
    y = _between(above, below, to_lower.to(x.dtype))
    return torch.where(inside[:, None], y, 0).clamp(0, 1)


def _neighbours(place: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels around a place and the share of the way to the second; beyond
    the last pixels' centres both are the last."""
    first = torch.floor(place - 0.5)
    share = place - 0.5 - first
    low, high = (first + i for i in (0, 1))
    return (
        low.clamp(0, length - 1).long(),
        high.clamp(0, length - 1).long(),
        share,
    )


def _between(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    return a + (b - a) * share[:, None]


def _rounded(x: Tensor) -> Tensor:
    """[0, 1] -> int64 of 0 to 255."""
    return (x * _TOP).round().long()


def _whole(level: Tensor, largest: float) -> Tensor:
    """A tenth of `level` times `largest`, without its decimals, int64."""
    return torch.floor(level * (largest / 10)).long()
