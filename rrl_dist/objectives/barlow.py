"""Barlow Twins: the cross-correlation of two views should be the identity.

Zbontar et al. 2021, arXiv:2103.03230, eq. 1 and 2. The columns of z have zero mean and
unit variance over the global batch, separately for each view, as in the authors' code.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_mean
from rrl_dist.objectives.objective import Objective, report, width_of


def standardize(z: Tensor, *, eps: float) -> Tensor:
    """[N, D] on each worker -> the same, each column with zero mean and unit variance
    over the global batch (biased, `eps` added to it, as in batch norm)."""
    centered = z - all_mean(z.mean(0))
    variance = all_mean(centered.square().mean(0))
    return centered * torch.rsqrt(variance + eps)


def barlow_terms(za: Tensor, zb: Tensor) -> tuple[Tensor, Tensor]:
    """The two sums of eq. 1.

    Args:
        za, zb: [N, D] on each worker, standardized; row i of both shows one sample.

    Returns:
        sum over the diagonal of (1 - C_ii)^2 and off it of C_ij^2, scalars, with C the
        cross-correlation over the global batch.
    """
    c = all_mean(za.T @ zb / len(za))  # [D, D]
    diagonal = c.diagonal()
    # A mask, since all squares less those of the diagonal would cancel.
    off = c.square().masked_fill(torch.eye(len(c), device=c.device).bool(), 0)
    return (1 - diagonal).square().sum(), off.sum()


class Barlow(Objective):
    """scale * (invariance + off_diagonal_weight * redundancy).

    Args:
        encoder: trained.
        projector: builds the head from the number of features.
        off_diagonal_weight: of the redundancy term (lambda of the paper).
        scale: of the whole loss.
        eps: added to the variance of a column.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        projector: Callable[[int], nn.Module],
        off_diagonal_weight: float,
        scale: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector(width_of(encoder, "num_features"))
        self.off_diagonal_weight, self.scale, self.eps = off_diagonal_weight, scale, eps

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        # One pass a view: batch norm sees one view at a time, as in the authors' code.
        za, zb = (self.projector(self.encoder(view)).float() for view in batch.views)
        # The diagonal is near 1, where bf16 has steps of 0.4 %.
        with torch.autocast(za.device.type, enabled=False):
            za, zb = standardize(za, eps=self.eps), standardize(zb, eps=self.eps)
            invariance, redundancy = barlow_terms(za, zb)
        loss = self.scale * (invariance + self.off_diagonal_weight * redundancy)
        return report(loss, {"invariance": invariance, "redundancy": redundancy})
