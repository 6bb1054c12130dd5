"""What an attack raises: functions of logits and labels, one value a sample."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """logits: [N, K], y: [N] int64 -> [N] in nats, >= 0."""
    return F.cross_entropy(logits, y, reduction="none")


def logit_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest other logit minus the label's: positive where the model is fooled.

    logits: [N, K], y: [N] int64 -> [N]. A tie gives 0; a model of one class, which
    nothing can fool, gives -inf.
    """
    own = logits.gather(1, y[:, None])  # [N, 1]
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - own[:, 0]


def misclassified(logits: Tensor, y: Tensor) -> Tensor:
    """[N, K], [N] -> [N] bool: argmax is not the label. Of tied classes the first
    counts as the answer."""
    return logits.argmax(1) != y
