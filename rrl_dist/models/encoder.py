"""Encoder: normalization and backbone. Images are in [0, 1] everywhere outside it."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from rrl_dist.core.errors import UserError
from rrl_dist.models.in_parts import in_parts
from rrl_dist.models.sync_bn import convert_sync_bn


class Normalize(nn.Module):
    """(x - mean) / std per channel; mean and std are buffers of the checkpoint."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UserError(f"3 means and 3 positive stds are needed: {mean}, {std}")
        self.register_buffer(
            "mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1)
        )
        self.register_buffer(
            "std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Encoder(nn.Module):
    """[N, 3, H, W] in [0, 1] -> [N, num_features].

    Args:
        backbone: a module with an attribute `num_features`.
        mean, std: per channel, of the pretraining images.
        sync_bn: batch norm over all workers instead of each worker's share.

    Attributes:
        micro_batch: images whose activations are held at a time, see `in_parts`; None
            for all.
    """

    micro_batch: int | None = None

    def __init__(
        self,
        *,
        backbone: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        sync_bn: bool,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        self.backbone = convert_sync_bn(backbone) if sync_bn else backbone
        self.num_features = int(cast(int, backbone.num_features))

    def forward(self, x: Tensor) -> Tensor:
        if self.micro_batch is None or len(x) <= self.micro_batch:
            return self._features(x)
        return in_parts(self._features, x, self.micro_batch)

    def _features(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.backbone(self.normalize(x)))


class Classifier(nn.Module):
    """Encoder and linear head: [N, 3, H, W] in [0, 1] -> logits [N, K]."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.encoder(x)))


class DeepClassifier(nn.Module):
    """Encoder and another head, which is more than a matrix: it has no bound, and is
    attacked as a classifier that shows no features."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> logits [N, K]."""
        return cast(Tensor, self.head(self.encoder(x)))


def classifier(encoder: nn.Module, head: nn.Module) -> Classifier | DeepClassifier:
    """The two as one module, of the class that tells what head it has."""
    if isinstance(head, nn.Linear):
        return Classifier(encoder, head)
    return DeepClassifier(encoder, head)
