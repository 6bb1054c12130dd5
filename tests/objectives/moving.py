"""Slow copies and queues of small objectives, after steps on this worker's share."""

import torch
from torch import Tensor

from rrl_dist.objectives.byol import BYOL
from rrl_dist.objectives.moco import MoCo
from rrl_dist.objectives.objective import Objective
from tests.objectives.harness import own_batch
from tests.training.strategies import Run


def slow_copy(objective: Objective) -> torch.nn.Module:
    """An objective's moving average."""
    assert isinstance(objective, BYOL | MoCo)
    return objective.target if isinstance(objective, BYOL) else objective.slow


def queues(name: str, steps: int) -> tuple[Tensor, int]:
    """MoCo's queues after some steps under DDP, and where the oldest keys are."""
    run = Run(name, "ddp", lr=0.01)
    for _ in range(steps):
        run.step()
    assert isinstance(run.objective, MoCo)
    return run.objective.queues.clone(), int(run.objective.oldest)


def outside_gathered(name: str, kind: str) -> str:
    """What `after_step` says where the strategy was not asked for whole weights."""
    run = Run(name, kind)
    run.update(run.inner(own_batch(name)))
    try:
        run.objective.after_step(0.5)
    except AssertionError as error:
        return str(error)
    return "nothing"
