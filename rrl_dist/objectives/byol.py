"""BYOL: predict a slow copy's projection of the other view, without negatives.

Grill et al. 2020, arXiv:2006.07733, eq. 1 and 2, and section 3. With p the prediction
from the trained network's projection and t the slow copy's projection:

    loss = (2 - 2 cos(p_a, t_b)) + (2 - 2 cos(p_b, t_a))  (batch means)

After each step the slow copy moves towards the trained encoder and projector, by a
momentum that rises to 1 along a cosine.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rrl_dist.core.batch import Batch
from rrl_dist.models.ema import Average
from rrl_dist.objectives.objective import Objective, report, width_of
from rrl_dist.objectives.terms import mean_cosine, spread


def byol_loss(pa: Tensor, pb: Tensor, ta: Tensor, tb: Tensor) -> Tensor:
    """Squared distance of unit predictions and targets, over both directions.

    Args:
        pa, pb: [N, D] on each worker, predictions from the first and the second view.
        ta, tb: [N, D], the slow copy's projections of the same views, without graph.

    Returns:
        scalar in [0, 8].
    """
    return 4 - 2 * (mean_cosine(pa, tb) + mean_cosine(pb, ta))


class BYOL(Objective):
    """Distance of predictions and the other view's targets.

    Args:
        encoder: trained.
        projector: builds the head from the number of features; it has `out`.
        predictor: builds the second head from the projector's `out`.
        momentum_start, momentum_end: of the slow copy, in [0, 1].
    """

    moves_weights = True

    def __init__(
        self,
        *,
        encoder: nn.Module,
        projector: Callable[[int], nn.Module],
        predictor: Callable[[int], nn.Module],
        momentum_start: float,
        momentum_end: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector(width_of(encoder, "num_features"))
        self.predictor = predictor(width_of(self.projector, "out"))
        self.target = Average(self._online(), start=momentum_start, end=momentum_end)

    def _online(self) -> nn.Module:
        """What the slow copy follows."""
        return nn.Sequential(self.encoder, self.projector)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        # One pass a view, as in the paper: batch norm sees one view at a time.
        za, zb = (self.projector(self.encoder(view)) for view in batch.views)
        ta, tb = (self.target(view) for view in batch.views)
        loss = byol_loss(self.predictor(za), self.predictor(zb), ta, tb)
        return report(loss, {"projection_std": spread(torch.cat([za, zb]))})

    def after_step(self, progress: float) -> None:
        self.target.follow(self._online(), progress=progress)
