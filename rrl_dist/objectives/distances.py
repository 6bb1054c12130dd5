"""How far apart two images' features are: what methods of consistency keep small.

All are 0 for equal features, never negative, and the same for features of another
scale, so that shrinking the features makes none of them smaller.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rrl_dist.core.collectives import all_mean
from rrl_dist.core.errors import UserError

# Moved and original features, [N, D] each, and the scale, -> [N].
Distance = Callable[[Tensor, Tensor, Tensor], Tensor]


def feature_scale(h: Tensor) -> Tensor:
    """Root mean square distance of the global batch's features from their mean.

    Args:
        h: [N, D] on each worker.

    Returns:
        scalar > 0 in float32, the same on every worker, with gradient.
    """
    h = h.float()
    centered = h - all_mean(h.mean(0))
    square = all_mean(centered.square().sum(1).mean())
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()


def l2(moved: Tensor, h: Tensor, scale: Tensor) -> Tensor:
    """Euclidean distance in units of the features' spread, [N]."""
    size: Tensor = torch.linalg.vector_norm(moved.float() - h.float(), dim=1)
    return size / scale


def cosine_distance(moved: Tensor, h: Tensor) -> Tensor:
    """1 - cos of the two rows, in [0, 2], [N] in float32."""
    # As half the squared distance of unit rows: 1 - cos itself rounds below 0.
    apart = F.normalize(moved.float(), dim=1) - F.normalize(h.float(), dim=1)
    return apart.square().sum(1) / 2


def cosine(moved: Tensor, h: Tensor, scale: Tensor) -> Tensor:
    """`cosine_distance`, whose own scale is 1, [N]."""
    return cosine_distance(moved, h)


def kl(moved: Tensor, h: Tensor, scale: Tensor) -> Tensor:
    """KL(softmax(moved) || softmax(h)) in nats, [N], of features over their spread
    times the root of their number: each feature then has a standard deviation near 1.
    """
    unit = scale / h.shape[1] ** 0.5
    log_p = (moved.float() / unit).log_softmax(1)
    log_q = (h.float() / unit).log_softmax(1)
    # The sum has terms of both signs, and may round below 0.
    each = F.kl_div(log_q, log_p, reduction="none", log_target=True)
    return each.sum(1).clamp_min(0)


DISTANCES: dict[str, Distance] = {"l2": l2, "cosine": cosine, "kl": kl}


def distance_of(name: str) -> Distance:
    """A distance by its name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in DISTANCES:
        raise UserError(f"there is no distance={name}; choose {'|'.join(DISTANCES)}")
    return DISTANCES[name]
