"""Views: seeded augmentations of a batch, on the device where the images are.

A sample's view is a pure function of (seed, epoch, view, sample): it does not change
with the batch, the order, the worker, or the thread count. For this the operations
use elementwise arithmetic and integer sums, whose results do not depend on the place
of a sample in the batch, and parameters are computed in double precision.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from rrl_dist.core.randomness import Key

# On a CPU, images are taken in portions whose intermediates stay in the cache.
_PORTION_BYTES = 1 << 21


class Operation(Protocol):
    """One step of an augmentation policy."""

    def __call__(
        self, x: Tensor, *, seed: int, key: tuple[Key, ...], index: Tensor
    ) -> Tensor:
        """x: [N, 3, H, W] in [0, 1], not changed -> [N, 3, S, T] in [0, 1].

        Args:
            seed, key, index: name the draws, as in `randomness.uniform`.
        """
        ...


class Views:
    """One augmented copy of each image for each policy.

    Args:
        policies: for each view its operations, in order; an empty policy gives the
            image itself.
    """

    def __init__(self, *, policies: Sequence[Sequence[Operation]]) -> None:
        self.policies = tuple(tuple(policy) for policy in policies)

    def __len__(self) -> int:
        return len(self.policies)

    def __call__(
        self, images: Tensor, index: Tensor, *, seed: int, epoch: int
    ) -> tuple[Tensor, ...]:
        """Draw the views of one epoch.

        Args:
            images: [N, 3, H, W], uint8 or float in [0, 1].
            index: [N] int64, each sample's place in its data set.
            seed: the run's seed.
            epoch: views differ between epochs.

        Returns:
            `len(self)` tensors [N, 3, S, S] float in [0, 1], on the device of
            `images`.
        """
        index = index.to(images.device)
        count = max(1, len(images))
        if images.device.type == "cpu":
            count = max(1, _PORTION_BYTES // (4 * max(1, images[:1].numel())))
        portions = [
            self._portion(x, i, seed=seed, epoch=epoch)
            for x, i in zip(
                torch.split(images, count), torch.split(index, count), strict=True
            )
        ]
        return tuple(torch.cat(parts) for parts in zip(*portions, strict=True))

    def size(self, stored: int) -> int:
        """Of the first view, in pixels, of images of `stored` pixels."""
        x, index = torch.zeros(1, 3, stored, stored), torch.zeros(1, dtype=torch.int64)
        return int(self._portion(x, index, seed=0, epoch=0)[0].shape[-1])

    def _portion(
        self, images: Tensor, index: Tensor, *, seed: int, epoch: int
    ) -> list[Tensor]:
        x = images if images.is_floating_point() else images.float() / 255
        views = []
        for number, policy in enumerate(self.policies):
            view = x
            for place, operation in enumerate(policy):
                name = type(operation).__name__
                key = ("view", number, place, name, epoch)
                view = operation(view, seed=seed, key=key, index=index)
            views.append(view)
        return views
