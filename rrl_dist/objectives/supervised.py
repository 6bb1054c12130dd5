"""Cross-entropy on labels: the supervised baseline, and the linear probe.

With `train_encoder: false` the encoder stays as it is, batch norm statistics included,
and only the linear head learns: the standard linear protocol (SLF).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_mean
from rrl_dist.models.encoder import Classifier
from rrl_dist.objectives.objective import Objective, report, width_of


class Supervised(Objective):
    """Mean cross-entropy of a linear head on one view.

    Args:
        encoder: trained, or frozen together with its batch norm.
        num_classes: outputs of the head.
        train_encoder: whether the encoder learns too.
    """

    views = 1
    needs_labels = True

    def __init__(
        self, *, encoder: nn.Module, num_classes: int, train_encoder: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(train_encoder)
        self.head = nn.Linear(width_of(encoder, "num_features"), num_classes)
        self.train_encoder = train_encoder

    def train(self, mode: bool = True) -> "Supervised":
        """A frozen encoder stays in eval mode: its statistics must not drift."""
        super().train(mode)
        if not self.train_encoder:
            self.encoder.eval()
        return self

    def trained(self) -> nn.Module:
        return Classifier(self.encoder, self.head)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with torch.set_grad_enabled(self.train_encoder and torch.is_grad_enabled()):
            h = self.encoder(batch.views[0])
        logits = self.head(h).float()
        loss = all_mean(F.cross_entropy(logits, batch.labels))
        accuracy = all_mean((logits.argmax(1) == batch.labels).float().mean())
        return report(loss, {"accuracy": accuracy})
