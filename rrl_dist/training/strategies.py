"""How an optimizer step runs: alone, or with gradients averaged over workers.

The loop calls `inner` on the raw objective (an attack through a wrapped module breaks
silently: DDP rewrites batch norm buffers in its forward), and `forward` through here.
"""

import warnings
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import world_size
from rrl_dist.core.errors import UserError
from rrl_dist.models.sync_bn import SyncBatchNorm
from rrl_dist.objectives.objective import Objective

PRECISIONS = ("fp32", "bf16")


class Strategy(Protocol):
    """What the loop asks of a strategy."""

    def wrap(
        self, objective: Objective, optimizer: Optimizer, device: torch.device
    ) -> None:
        """Take the objective (already on `device`) and its optimizer."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision in which `inner` and `forward` run."""
        ...

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The objective's terms, through the wrapped module, under autocast."""
        ...

    def update(self, loss: Tensor) -> None:
        """Backward, clip, optimizer step, zeroed gradients, equal buffers."""


class TorchStrategy:
    """Plain torch: one worker, or DistributedDataParallel.

    Args:
        distributed: average gradients over workers with DDP.
        precision: "fp32", or "bf16" for autocast (weights stay float32).
        clip_grad: largest global L2 norm of the gradient; None for no limit.
    """

    def __init__(
        self, *, distributed: bool, precision: str, clip_grad: float | None
    ) -> None:
        if precision not in PRECISIONS:
            raise UserError(
                f"strategy.precision={precision}; choose {' or '.join(PRECISIONS)}"
            )
        self.distributed, self.precision = distributed, precision
        self.clip_grad = clip_grad

    def wrap(
        self, objective: Objective, optimizer: Optimizer, device: torch.device
    ) -> None:
        self.objective, self.optimizer, self.device = objective, optimizer, device
        self.engine: nn.Module = objective
        if not self.distributed and world_size() > 1:
            raise UserError(
                f"strategy=single has one worker, not {world_size()}; use strategy=ddp"
            )
        if self.distributed and dist.is_initialized():
            self.engine = _distributed(objective, device)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(
            self.device.type,
            dtype=torch.bfloat16,
            enabled=self.precision == "bf16",
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with self.autocast():
            return cast(dict[str, Tensor], self.engine(batch))

    def update(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        if self.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.distributed:
            average_buffers(self.objective)


def _distributed(objective: Objective, device: torch.device) -> nn.Module:
    with warnings.catch_warnings():
        # torch 2.14 renames broadcast_buffers; 2.11 does not know the new name.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            objective,
            device_ids=[device] if device.type == "cuda" else None,
            # Buffers are averaged after the step instead of before the forward; and
            # without this search DDP rebuilds its buckets after the first step,
            # which changes the order of sums on resume.
            broadcast_buffers=False,
            find_unused_parameters=True,
        )


@torch.no_grad()
def average_buffers(module: nn.Module) -> None:
    """Set batch norm's running statistics to their mean over workers, at once.

    Only where they move and are not the same on all workers anyway: averaging a
    constant may change its last digit.

    Otherwise workers with local batch norm attack different networks, and a resumed
    run, whose workers all load rank 0's buffers, is not the run that was killed.
    """
    if world_size() == 1:
        return
    buffers = [
        buffer
        for m in module.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
        and not isinstance(m, SyncBatchNorm)
        and m.training
        for buffer in (m.running_mean, m.running_var)
        if buffer is not None
    ]
    if not buffers:
        return
    flat = torch.cat([b.reshape(-1) for b in buffers])
    dist.all_reduce(flat)
    flat /= world_size()
    for buffer, part in zip(
        buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True
    ):
        buffer.copy_(part.view_as(buffer))
