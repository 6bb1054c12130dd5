"""What each worker of the tests of batch norm does."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rrl_dist.core.collectives import rank, world_size
from rrl_dist.models.sync_bn import convert_sync_bn

ROWS = 8
CHANNELS = 3


@dataclass(frozen=True)
class Case:
    """A batch norm and its input; `mean` is that of the input."""

    dims: int
    mean: float = 0.5
    momentum: float | None = 0.1
    affine: bool = True
    tracked: bool = True

    def norm(self) -> Any:
        """With weights and buffers that are not the initial ones."""
        kind = nn.BatchNorm1d if self.dims < 4 else nn.BatchNorm2d
        made = kind(
            CHANNELS,
            momentum=self.momentum,
            affine=self.affine,
            track_running_stats=self.tracked,
        )
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for tensor in (made.weight, made.bias, made.running_mean, made.running_var):
                if tensor is not None:
                    tensor.copy_(torch.rand(CHANNELS, generator=generator) + 0.5)
        return made

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Input of two steps, and what each output counts in the loss."""
        generator = torch.Generator().manual_seed(2)
        shape = (2, ROWS, CHANNELS, 5, 4)[: self.dims + 1]
        scale = torch.linspace(0.5, 2, ROWS).view(ROWS, *[1] * (self.dims - 1))
        x = torch.randn(shape, generator=generator) * scale + self.mean
        return x, torch.randn(shape, generator=generator)


CASES = {
    "features": Case(2),
    "maps": Case(4),
    "sequences": Case(3),
    "large mean": Case(4, mean=300.0),
    "cumulative": Case(4, momentum=None),
    "no weight": Case(4, affine=False),
    "no buffers": Case(4, tracked=False),
}


def two_steps(name: str, *, double: bool = False) -> dict[str, Tensor]:
    """Two training steps and an evaluation on this worker's share.

    The loss is the sum over all workers of theirs, so a worker's input gradient is its
    share of the global one, and its parameter gradients are summands.
    """
    case = CASES[name]
    norm = case.norm()
    if world_size() > 1:
        norm = convert_sync_bn(norm)
    norm.train()
    xs, counts = case.tensors()
    if double:
        norm, xs, counts = norm.double(), xs.double(), counts.double()
    share = ROWS // world_size()
    mine = slice(rank() * share, (rank() + 1) * share)
    x = xs[:, mine].contiguous().requires_grad_()
    outputs = torch.stack([norm(x[step]) for step in range(2)])
    (outputs * counts[:, mine]).sum().backward()
    assert x.grad is not None
    found = {"y": outputs.detach(), "x": x.grad}
    found |= {k: p.grad for k, p in norm.named_parameters() if p.grad is not None}
    found |= dict(norm.named_buffers())
    if case.tracked:
        found["eval"] = norm.eval()(x[0]).detach()
    return found


def in_bf16() -> tuple[Tensor, Tensor, torch.dtype]:
    """Output on bf16 input, its float32 counterpart, and its dtype."""
    case = CASES["maps"]
    norm = convert_sync_bn(case.norm()).train()
    share = ROWS // world_size()
    x = case.tensors()[0][0, rank() * share : (rank() + 1) * share].bfloat16()
    y = norm(x)
    reference = convert_sync_bn(case.norm()).train()(x.float())
    return y.float().detach(), reference.detach(), y.dtype
