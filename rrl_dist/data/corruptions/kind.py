"""What a kind of corruption is, and what it is given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

# [N, n] double draws in (0, 1) that belong to the samples; asked for once.
Draw = Callable[[int], Tensor]


@dataclass(frozen=True)
class Given:
    """What a kind may use beside images and its constants.

    Attributes:
        draw: the samples' own draws.
        small: whether the constants are those of small images.
        textures: [3, H, W] double in [0, 1] each, of frost; empty where it is made up.
    """

    draw: Draw
    small: bool
    textures: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Kind:
    """A corruption.

    Attributes:
        apply: x [N, 3, H, W] double, multiples of 1/255 in [0, 1]; the constants of a
            severity; what else there is -> [N, 3, H, W] double, which may leave [0, 1].
        small, large: the constants of severities 1 to 5, by the images' size.
        group: of the authors' tables.
        role: "test" for those that errors are averaged over, "validation" for those
            that settings may be chosen by.
        place: in the order of the authors' tables.
    """

    apply: Callable[[Tensor, Any, Given], Tensor]
    small: tuple[Any, ...]
    large: tuple[Any, ...]
    group: Literal["noise", "blur", "weather", "digital"]
    role: Literal["test", "validation"]
    place: int


def levels(x: Tensor) -> Tensor:
    """[...] in [0, 1] -> [...] int64, 0 to 255."""
    return x.double().clamp(0, 1).mul(255).round().long()


def whole(draws: Tensor, count: int) -> Tensor:
    """Draws in (0, 1) -> int64 from 0 to count - 1, each as likely."""
    return (draws * count).long().clamp_max(count - 1)


def spread(draws: Tensor, low: float, high: float) -> Tensor:
    """Draws in (0, 1) -> in (low, high)."""
    return low + (high - low) * draws


def rows_and_columns(x: Tensor) -> tuple[Tensor, Tensor]:
    """[H, 1] and [1, W] int64: where each pixel of x [..., H, W] is."""
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device)[:, None]
    return rows, torch.arange(width, device=x.device)[None]


def taken(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Pixels of x [N, C, H, W] at places [N, h, w] that are inside -> [N, C, h, w]."""
    place = (row * x.shape[3] + column).flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, place).view(*x.shape[:2], *row.shape[1:])
