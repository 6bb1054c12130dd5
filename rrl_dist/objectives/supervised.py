"""Cross-entropy on labels: the supervised baseline, and the linear probe.

With `train_encoder: false` the encoder stays as it is, batch norm statistics included,
and only the linear head learns: the standard linear protocol (SLF).
"""

from torch import Tensor

from rrl_dist.core.batch import Batch
from rrl_dist.objectives.labelled import Labelled, accuracy, mean_cross_entropy
from rrl_dist.objectives.objective import report


class Supervised(Labelled):
    """Mean cross-entropy of a linear head on one view; arguments as `Labelled`'s."""

    reads_features = True

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.logits(batch.views[0])
        loss = mean_cross_entropy(logits, batch.labels)
        return report(loss, {"accuracy": accuracy(logits, batch.labels)})
