"""Exponential moving averages of weights: slow copies that give targets and keys."""

import math
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from rrl_dist.core.errors import UserError


def cosine_momentum(progress: float, *, start: float, end: float) -> float:
    """From `start` at progress 0 to `end` at 1 (Grill et al., arXiv:2006.07733, 3):
    end - (end - start) * (cos(pi * progress) + 1) / 2.
    """
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2


@torch.no_grad()
def move_towards(average: nn.Module, module: nn.Module, *, momentum: float) -> None:
    """Each parameter of `average` becomes momentum * itself + (1 - momentum) * its
    counterpart in `module`. Buffers stay: batch norm keeps statistics of its own.
    """
    pairs = zip(average.parameters(), module.parameters(), strict=True)
    for mean, new in pairs:
        # Under ZeRO-3 a weight is empty here, and an update would change nothing.
        assert mean.numel() == new.numel() > 0, "weights are whole in gathered() alone"
        mean.lerp_(new, 1 - momentum)


class Average(nn.Module):
    """The moving average of a module's weights, which are never trained.

    It begins as a copy. Its parameters are frozen, part of the state dict, and in the
    mode (train or eval) of what it is part of: in train mode its batch norm normalizes
    by the batch, as in the codes of MoCo and BYOL.

    Args:
        module: to follow; not kept.
        start, end: momentum at the beginning and the end of the run, in [0, 1].
    """

    def __init__(self, module: nn.Module, *, start: float, end: float) -> None:
        super().__init__()
        if not 0 <= start <= end <= 1:
            raise UserError(
                f"momentum from {start} to {end}; set 0 <= momentum_start <= "
                "momentum_end <= 1"
            )
        self.module = deepcopy(module).requires_grad_(False)
        self.start, self.end = start, end

    def forward(self, x: Tensor) -> Tensor:
        """Without graph, but for an x that has one: an attack follows this path too."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            return cast(Tensor, self.module(x))

    def follow(self, module: nn.Module, *, progress: float) -> None:
        """One step towards `module`, where weights are whole.

        Args:
            module: built as the one given at first.
            progress: share of the run that is done, in [0, 1].
        """
        momentum = cosine_momentum(progress, start=self.start, end=self.end)
        move_towards(self.module, module, momentum=momentum)
