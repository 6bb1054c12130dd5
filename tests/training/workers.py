"""What each worker of the tests of strategies does."""

from typing import Any

import torch
from torch import Tensor, nn

from rrl_dist.core.collectives import rank
from rrl_dist.models.sync_bn import SyncBatchNorm
from rrl_dist.training.buffers import average_buffers
from rrl_dist.training.optim import parameter_groups, set_learning_rate, sgd
from rrl_dist.training.strategies import TorchStrategy
from tests.objectives.harness import own_batch, small_objective

STEPS = 3
CPU = torch.device("cpu")


def wrapped(name: str, *, sync_bn: bool = True, **changes: Any) -> TorchStrategy:
    """A strategy around a small objective and plain SGD."""
    options = {"distributed": True, "precision": "fp32", "clip_grad": None, **changes}
    strategy = TorchStrategy(**options)
    objective = small_objective(name, sync_bn=sync_bn).train()
    groups = parameter_groups(objective, weight_decay=0.0, decay_norm_and_bias=True)
    optimizer = sgd(groups, momentum=0.0, nesterov=False)
    strategy.wrap(objective, optimizer, CPU)
    set_learning_rate(optimizer, 0.1)
    return strategy


def norms_of_gradients(name: str, with_inner: bool, sync_bn: bool) -> list[list[float]]:
    """Of three steps on one fixed outer batch, by parameter; then the buffers'."""
    strategy = wrapped(name, sync_bn=sync_bn)
    found: list[list[float]] = []

    def note(optimizer: Any, args: Any, kwargs: Any) -> None:
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        found.append([float(p.grad.norm()) for p in weights])

    strategy.optimizer.register_step_pre_hook(note)
    batch = own_batch(name)
    outer = strategy.objective.inner(batch)
    for _ in range(STEPS):
        if with_inner:
            strategy.objective.inner(batch)
        strategy.update(strategy.forward(outer)["loss"])
    buffers = [b.double().norm() for b in strategy.objective.buffers()]
    return [*found, [float(norm) for norm in buffers]]


def buffers_after_training(name: str) -> dict[str, Tensor]:
    """With local batch norm, which sees other images on each worker."""
    strategy = wrapped(name, sync_bn=False)
    for _ in range(2):
        outer = strategy.objective.inner(own_batch(name))
        strategy.update(strategy.forward(outer)["loss"])
    return dict(strategy.objective.named_buffers())


def averaged() -> dict[str, list[float]]:
    """Running statistics and other tensors that differ by rank, averaged."""
    module = nn.ModuleDict(
        {
            "moving": nn.BatchNorm1d(2),
            "frozen": nn.BatchNorm1d(2).eval(),
            "untracked": nn.BatchNorm1d(2, track_running_stats=False),
            "synchronized": SyncBatchNorm(2),
        }
    )
    module.register_buffer("constant", torch.tensor([float(rank())]))
    with torch.no_grad():
        for norm in module.values():
            norm.weight.fill_(rank())
            if norm.running_mean is not None:
                norm.running_mean.copy_(torch.tensor([1.0, 10.0 * (rank() + 1)]))
                norm.running_var.fill_(rank())
                norm.num_batches_tracked.fill_(rank() + 5)
    average_buffers(module)
    return {k: v.reshape(-1).tolist() for k, v in module.state_dict().items()}
