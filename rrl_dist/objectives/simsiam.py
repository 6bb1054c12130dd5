"""SimSiam: one view's projection is predicted from the other's, without negatives.

Chen and He 2021, arXiv:2011.10566, eq. 1 to 4 and algorithm 1. With z the projection,
p = predictor(z) and no gradient into z:

    loss = -cos(p_a, z_b) / 2 - cos(p_b, z_a) / 2  (batch means)

The paper's best variant keeps the predictor's learning rate without decay (table 1 c),
as solo-learn's recipe does; here it decays with all others.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rrl_dist.core.batch import Batch
from rrl_dist.objectives.objective import Objective, report, width_of
from rrl_dist.objectives.terms import mean_cosine, spread


def simsiam_loss(pa: Tensor, pb: Tensor, ta: Tensor, tb: Tensor) -> Tensor:
    """Symmetric negative cosine.

    Args:
        pa, pb: [N, D] on each worker, predictions from the first and the second view.
        ta, tb: [N, D], their projections, detached where weights are trained.

    Returns:
        scalar in [-1, 1].
    """
    return -(mean_cosine(pa, tb) + mean_cosine(pb, ta)) / 2


class SimSiam(Objective):
    """Negative cosine of predictions and the other view's projections.

    Args:
        encoder: trained.
        projector: builds the head from the number of features; it has `out`.
        predictor: builds the second head from the projector's `out`.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        projector: Callable[[int], nn.Module],
        predictor: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector(width_of(encoder, "num_features"))
        self.predictor = predictor(width_of(self.projector, "out"))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        # One pass a view, as in the paper: batch norm sees one view at a time.
        za, zb = (self.projector(self.encoder(view)) for view in batch.views)
        ta, tb = (self._stopped(z) for z in (za, zb))
        loss = simsiam_loss(self.predictor(za), self.predictor(zb), ta, tb)
        return report(loss, {"projection_std": spread(torch.cat([za, zb]))})

    def _stopped(self, z: Tensor) -> Tensor:
        """No gradient through z to the weights. Where those are frozen it is an attack
        that asks, and half of the value's gradient would lead it downhill."""
        trained = any(p.requires_grad for p in self.predictor.parameters())
        return z.detach() if trained else z
