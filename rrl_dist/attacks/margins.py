"""What an attack raises: functions of logits and labels, one value a sample."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rrl_dist.core.errors import UserError


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


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio: the margin over the gap of the first and third logit.

    Croce and Hein 2020, arXiv:2003.01690, eq. 6. It does not change when logits are
    scaled or shifted, so a model that is sure has a gradient all the same.

    logits: [N, K] with K >= 3, y: [N] int64 -> [N]; positive where the model is fooled,
    above -1 where the label is first.

    Raises:
        UserError: if there are fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise UserError(
            f"the DLR loss needs three classes, the model has {logits.shape[1]}; "
            "attack its cross-entropy"
        )
    top = logits.topk(3, dim=1).values
    # As the authors' code, which keeps equal logits from a division by zero.
    return logit_margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def misclassified(logits: Tensor, y: Tensor) -> Tensor:
    """[N, K], [N] -> [N] bool: argmax is not the label. Of tied classes the first
    counts as the answer."""
    return logits.argmax(1) != y
