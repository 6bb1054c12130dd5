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


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio: the margin over the gap of the first and third logit.

    Croce and Hein 2020, arXiv:2003.01690, eq. 6. It does not change when logits are
    scaled or shifted, so a model that is sure has a gradient all the same.

    logits: [N, K], y: [N] int64 -> [N]; positive where the model is fooled, above -1
    where the label is first. With two classes there is no third logit, and the margin
    itself is what an attack by normalized gradients raises as well.
    """
    if logits.shape[1] < 3:
        return logit_margin(logits, y)
    top = logits.topk(3, dim=1).values
    # As the authors' code, which keeps equal logits from a division by zero.
    return logit_margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """As `dlr`, towards a class.

    Croce and Hein 2020, eq. 7.

    logits: [N, K], y, target: [N] int64 -> [N]. With fewer than four classes the
    difference stays undivided, as for `dlr` with two: over the gap to the third and
    last logit it would be constant where that is the target's.
    """
    towards = logits.gather(1, torch.stack([target, y], 1))
    difference = towards[:, 0] - towards[:, 1]
    if logits.shape[1] < 4:
        return difference
    top = logits.topk(4, dim=1).values
    gap = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
    return difference / (gap + 1e-12)


def ranked_class(logits: Tensor, y: Tensor, rank: Tensor) -> Tensor:
    """The class of `rank` [N] in [0, K - 2] among those that are not the label y [N],
    by falling logits [N, K] -> [N] int64; the label where it is the only one."""
    if logits.shape[1] == 1:
        return y
    others = logits.scatter(1, y[:, None], -torch.inf)
    # Stable: equal logits keep the order of classes at any batch.
    order = others.argsort(dim=1, descending=True, stable=True)
    return order.gather(1, rank[:, None])[:, 0]


def misclassified(logits: Tensor, y: Tensor) -> Tensor:
    """[N, K], [N] -> [N] bool: argmax is not the label. Of tied classes the first
    counts as the answer."""
    return logits.argmax(1) != y
