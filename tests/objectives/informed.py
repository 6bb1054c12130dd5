"""Small objectives of worst-case mutual information."""

from functools import partial
from typing import Any

from rrl_dist.attacks.balls import Linf
from rrl_dist.models.critics import GlobalCritic, LocalCritic
from rrl_dist.models.encoder import Encoder
from rrl_dist.objectives.worst_case_mi import WorstCaseMI

EPS = 8 / 255
# Every estimator, clean images too, and as released.
INFORMED: dict[str, dict[str, Any]] = {
    "worst_case_mi": {},
    "worst_case_mi by nce": {"estimator": "nce", "weight": 0.5},
    "worst_case_mi by jsd": {"estimator": "jsd"},
    "worst_case_mi as released": {"faithful": True},
    "worst_case_mi by nce as released": {"estimator": "nce", "faithful": True},
}


def informed(encoder: Encoder, *, sync_bn: bool = True, **changes: Any) -> WorstCaseMI:
    """Around an encoder, with small critics."""
    settings: dict[str, Any] = {
        "local": partial(
            LocalCritic,
            width=4,
            grid=8,
            mean=[0.5, 0.4, 0.3],
            std=[0.2, 0.2, 0.3],
            sync_bn=sync_bn,
        ),
        "whole": partial(GlobalCritic, sync_bn=sync_bn),
        "embedding": 8,
        "estimator": "dv",
        "weight": 1.0,
        "faithful": False,
        "ball": Linf(EPS),
        "steps": 3,
        "relative_step": 0.25,
        "seed": 0,
    }
    return WorstCaseMI(encoder=encoder, **{**settings, **changes})
