"""What each worker of the tests of collectives does."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rrl_dist.core.collectives import (
    all_gather,
    all_mean,
    all_sum,
    any_worker,
    barrier,
    rank,
    world_size,
)

ROWS = 8


def global_rows() -> Tensor:
    return torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0)).double()


def own_rows() -> Tensor:
    share = ROWS // world_size()
    return global_rows()[rank() * share : (rank() + 1) * share]


def weight() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 2, generator=generator).double().requires_grad_()


def summed(y: Tensor) -> Tensor:
    """A global loss that is not linear in the sum."""
    return all_sum(y.sum(0)).pow(3).sum()


def averaged(y: Tensor) -> Tensor:
    return all_mean(y.square().mean(0)).log().sum()


def gathered(y: Tensor) -> Tensor:
    """Rows count by their place, so that their order matters."""
    everyone = all_gather(y)
    place = torch.arange(1, len(everyone) + 1).double()[:, None]
    return (everyone * place).tanh().sum() + (everyone @ everyone.T).pow(3).mean()


def gathered_transposed(y: Tensor) -> Tensor:
    """What is gathered is not contiguous in memory."""
    turned = (y @ y.new_tensor([[1.0, 2.0], [3.0, 4.0]])).T.contiguous().T
    everyone = all_gather(turned)
    return everyone.cumsum(0).sin().sum()


def contrasted(y: Tensor) -> Tensor:
    """Each worker has a loss of its own rows against all rows, as in NT-Xent."""
    own = (y @ all_gather(y).T).exp().sum(1).log()
    return all_mean(own.mean())


LOSSES = {
    function.__name__: function
    for function in (summed, averaged, gathered, gathered_transposed, contrasted)
}


def value_and_gradient(name: str) -> tuple[Tensor, Tensor]:
    """A global loss, and its parameter's gradient averaged as DDP averages it."""
    w = weight()
    loss = LOSSES[name](own_rows() @ w)
    (gradient,) = torch.autograd.grad(loss, w)
    if world_size() > 1:
        dist.all_reduce(gradient)
    return loss.detach(), gradient / world_size()


def raw_values() -> dict[str, Any]:
    """What the collectives return on rank + 1, and that they leave it as it was."""
    x = torch.full((2,), float(rank() + 1))
    found = {
        "sum": all_sum(x).tolist(),
        "mean": all_mean(x).tolist(),
        "gather": all_gather(x).tolist(),
        "input": x.tolist(),
        "rank": rank(),
        "world_size": world_size(),
        "one": any_worker(rank() == world_size() - 1, "cpu"),
        "none": any_worker(False, "cpu"),
    }
    barrier()
    return found
