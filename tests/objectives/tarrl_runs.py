"""Small objectives with TARRL's term, and what its attack sees."""

from typing import Any

import torch
from torch import Tensor

from rrl_dist.attacks.balls import Linf
from rrl_dist.objectives.adversarial import Adversarial
from rrl_dist.objectives.objective import Objective
from rrl_dist.objectives.ramp import Ramp
from rrl_dist.objectives.tarrl import TARRL
from tests.objectives.apart import literal_distances
from tests.objectives.harness import small_objective

EPS = 8 / 255
BALL = Linf(EPS)
NOW = Ramp(start=0.0, end=0.0)


def around(base: Objective, **changed: Any) -> TARRL:
    """TARRL in train mode."""
    options: dict[str, Any] = {
        "weight": 3.0,
        "ramp": NOW,
        "distance": "l2",
        "ball": BALL,
        "steps": 3,
        "relative_step": 0.25,
        "seed": 0,
    }
    made = TARRL(base=base, **{**options, **changed})
    made.train()
    return made


def adversarial_inside() -> Adversarial:
    base = small_objective("byol")
    return Adversarial(
        base=base, attacked=2, ball=BALL, steps=2, relative_step=0.5, seed=1
    )


@torch.no_grad()
def distances(objective: TARRL, x: Tensor, moved: Tensor, distance: str) -> Tensor:
    """As the attack sees them, [N]."""
    objective.eval()
    h, h_moved = objective.encoder(x), objective.encoder(moved)
    objective.train()
    return literal_distances(distance, h_moved, h)
