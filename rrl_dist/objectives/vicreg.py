"""VICReg: views agree, no column of the projections shrinks, no two say the same.

Bardes, Ponce, LeCun 2022, arXiv:2105.04906, eq. 1 to 6. As in the authors' code, for
which the usual weights are meant, and unlike the paper's equations, the invariance term
is divided by the number of columns, and the views' variance terms are averaged.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_mean, all_sum, world_size
from rrl_dist.objectives.objective import Objective, report, width_of


def covariance(z: Tensor) -> Tensor:
    """[N, D] on each worker -> unbiased covariance of its columns over the global
    batch, [D, D]; the global batch has 2 rows or more."""
    centered = z - all_mean(z.mean(0))
    return all_sum(centered.T @ centered) / (len(z) * world_size() - 1)


def variance_term(cov: Tensor, *, eps: float) -> Tensor:
    """[D, D] -> mean hinge of the columns' standard deviations at 1 (eq. 1 and 2)."""
    return F.relu(1 - torch.sqrt(cov.diagonal() + eps)).mean()


def covariance_term(cov: Tensor) -> Tensor:
    """[D, D] -> sum of squares off the diagonal over D (eq. 3 and 4)."""
    diagonal = torch.eye(len(cov), device=cov.device).bool()
    return cov.square().masked_fill(diagonal, 0).sum() / len(cov)


def vicreg_terms(za: Tensor, zb: Tensor, *, eps: float) -> tuple[Tensor, ...]:
    """Invariance, variance and covariance over the global batch.

    Args:
        za, zb: [N, D] on each worker; row i of both shows one sample.
        eps: added to a column's variance, > 0: the root has a gradient at 0.

    Returns:
        three scalars, each at least 0.
    """
    invariance = all_mean((za - zb).square().mean())
    a, b = covariance(za), covariance(zb)
    variance = (variance_term(a, eps=eps) + variance_term(b, eps=eps)) / 2
    return invariance, variance, covariance_term(a) + covariance_term(b)


class VICReg(Objective):
    """The weighted sum of the three terms.

    Args:
        encoder: trained.
        projector: builds the head from the number of features.
        invariance_weight, variance_weight, covariance_weight: lambda, mu and nu.
        eps: see `vicreg_terms`.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        projector: Callable[[int], nn.Module],
        invariance_weight: float,
        variance_weight: float,
        covariance_weight: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector(width_of(encoder, "num_features"))
        self.weights = (invariance_weight, variance_weight, covariance_weight)
        self.eps = eps

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        # One pass a view: batch norm sees one view at a time, as in the authors' code.
        za, zb = (self.projector(self.encoder(view)).float() for view in batch.views)
        # Sums of squares over a batch lose too much in bf16.
        with torch.autocast(za.device.type, enabled=False):
            terms = vicreg_terms(za, zb, eps=self.eps)
        loss = torch.stack(
            [weight * term for weight, term in zip(self.weights, terms, strict=True)]
        ).sum()
        names = ("invariance", "variance", "covariance")
        return report(loss, dict(zip(names, terms, strict=True)))
