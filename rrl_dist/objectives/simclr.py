"""SimCLR: two views of an image are each other's only match in the global batch.

Chen et al. 2020, arXiv:2002.05709, eq. 1 and algorithm 1.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_gather, all_mean, rank
from rrl_dist.objectives.objective import Objective, report, width_of
from rrl_dist.objectives.terms import check_temperature, products


def nt_xent(*views: Tensor, temperature: float) -> Tensor:
    """Normalized temperature-scaled cross-entropy over the global batch.

    Args:
        views: two or more, each [N, D] on each worker, unit rows; row i of all shows
            the same sample.
        temperature: > 0.

    Returns:
        scalar in nats, the same on every worker: the mean over all rows of all views
        as anchors. Where an anchor has several partners, the sum over them, each
        against all other rows.
    """
    n = len(views[0])
    everyone = torch.cat([all_gather(z) for z in views])  # [VWN, D]
    total = len(everyone) // len(views)
    first = rank() * n + torch.arange(n, device=everyone.device)  # own, of one view
    start = total * torch.arange(len(views), device=everyone.device)
    own = start[:, None] + first  # [V, N]
    logits = products(torch.cat(views), everyone) / temperature  # [VN, VWN]
    # A view is not its own negative.
    itself = F.one_hot(own.flatten(), num_classes=len(everyone)).bool()
    logits = logits.masked_fill(itself, -torch.inf)
    partners = [own.roll(-away, dims=0).flatten() for away in range(1, len(views))]
    losses = [F.cross_entropy(logits, partner) for partner in partners]
    return all_mean(torch.stack(losses).sum())


class SimCLR(Objective):
    """NT-Xent between the projections of two views.

    Args:
        encoder: trained.
        projector: builds the head from the number of features.
        temperature: of the softmax, > 0.
    """

    has_distribution = True

    def __init__(
        self,
        *,
        encoder: nn.Module,
        projector: Callable[[int], nn.Module],
        temperature: float,
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        self.encoder = encoder
        self.projector = projector(width_of(encoder, "num_features"))
        self.temperature = temperature

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        a, b = batch.views
        # One pass for both views: batch norm sees 2N images, as in the paper's code.
        z = F.normalize(self.projector(self.encoder(torch.cat([a, b]))).float(), dim=1)
        za, zb = z.chunk(2)
        loss = nt_xent(za, zb, temperature=self.temperature)
        similarity = all_mean((za * zb).sum(1).mean())
        return report(loss, {"view_similarity": similarity})

    def distribution(self, h: Tensor, *, anchors: int, temperature: float) -> Tensor:
        """Over the anchors of the global batch; see `Objective.distribution`."""
        z = F.normalize(self.projector(h).float(), dim=1)
        return products(z, all_gather(z[:anchors])) / temperature
