"""Measures of an encoder on clean images, and of the weights of encoder and head."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.core.errors import UserError
from rrl_dist.models.encoder import Classifier
from rrl_dist.models.operators import sigmas

# Where the search for a layer's largest singular value ends, beyond the digits that
# tables show; a value is told as it stands after so many steps.
TOLERANCE, STEPS = 1e-4, 100


def of_features(h: Tensor) -> dict[str, float]:
    """h: [N, D] -> its measures by name."""
    return {
        "feature_std": feature_std(h),
        "effective_rank": effective_rank(h),
        "spread": spread(h),
    }


def of_weights(model: Classifier, image_size: int) -> dict[str, Any]:
    """The head's norm, and `sigmas`: each layer's largest singular value, or None where
    a layer is of a kind whose linear map is not known."""
    try:
        found = sigmas(
            model.encoder,
            image_size=image_size,
            tolerance=TOLERANCE,
            most=STEPS,
            seed=0,
        )
    except UserError:
        return {"head_norm": head_norm(model), "sigmas": None}
    return {"head_norm": head_norm(model), "sigmas": found}


def head_norm(model: Classifier) -> float:
    """Largest singular value ||W||_2 of the head."""
    weight = cast(nn.Linear, model.head).weight.detach().double().cpu()
    return float(torch.linalg.matrix_norm(weight, 2))


def feature_std(h: Tensor) -> float:
    """Mean over columns of the standard deviation of unit features: near 1 / sqrt(D)
    where they spread over the sphere, 0 where they have collapsed to a point.

    h: [N, D].
    """
    return float(F.normalize(h.double(), dim=1).std(0, correction=0).mean())


def spread(h: Tensor) -> float:
    """Root mean square distance of the rows of h: [N, D] from their mean."""
    centered = h.double() - h.double().mean(0)
    return float(centered.square().sum(1).mean().sqrt())


def effective_rank(h: Tensor) -> float:
    """exp of the entropy of the normalized singular values of the centered features.

    Roy and Vetterli 2007, The effective rank, definition 1. In [1, min(N - 1, D)]; 0
    for rows that are all the same.

    h: [N, D].
    """
    centered = h.double() - h.double().mean(0)
    # The triangle has the same singular values and no more than D rows.
    values = torch.linalg.svdvals(torch.linalg.qr(centered, mode="r").R)
    # What rounding leaves of equal rows is no direction.
    if values.max() <= 1e-12 * torch.linalg.matrix_norm(h.double()):
        return 0.0
    return float(torch.special.entr(values / values.sum()).sum().exp())
