"""What methods that learn from labels share: an encoder and a head."""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.core.collectives import all_mean
from rrl_dist.models.encoder import classifier
from rrl_dist.objectives.objective import Objective, width_of

HeadMaker = Callable[[int, int], nn.Module]


class Labelled(Objective):
    """A head on an encoder that learns too, or stays as it is to the last bit.

    Subclasses define `forward`, and `inner` where they attack.

    Args:
        encoder: trained, or frozen together with its batch norm.
        num_classes: outputs of the head.
        train_encoder: whether the encoder learns too.
        freeze_batch_norm: whether in an encoder that learns batch norm stays as it is,
            statistics, scale and shift.
        head: makes the head, of the numbers of features and classes.
    """

    views = 1
    needs_labels = True
    has_distribution = True

    def __init__(
        self,
        *,
        encoder: nn.Module,
        num_classes: int,
        train_encoder: bool,
        freeze_batch_norm: bool,
        head: HeadMaker,
    ) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(train_encoder)
        self.head = head(width_of(encoder, "num_features"), num_classes)
        self.train_encoder = train_encoder
        self.freeze_batch_norm = freeze_batch_norm
        for module in self._kept():
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "Labelled":
        """A frozen encoder stays in eval mode: its statistics must not drift."""
        super().train(mode)
        for module in self._kept():
            module.eval()
        return self

    def _kept(self) -> list[nn.Module]:
        """What of the encoder stays as it is."""
        if not self.train_encoder:
            return [self.encoder]
        if not self.freeze_batch_norm:
            return []
        return [m for m in self.encoder.modules() if isinstance(m, _BatchNorm)]

    def trained(self) -> nn.Module:
        return classifier(self.encoder, self.head)

    def logits(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1], or a frozen encoder's features [N, D] of such images
        -> [N, K] in float32, with gradients to what is trained and to nothing else."""
        if x.ndim == 2:
            return cast(Tensor, self.head(x)).float()
        with torch.set_grad_enabled(self.train_encoder and torch.is_grad_enabled()):
            h = self.encoder(x)
        return cast(Tensor, self.head(h)).float()

    def distribution(self, h: Tensor, *, anchors: int, temperature: float) -> Tensor:
        """Over the classes; see `Objective.distribution`."""
        return cast(Tensor, self.head(h)).float()

    def attacked_logits(self, x: Tensor) -> Tensor:
        """As `logits`, with gradients to x whether or not the encoder is trained."""
        return cast(Tensor, self.head(self.encoder(x))).float()


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """[N, K], [N] -> mean over the global batch in nats, a scalar."""
    return all_mean(F.cross_entropy(logits, labels))


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """[N, K], [N] -> share of the global batch that is right, a scalar in [0, 1]."""
    return all_mean((logits.argmax(1) == labels).float().mean())
