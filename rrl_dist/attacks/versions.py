"""AutoAttack: attacks without a setting to choose, in turn.

Croce and Hein 2020, arXiv:2003.01690. Its components, their settings and their order
are the paper's and the authors' code's (fra31/auto-attack); the components are written
anew. An image is robust if none of them breaks it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from rrl_dist.attacks.apgd import APGD
from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.cascade import Cascade
from rrl_dist.attacks.fab import FAB
from rrl_dist.attacks.result import Attack
from rrl_dist.attacks.square import Square
from rrl_dist.core.errors import UserError

Components = dict[str, Callable[..., Attack]]

_APGD: dict[str, Any] = {"steps": 100, "restarts": 1, "targets": 1}
_FAB: dict[str, Any] = {"steps": 100, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
_TARGETS = 9  # classes that targeted attacks aim at
_PASSES = 20  # of a model that draws at random

_APGD_CE = partial(APGD, loss="ce", **_APGD)
_APGD_DLR = partial(APGD, loss="dlr", **_APGD)
_APGD_T = partial(APGD, loss="targeted-dlr", **{**_APGD, "targets": _TARGETS})
_FAB_T = partial(FAB, restarts=1, targets=_TARGETS, **_FAB)
# Windows shrink as if there were twice as many queries.
_SQUARE = partial(Square, queries=5000, schedule=10_000, p_init=0.8, restarts=1)


def _standard(ball: Ball) -> Components:
    """In L1 other numbers of restarts and targets (arXiv:2103.01208)."""
    few = ball.norm == "l1"
    return {
        "apgd_ce": partial(_APGD_CE, restarts=5) if few else _APGD_CE,
        "apgd_t": partial(_APGD_T, targets=5) if few else _APGD_T,
        "fab_t": _FAB_T,
        "square": _SQUARE,
    }


def _plus(ball: Ball) -> Components:
    return {
        "apgd_ce": partial(_APGD_CE, restarts=5),
        "apgd_dlr": partial(_APGD_DLR, restarts=5),
        "fab": partial(FAB, restarts=5, targets=None, **_FAB),
        "square": _SQUARE,
        "apgd_t": _APGD_T,
        "fab_t": _FAB_T,
    }


def _rand(ball: Ball) -> Components:
    return {
        "apgd_ce": partial(_APGD_CE, eot=_PASSES),
        "apgd_dlr": partial(_APGD_DLR, eot=_PASSES),
    }


VERSIONS: dict[str, Callable[[Ball], Components]] = {
    "standard": _standard,
    "plus": _plus,
    "rand": _rand,
}


class AutoAttack(Cascade):
    """A version of AutoAttack.

    Args:
        version: "standard"; "plus", with more restarts and untargeted attacks; or
            "rand", for models that draw at random: APGD alone, along the mean gradient
            of 20 passes.
        ball: the threat model.
        seed: of all components.
        micro_batch: images of every call of the model.
        in_turn: the authors' schedule: every target and restart waits for the one
            before it, and ends at its last step; the outcome is the same.

    Raises:
        UserError: there is no such version.
    """

    def __init__(
        self,
        *,
        version: str,
        ball: Ball,
        seed: int,
        micro_batch: int,
        in_turn: bool = False,
    ) -> None:
        if version not in VERSIONS:
            raise UserError(
                f"autoattack has version={version}; choose {'|'.join(VERSIONS)}"
            )
        super().__init__(
            label="autoattack" if version == "standard" else f"autoattack-{version}",
            attacks={
                name: partial(make, in_turn=in_turn)
                for name, make in VERSIONS[version](ball).items()
            },
            ball=ball,
            seed=seed,
            micro_batch=micro_batch,
        )
