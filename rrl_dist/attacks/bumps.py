"""Patterns of two opposite bumps, which the Square Attack adds where a sum is bounded.

Andriushchenko et al. 2020, arXiv:1912.00049, eq. 2 and section 3.4; in L1 as in the
authors' code (fra31/auto-attack).
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Size, Tensor

from rrl_dist.attacks.windows import Draw, Sizes, Window, signs

TILES = 5  # along a side of the first proposal, section 3.4


class Profile(NamedTuple):
    """What bumps are like.

    Attributes:
        power: they fall off the faster the larger it is.
        order: of the norm that their length is in.
    """

    power: int
    order: int


@cache
def pattern(side: int, profile: Profile) -> Tensor:
    """The two halves of a square, one above the other, of opposite signs.

    Args:
        side: pixels, at least 1.
        profile: of both bumps.

    Returns:
        [side, side] float32 of length 1. A square of one pixel has a lower half only.
    """
    half = side // 2
    upper, lower = (_bump(rows, side, profile) for rows in (half, side - half))
    whole = torch.cat([upper, -lower])
    return (whole / _length(whole, profile)).float()


def _bump(height: int, width: int, profile: Profile) -> Tensor:
    """[height, width] float64 of length 1, highest at its middle.

    Around it are nested squares, each of which adds 1 / (half its side)**power.
    """
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    ring = torch.maximum(rows[:, None], columns[None, :])
    reach = max(height, width) // 2 + 1
    added = torch.arange(reach, 0, -1).double() ** -profile.power
    value = added.cumsum(0).flip(0)[ring]  # sum of j**-power from ring + 1 to reach
    return value / _length(value, profile) if value.numel() else value


def _length(value: Tensor, profile: Profile) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(value, profile.order)
    return length


@cache
def _bank(sides: tuple[int, ...], profile: Profile, device: torch.device) -> Tensor:
    """[levels, S, S], each pattern in the upper left corner of zeros."""
    largest = max(sides)
    bank = torch.zeros(len(sides), largest, largest)
    for level, side in enumerate(sides):
        bank[level, :side, :side] = pattern(side, profile)
    return bank.to(device)


def bumps(window: Window, sizes: Sizes, turned: Tensor, profile: Profile) -> Tensor:
    """Each row's pattern in its window, 0 elsewhere.

    Args:
        window: M places.
        sizes: their sides.
        turned: [M] bool, whether the halves are side by side.
        profile: of their bumps.

    Returns:
        [M, 1, H, W] of length 1.
    """
    bank = _bank(sizes.sides, profile, turned.device)
    largest = bank.shape[1]
    by_row = torch.where(turned, 1, largest)[:, None]
    by_column = torch.where(turned, largest, 1)[:, None]
    down = window.down.clamp(0, largest - 1) * by_row
    across = window.across.clamp(0, largest - 1) * by_column
    start = sizes.level * largest**2
    place = start[:, None, None] + down[:, :, None] + across[:, None, :]
    return bank.take(place)[:, None] * window.inside


class Move(NamedTuple):
    """Where a change of M images is taken from, and where it goes.

    Attributes:
        to, source: [M, 1, H, W] bool, two windows of one size; they may overlap.
        pattern: [M, C, H, W] of length 1 in each channel, within `to`; the signs are
            those of the channels.
    """

    to: Tensor
    source: Tensor
    pattern: Tensor

    @classmethod
    def drawn(cls, shape: Size, sizes: Sizes, draw: Draw, profile: Profile) -> "Move":
        """Places, turns and signs; `shape` is (M, C, H, W)."""
        channels, height, width = shape[1:]
        u, side = draw(5 + channels), sizes.of_rows()
        to = Window.at(u[:, 0:2], side, height, width)
        source = Window.at(u[:, 2:4], side, height, width)
        upright = bumps(to, sizes, turned=u[:, 4] < 0.5, profile=profile)
        return cls(to.inside, source.inside, upright * signs(column(u[:, 5:])))


def column(channels: Tensor) -> Tensor:
    """[M, C] -> [M, C, 1, 1]."""
    return channels[:, :, None, None]


def tiled(shape: Size, draw: Draw, profile: Profile) -> Tensor:
    """Patterns in tiles of a fifth of the shorter side, as many as fit, centred.

    A pattern is turned or not in all channels, and has a sign in each.

    Args:
        shape: (M, C, H, W).
        draw: for every row.
        profile: of their bumps.

    Returns:
        [M, C, H, W], of length 1 in each tile and channel, 0 beside the tiles.
    """
    count, channels, height, width = shape
    tile = max(min(height, width) // TILES, 1)
    number = (height // tile, width // tile)
    u = draw((1 + channels) * number[0] * number[1])
    u = u.reshape(count, 1 + channels, *number)
    rows, columns = (
        torch.arange(length, device=u.device) - (length - n * tile) // 2
        for length, n in zip((height, width), number, strict=True)
    )
    inside = _between(rows, number[0] * tile)[:, None]
    inside = inside & _between(columns, number[1] * tile)
    whose = (
        (rows // tile).clamp(0, number[0] - 1)[:, None],
        (columns // tile).clamp(0, number[1] - 1)[None, :],
    )
    upright = pattern(tile, profile).to(u.device)
    pixel = (rows % tile)[:, None], (columns % tile)[None, :]
    spread = u[:, :, *whose]
    shape_of = torch.where(spread[:, :1] < 0.5, upright.T[pixel], upright[pixel])
    return signs(spread[:, 1:]) * shape_of * inside


def _between(place: Tensor, end: int) -> Tensor:
    return (place >= 0) & (place < end)
