"""MoCo v2+: a view's key among a long queue of keys of other images.

He et al. 2020, arXiv:1911.05722, eq. 1 and algorithm 1; the head is of v2,
arXiv:2003.04297, and the loss symmetric, which makes it "v2+". With q the trained
network's unit projections, k those of a slow copy, and one queue of keys a view:

    loss = (InfoNCE(q_a; k_b, queue_b) + InfoNCE(q_b; k_a, queue_a)) / 2

After each step the slow copy moves, and the keys of all workers replace the oldest of
the queues, which so are the same on all. The paper shuffles images over the workers,
since their local batch norms would give a key away; here batch norm is over all workers
(`model.sync_bn=true`), and local ones are refused.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_gather, all_mean
from rrl_dist.core.errors import UserError
from rrl_dist.models.ema import Average
from rrl_dist.models.sync_bn import SyncBatchNorm
from rrl_dist.objectives.objective import Objective, report, width_of
from rrl_dist.objectives.terms import check_temperature, mean_cosine, products


def info_nce(q: Tensor, k: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """Cross-entropy of each query's own key among it and the queue.

    Args:
        q, k: [N, D] on each worker, unit rows; row i of both shows one sample.
        queue: [K, D], unit rows, the same on every worker.
        temperature: > 0.

    Returns:
        scalar in nats, the mean over the queries of all workers.
    """
    own = (q * k).sum(1, keepdim=True)  # [N, 1]
    logits = torch.cat([own.float(), products(q, queue)], dim=1) / temperature
    first = torch.zeros(len(q), dtype=torch.long, device=q.device)
    return all_mean(F.cross_entropy(logits, first))


class MoCo(Objective):
    """InfoNCE of two views against a slow copy's keys.

    Args:
        encoder: trained.
        projector: builds the head from the number of features; it has `out`.
        temperature: of the softmax, > 0.
        queue_size: keys of each view that are kept, at least 1.
        momentum_start, momentum_end: of the slow copy, in [0, 1].
    """

    moves_weights = True
    has_distribution = True
    queues: Tensor
    oldest: Tensor

    def __init__(
        self,
        *,
        encoder: nn.Module,
        projector: Callable[[int], nn.Module],
        temperature: float,
        queue_size: int,
        momentum_start: float,
        momentum_end: float,
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        if queue_size < 1:
            raise UserError(f"queue_size={queue_size}; set at least 1")
        self.encoder, self.temperature = encoder, temperature
        self.projector = projector(width_of(encoder, "num_features"))
        self.slow = Average(self._online(), start=momentum_start, end=momentum_end)
        noise = torch.randn(2, queue_size, width_of(self.projector, "out"))
        self.register_buffer("queues", F.normalize(noise, dim=2))  # [2, K, D]
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))
        self._keys: Tensor | None = None  # of this worker's last batch, [2, N, D]

    def check(self, workers: int) -> None:
        norms = (m for m in self.modules() if isinstance(m, _BatchNorm))
        if workers > 1 and not all(isinstance(m, SyncBatchNorm) for m in norms):
            raise UserError(
                f"MoCo would tell keys by the batch norm of one of {workers} workers; "
                "set model.sync_bn=true"
            )

    def _online(self) -> nn.Module:
        """What the slow copy follows."""
        return nn.Sequential(self.encoder, self.projector)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        # One pass a view, as in the paper: batch norm sees one view at a time.
        qa, qb = (_unit(self.projector(self.encoder(view))) for view in batch.views)
        ka, kb = (_unit(self.slow(view)) for view in batch.views)
        self._keys = torch.stack([ka, kb]).detach()
        loss_a = info_nce(qa, kb, self.queues[1], temperature=self.temperature)
        loss_b = info_nce(qb, ka, self.queues[0], temperature=self.temperature)
        return report((loss_a + loss_b) / 2, {"key_similarity": mean_cosine(qa, kb)})

    def distribution(self, h: Tensor, *, anchors: int, temperature: float) -> Tensor:
        """Over the keys in the second queue, which first views are compared with; see
        `Objective.distribution`."""
        return products(_unit(self.projector(h)), self.queues[1]) / temperature

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        self.slow.follow(self._online(), progress=progress)
        assert self._keys is not None, "a step has a forward"
        # [W * N, 2, D], in the order of the global batch.
        keys = all_gather(self._keys.transpose(0, 1)).transpose(0, 1)
        self._keys = None
        size = self.queues.shape[1]
        keys = keys[:, -size:]
        count = torch.arange(keys.shape[1], device=keys.device)
        self.queues[:, (self.oldest + count) % size] = keys
        self.oldest.add_(len(count)).remainder_(size)


def _unit(z: Tensor) -> Tensor:
    """[N, D] -> unit rows in float32."""
    return F.normalize(z.float(), dim=1)
