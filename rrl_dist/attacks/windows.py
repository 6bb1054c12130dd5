"""Square windows of images: their sizes, and where they lie, row by row."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# n -> [M, n] uniform draws in [0, 1), for one purpose at one step.
Draw = Callable[[int], Tensor]


class Sizes(NamedTuple):
    """Sides of the windows that a search uses.

    Attributes:
        sides: in pixels, one for each level.
        level: [M] int64, the level that each row is at.
    """

    sides: tuple[int, ...]
    level: Tensor

    def of_rows(self) -> Tensor:
        """[M] int64 sides in pixels."""
        return torch.tensor(self.sides, device=self.level.device)[self.level]


class Proposals(Protocol):
    """How a random search moves in one norm's ball.

    Images are [M, C, H, W]. What is proposed is in the ball and in [0, 1].
    """

    def side(self, share: float, height: int, width: int) -> int:
        """Pixels, of a window that covers that share of an image."""

    def frame(self, center: Tensor) -> Tensor:
        """What proposals are made from: [M, A, C, H, W] with A images for each."""

    def first(self, frame: Tensor, draw: Draw) -> Tensor:
        """The image that a search begins with."""

    def next(self, frame: Tensor, best: Tensor, sizes: Sizes, draw: Draw) -> Tensor:
        """`best`, changed in a window."""


class Window(NamedTuple):
    """One square in each row's image.

    Attributes:
        down: [M, H] int64, rows of pixels counted from the window's first.
        across: [M, W] int64, columns of pixels counted from the window's first.
        inside: [M, 1, H, W] bool.
    """

    down: Tensor
    across: Tensor
    inside: Tensor

    @classmethod
    def at(cls, u: Tensor, side: Tensor, height: int, width: int) -> "Window":
        """All places are equally likely.

        Args:
            u: [M, 2] uniform draws.
            side: [M] int64 pixels, at most `height` and `width`.
            height, width: pixels of the images.
        """
        down, in_rows = _span(u[:, 0], side, height)
        across, in_columns = _span(u[:, 1], side, width)
        inside = in_rows[:, :, None] & in_columns[:, None, :]
        return cls(down, across, inside[:, None])


def _span(u: Tensor, side: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """[M], [M] -> each pixel's place in the window along one axis, and whether it is
    inside, [M, length]."""
    # u is below 1 by 2**-24 at least, so the product stays below its second factor.
    start = (u * (length - side + 1)).long()
    place = torch.arange(length, device=u.device) - start[:, None]
    return place, (place >= 0) & (place < side[:, None])


def signs(u: Tensor) -> Tensor:
    """Uniform draws -> -1 or 1, equally likely, in float32."""
    return torch.where(u < 0.5, -1.0, 1.0)


def window_side(share: float, height: int, width: int, smallest: int) -> int:
    """Pixels, to the nearest, of a square that covers `share` of an image.

    At least `smallest`, but not more than fits into the image.
    """
    side: int = round((share * height * width) ** 0.5)
    return min(max(side, smallest), height, width)


def odd_window_side(share: float, height: int, width: int) -> int:
    """As `window_side`, at least 3 and odd, but for a window as large as the image."""
    side = window_side(share, height, width, smallest=3)
    return min(side + (side + 1) % 2, height, width)


def halved(share: float, times: int) -> Sequence[float]:
    """share, share / 2, ... share / 2**times."""
    return [share / 2**time for time in range(times + 1)]
