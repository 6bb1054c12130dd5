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


def nt_xent(za: Tensor, zb: Tensor, *, temperature: float) -> Tensor:
    """Normalized temperature-scaled cross-entropy over the global batch.

    Args:
        za, zb: [N, D] on each worker, unit rows; row i of both shows the same sample.
        temperature: > 0.

    Returns:
        scalar in nats, the same on every worker: the mean over the 2 * W * N anchors.
    """
    n = len(za)
    everyone = torch.cat([all_gather(za), all_gather(zb)])  # [2WN, D]
    total = len(everyone) // 2
    first = rank() * n + torch.arange(n, device=za.device)  # own rows of view a
    own = torch.cat([first, first + total])
    logits = products(torch.cat([za, zb]), everyone) / temperature  # [2N, 2WN]
    # A view is not its own negative.
    itself = F.one_hot(own, num_classes=2 * total).bool()
    logits = logits.masked_fill(itself, -torch.inf)
    partner = torch.cat([first + total, first])
    return all_mean(F.cross_entropy(logits, partner))


class SimCLR(Objective):
    """NT-Xent between the projections of two views.

    Args:
        encoder: trained.
        projector: builds the head from the number of features.
        temperature: of the softmax, > 0.
    """

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
