"""Proposals of the Square Attack in balls of the maximum norm.

Andriushchenko et al. 2020, arXiv:1912.00049, Algorithm 2. All pixels are at the ball's
faces, so a step of 2 eps in a window either changes face or stays.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rrl_dist.attacks.balls import Linf
from rrl_dist.attacks.windows import Draw, Sizes, Window, window_side


@dataclass(frozen=True)
class LinfProposals:
    """See `windows.Proposals`; its frame holds the lowest image and the highest."""

    ball: Linf

    def side(self, share: float, height: int, width: int) -> int:
        return window_side(share, height, width, smallest=1)

    def frame(self, center: Tensor) -> Tensor:
        beyond = 2 * self.ball.eps
        faces = (self.ball.project(center + s * beyond, center) for s in (-1, 1))
        return torch.stack(list(faces), 1)

    def first(self, frame: Tensor, draw: Draw) -> Tensor:
        """Vertical stripes one pixel wide, in each channel for itself."""
        count, _, channels, _, width = frame.shape
        u = draw(channels * width).reshape(count, channels, 1, width)
        return torch.where(u < 0.5, frame[:, 0], frame[:, 1])

    def next(self, frame: Tensor, best: Tensor, sizes: Sizes, draw: Draw) -> Tensor:
        """One face for all of a window, in each channel for itself."""
        channels, height, width = best.shape[1:]
        u = draw(2 + channels)
        window = Window.at(u[:, :2], sizes.of_rows(), height, width)
        low = u[:, 2:, None, None] < 0.5
        face = torch.where(low, frame[:, 0], frame[:, 1])
        return torch.where(window.inside, face, best)
