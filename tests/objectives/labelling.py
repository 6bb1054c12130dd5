"""Small objectives that learn from labels: attacked, and anchored."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rrl_dist.attacks.balls import Linf
from rrl_dist.core.batch import Batch
from rrl_dist.models.encoder import Encoder
from rrl_dist.models.heads import linear_head
from rrl_dist.objectives.anchored import Anchored
from rrl_dist.objectives.labelled import Labelled
from rrl_dist.objectives.objective import Frozen, Objective
from rrl_dist.objectives.pgd_at import PGDAT
from rrl_dist.objectives.ramp import Ramp
from rrl_dist.objectives.supervised import Supervised
from rrl_dist.objectives.trades import TRADES

EPS = 8 / 255
CLASSES = 3
# A linear head, and batch norm that is trained where the encoder is.
LINEAR: dict[str, Any] = {"head": linear_head, "freeze_batch_norm": False}
ATTACK: dict[str, Any] = {
    "ball": Linf(EPS),
    "steps": 3,
    "relative_step": 0.25,
    "seed": 0,
}
MAKERS: dict[str, Callable[..., Labelled]] = {
    "supervised": Supervised,
    "pgd_at": partial(PGDAT, **ATTACK),
    "trades": partial(TRADES, weight=6.0, start_std=0.001, **ATTACK),
}
# What each anchored one is around, and its form.
ANCHORED = {
    "anchored": ("supervised", "relations"),
    "anchored by cosine": ("trades", "cosine"),
}


def labelled(name: str, encoder: Encoder, **changes: Any) -> Labelled:
    """One of MAKERS around an encoder, which is trained unless `changes` say no."""
    settings = {"num_classes": CLASSES, "train_encoder": True, **LINEAR, **changes}
    return MAKERS[name](encoder=encoder, **settings)


def anchored(base: Objective, before: Encoder, **changes: Any) -> Anchored:
    """Around a base, held near the encoder `before`."""
    settings: dict[str, Any] = {
        "weight": 2.0,
        "ramp": Ramp(start=0.0, end=1.0),
        "form": "cosine",
        "temperature": 0.2,
    }
    teacher = Frozen(before, sha256="before")
    return Anchored(base=base, teacher=teacher, **{**settings, **changes})


def raised(objective: Labelled, name: str, batch: Batch, x: Tensor) -> Tensor:
    """What its attack raises at x, in eval mode, as its own definition has it, [N]."""
    objective.eval()
    model = objective.trained()
    logits: Tensor = model(x).double()
    clean: Tensor = model(batch.views[0]).double()
    objective.train()
    log_q = logits - logits.exp().sum(1, keepdim=True).log()
    if name == "pgd_at":
        return -log_q[torch.arange(len(x)), batch.labels]
    log_p = clean - clean.exp().sum(1, keepdim=True).log()
    return (log_p.exp() * (log_p - log_q)).sum(1)
