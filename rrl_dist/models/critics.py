"""Critics: embeddings whose inner products score an image with a representation.

The networks of Zhu, Zhang, Evans, Learning adversarially robust representations via
worst-case mutual information maximization, ICML 2020, arXiv:2002.11798, by their
released code; after Hjelm et al. 2019, arXiv:1808.06670.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.core.errors import UserError
from rrl_dist.models.encoder import Normalize
from rrl_dist.models.sync_bn import convert_sync_bn

_REDUCED = 4  # the two convolutions have stride 2


class _Embedding(nn.Module):
    """Two layers and a shortcut, place by place, then layer norm: [N, C, L] -> [N, E,
    L]. The shortcut begins as a noisy copy of the first channels."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        # The batch norm has a bias of its own.
        self.block = nn.Sequential(
            nn.Conv1d(channels, embedding, 1, bias=False),
            nn.BatchNorm1d(embedding),
            nn.ReLU(inplace=True),
            nn.Conv1d(embedding, embedding, 1),
        )
        self.shortcut = nn.Conv1d(channels, embedding, 1, bias=False)
        self.norm = nn.LayerNorm(embedding)
        with torch.no_grad():
            weight = self.shortcut.weight[..., 0].uniform_(-0.01, 0.01)
            weight.fill_diagonal_(1.0)

    def forward(self, h: Tensor) -> Tensor:
        e = self.block(h) + self.shortcut(h)
        return cast(Tensor, self.norm(e.transpose(1, 2))).transpose(1, 2)


class LocalCritic(nn.Module):
    """Places of an image: [N, 3, H, W] in [0, 1] -> [N, embedding, L].

    Two 4x4 convolutions with stride 2, batch norm and ReLU, and the embedding of each
    of their H/4 x W/4 places. Where these are more than `grid` x `grid`, they are
    averaged to so many. So 32 px have 8x8 places at a grid of 8, 16 px have 4x4.

    Args:
        width: channels of the first convolution; the second has twice as many.
        embedding: E.
        grid: places in each direction, at most.
        mean, std: per channel, the encoder's.
        sync_bn: batch norm over all workers.

    Raises:
        UserError: sizes below 1, or (when called) images smaller than 4 px.
    """

    def __init__(
        self,
        *,
        width: int,
        embedding: int,
        grid: int,
        mean: Sequence[float],
        std: Sequence[float],
        sync_bn: bool,
    ) -> None:
        super().__init__()
        check_sizes(width=width, embedding=embedding, grid=grid)
        self.normalize, self.grid = Normalize(mean, std), grid
        layers = nn.Sequential(*_halving(3, width), *_halving(width, 2 * width))
        embed = _Embedding(2 * width, embedding)
        self.layers = convert_sync_bn(layers) if sync_bn else layers
        self.embed = convert_sync_bn(embed) if sync_bn else embed

    def forward(self, x: Tensor) -> Tensor:
        high, wide = x.shape[2:]
        if min(high, wide) < _REDUCED:
            raise UserError(
                f"images of {high}x{wide} px have no places to tell apart; take images "
                f"of at least {_REDUCED} px"
            )
        h = self.layers(self.normalize(x))
        places = (min(h.shape[2], self.grid), min(h.shape[3], self.grid))
        if h.shape[2:] != places:
            h = F.adaptive_avg_pool2d(h, places)
        return cast(Tensor, self.embed(h.flatten(2)))


class GlobalCritic(nn.Module):
    """Representations: [N, D] -> [N, embedding].

    Args:
        in_features: D.
        embedding: E.
        sync_bn: batch norm over all workers.

    Raises:
        UserError: the embedding has no dimension.
    """

    def __init__(self, in_features: int, *, embedding: int, sync_bn: bool) -> None:
        super().__init__()
        check_sizes(embedding=embedding)
        embed = _Embedding(in_features, embedding)
        self.embed = convert_sync_bn(embed) if sync_bn else embed

    def forward(self, h: Tensor) -> Tensor:
        return cast(Tensor, self.embed(h[..., None])).squeeze(2)


def check_sizes(**sizes: int) -> None:
    """Raises `UserError` for the first that is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"a critic has {name}={size}; set at least 1")


def _halving(channels: int, out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    ]
