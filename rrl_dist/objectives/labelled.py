"""What methods that learn from labels share: an encoder and a linear head."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.core.collectives import all_mean
from rrl_dist.models.encoder import Classifier
from rrl_dist.objectives.objective import Objective, width_of


class Labelled(Objective):
    """A linear head on an encoder that learns too, or stays as it is to the last bit.

    Subclasses define `forward`, and `inner` where they attack.

    Args:
        encoder: trained, or frozen together with its batch norm.
        num_classes: outputs of the head.
        train_encoder: whether the encoder learns too.
    """

    views = 1
    needs_labels = True
    has_distribution = True

    def __init__(
        self, *, encoder: nn.Module, num_classes: int, train_encoder: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(train_encoder)
        self.head = nn.Linear(width_of(encoder, "num_features"), num_classes)
        self.train_encoder = train_encoder

    def train(self, mode: bool = True) -> "Labelled":
        """A frozen encoder stays in eval mode: its statistics must not drift."""
        super().train(mode)
        if not self.train_encoder:
            self.encoder.eval()
        return self

    def trained(self) -> nn.Module:
        return Classifier(self.encoder, self.head)

    def logits(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> [N, K] in float32, with gradients to what is
        trained and to nothing else."""
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
