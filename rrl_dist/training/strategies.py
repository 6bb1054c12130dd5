"""How an optimizer step runs: alone, or with gradients averaged over workers.

The loop calls `inner` on the raw objective (an attack through a wrapped module breaks
silently: DDP rewrites batch norm buffers in its forward, ZeRO-3 piles up gradients),
and `forward` through here.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import rank, world_size
from rrl_dist.core.errors import UserError
from rrl_dist.objectives.objective import Objective
from rrl_dist.training.buffers import average_buffers
from rrl_dist.training.checkpoint_parts import Part, on_host
from rrl_dist.training.precision import LossScale, autocast, check_clip, check_precision


class Strategy(Protocol):
    """What the loop asks of a strategy.

    Attributes:
        precision: one of `precision.PRECISIONS`.
        partitions_weights: whether a worker holds a part of the weights only, so that
            they are whole inside `gathered()` alone.
    """

    precision: str
    partitions_weights: bool

    def check(self, optimizer: Optimizer, workers: int) -> None:
        """Find what cannot work before a worker starts.

        Raises:
            UserError: naming what to change.
        """

    def wrap(
        self, objective: Objective, optimizer: Optimizer, device: torch.device
    ) -> None:
        """Take the objective (on `device`, with its weights) and its optimizer."""

    def load(self, state: dict[str, Any]) -> None:
        """After `wrap`: the whole state of all parts, but for the weights."""

    def raw(self) -> AbstractContextManager[Any]:
        """Where `inner` runs on the raw objective: in the strategy's precision."""
        ...

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The objective's terms, through the wrapped module, under autocast."""
        ...

    def update(self, loss: Tensor) -> None:
        """Backward, clip, optimizer step, zeroed gradients, equal buffers.

        Raises:
            FloatingPointError: the strategy left the step out because the gradient was
                not finite, and a smaller loss scale would not help.
        """

    def gathered(self, *, write: bool = False) -> AbstractContextManager[Any]:
        """On all workers: inside, the objective's weights are whole.

        Args:
            write: whether the weights are changed inside, alike on all workers.
        """
        ...

    def held(self) -> dict[str, Tensor]:
        """The objective's weights and buffers, as this worker has them: of weights that
        are cut up, its pieces."""
        ...

    def part(self) -> Part | None:
        """A copy of what this worker adds to a checkpoint; None if nothing.

        The parts together are all that the next step depends on: "objective" (weights
        and buffers) and "optimizer" as their own `state_dict` gives them in one
        process, whatever the strategy and the number of workers; and "loss_scale".
        """
        ...

    def close(self) -> None:
        """Let go of the objective; weights that were cut up stay so."""


class TorchStrategy:
    """Plain torch: one worker, or DistributedDataParallel.

    Args:
        distributed: average gradients over workers with DDP.
        precision: "fp32"; "bf16" or "fp16" for autocast (weights stay float32).
        clip_grad: largest global L2 norm of the gradient; None for no limit.
    """

    partitions_weights = False

    def __init__(
        self, *, distributed: bool, precision: str, clip_grad: float | None
    ) -> None:
        check_clip(clip_grad)
        self.distributed, self.precision = distributed, precision
        self.clip_grad = clip_grad
        self.loss_scale = LossScale() if precision == "fp16" else None

    def check(self, optimizer: Optimizer, workers: int) -> None:
        if not self.distributed and workers > 1:
            raise UserError(
                f"strategy=single has one worker, not {workers}; use strategy=ddp"
            )

    def wrap(
        self, objective: Objective, optimizer: Optimizer, device: torch.device
    ) -> None:
        self.check(optimizer, world_size())
        check_precision(self.precision, gpu=device.type == "cuda")
        self.objective, self.optimizer, self.device = objective, optimizer, device
        self.engine: nn.Module = objective
        if self.distributed and dist.is_initialized():
            self.engine = _distributed(objective, device)

    def load(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.loss_scale is not None and state["loss_scale"] is not None:
            self.loss_scale.load(state["loss_scale"])

    def raw(self) -> AbstractContextManager[Any]:
        return autocast(self.precision, self.device)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with self.raw():
            return cast(dict[str, Tensor], self.engine(batch))

    def update(self, loss: Tensor) -> None:
        scale = self.loss_scale
        (loss if scale is None else loss * scale.value).backward()  # type: ignore[no-untyped-call]
        finite = scale is None or scale.unscale(self.objective.parameters())
        if scale is not None:
            scale.note(finite=finite)
        if finite:
            if self.clip_grad is not None:
                nn.utils.clip_grad_norm_(self.objective.parameters(), self.clip_grad)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.distributed:
            average_buffers(self.objective)

    def gathered(self, *, write: bool = False) -> AbstractContextManager[Any]:
        return nullcontext()

    def held(self) -> dict[str, Tensor]:
        return self.objective.state_dict()

    def part(self) -> Part | None:
        if rank() != 0:
            return None
        scale = self.loss_scale
        state = {
            "objective": self.held(),
            "optimizer": self.optimizer.state_dict(),
            "loss_scale": None if scale is None else scale.state(),
        }
        return Part(on_host(state), number=0, of=1)

    def close(self) -> None:
        self.engine = self.objective


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
