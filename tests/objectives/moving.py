"""Steps of small objectives with all that follows a step, on this worker's share."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from rrl_dist.core.batch import Batch
from rrl_dist.objectives.byol import BYOL
from rrl_dist.objectives.moco import MoCo
from rrl_dist.objectives.objective import Objective
from rrl_dist.training.loop import after_step
from tests.training.strategies import Run

SPAN = 8  # steps of a run, for the momentum's schedule


class Moving(Run):
    """A `Run` that calls `after_step` as the loop does; `done` counts its steps."""

    done = 0

    def update(self, outer: Batch) -> float:
        loss = super().update(outer)
        self.done += 1
        after_step(self.objective, self.strategy, self.done / SPAN)
        return loss


def moved(
    name: str,
    kind: str,
    steps: int,
    state: dict[str, Any] | None,
    options: dict[str, Any],
) -> tuple[list[float], dict[str, Any]]:
    """Losses of some steps from a state, and the state then, its `step` included."""
    # What comes from another process is shared with it, and optimizers keep it.
    run = Moving(name, kind, state=deepcopy(state), **options)
    run.done = 0 if state is None else int(state["step"])
    losses = [run.step() for _ in range(steps)]
    return losses, {**run.strategy.state(), "step": run.done}


def slow_copy(objective: Objective) -> torch.nn.Module:
    """An objective's moving average."""
    assert isinstance(objective, BYOL | MoCo)
    return objective.target if isinstance(objective, BYOL) else objective.slow


def queues(name: str, steps: int) -> tuple[Tensor, int]:
    """MoCo's queues after some steps under DDP, and where the oldest keys are."""
    run = Moving(name, "ddp", lr=0.01)
    for _ in range(steps):
        run.step()
    assert isinstance(run.objective, MoCo)
    return run.objective.queues.clone(), int(run.objective.oldest)


def outside_gathered(name: str, kind: str) -> str:
    """What `after_step` says where the strategy was not asked for whole weights."""
    run = Run(name, kind)
    run.step()
    try:
        run.objective.after_step(0.5)
    except AssertionError as error:
        return str(error)
    return "nothing"
