"""Collectives that carry gradients, and vanish when there is one worker.

`torch.distributed.all_reduce` on a tensor of the graph gives the right value and a
gradient divided by the number of workers. These give the gradient of the global loss
after the workers' parameter gradients have been averaged, as DDP averages them.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of workers; 1 outside a process group."""
    return dist.get_world_size() if _distributed() else 1


def rank() -> int:
    """This worker's number; 0 outside a process group."""
    return dist.get_rank() if _distributed() else 0


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Every worker's result depends on every worker's x.
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Summed by all_reduce and cut: gloo has no reduce_scatter.
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.rows
        return total[start : start + ctx.rows]


def all_sum(x: Tensor) -> Tensor:
    """Sum over workers, with gradient; the identity when alone."""
    return cast(Tensor, _AllSum.apply(x)) if world_size() > 1 else x


def all_mean(x: Tensor) -> Tensor:
    """Mean over workers, with gradient; the identity when alone."""
    return all_sum(x) / world_size() if world_size() > 1 else x


def all_gather(x: Tensor) -> Tensor:
    """[N, ...] on each worker -> [W * N, ...] in rank order, with gradient."""
    return cast(Tensor, _AllGather.apply(x)) if world_size() > 1 else x


def barrier() -> None:
    """Wait for all workers."""
    if world_size() > 1:
        dist.barrier()


def any_worker(flag: bool, device: torch.device | str) -> bool:
    """Whether `flag` is true on at least one worker; the same answer on all."""
    return bool(largest(int(flag), device))


def largest(value: int, device: torch.device | str) -> int:
    """The largest of the workers' numbers; the same answer on all."""
    if world_size() == 1:
        return value
    votes = torch.tensor(value, device=device)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return int(votes.item())


def from_first(value: Any, device: torch.device | str) -> Any:
    """Rank 0's value, a plain one, on all workers."""
    if world_size() == 1:
        return value
    told = [value]
    dist.broadcast_object_list(told, src=0, device=torch.device(device))
    return told[0]
