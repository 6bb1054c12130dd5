"""Our AutoAttack and its authors' code, component by component, on one case."""

import torch
from pyautoattack.autoattack import AutoAttack as Official
from torch import Tensor

from rrl_dist.attacks import Details
from rrl_dist.attacks.margins import misclassified
from rrl_dist.attacks.versions import AutoAttack
from tests.attacks.three_models import NORMS, Case, seeded

COMPONENTS = ["apgd-ce", "apgd-t", "fab-t", "square"]
MICRO_BATCH = 32


def right(case: Case, x_adv: Tensor) -> Tensor:
    """One judge of both codes' images, which must be in the ball."""
    distance = case.ball.distance(x_adv, case.x)
    # The authors' images may be a few roundings outside.
    assert (distance <= case.ball.eps * (1 + 1e-4)).all()
    with torch.no_grad():
        return ~misclassified(case.model(x_adv), case.y)


def ours_in_turn(details: Details) -> dict[str, Tensor]:
    left, after = ~details.stages[0].wrong, {}
    for stage in details.stages[1:]:
        left = left & ~stage.wrong
        after[stage.name] = left
    return after


def alone_ours(case: Case, name: str, index: Tensor | None = None) -> Tensor:
    suite = AutoAttack(
        version="standard", ball=case.ball, seed=0, micro_batch=MICRO_BATCH
    )
    (attack,) = (each for each in suite.attacks if each.name == name)
    return right(case, attack(case.model, case.x, case.y, index))


def alone_ours_besides(details: Details, case: Case, name: str) -> Tensor:
    """As `alone_ours`, after the same in its turn: an image's outcome depends on no
    other, so that only those which it was not asked about then are attacked now."""
    (stage,) = (each for each in details.stages if each.name == name)
    left, rest = ~stage.wrong, (stage.queries == 0).nonzero()[:, 0]
    others = case._replace(x=case.x[rest], y=case.y[rest])
    left[rest] = alone_ours(others, name, rest)
    return left


def official(case: Case, version: str = "standard") -> Official:
    norm = NORMS[case.ball.norm]
    return Official(case.model, norm=norm, eps=case.ball.eps, seed=0, version=version)


def perturbed(suite: Official, name: str, x: Tensor, y: Tensor) -> Tensor:
    """By one component, called as the authors' evaluation calls it."""
    suite.apgd.loss = "dlr" if name == "apgd-dlr" else "ce"
    suite.fab.targeted = name == "fab-t"
    if suite.fab.targeted:
        suite.fab.n_restarts = 1
    made = {"apgd-t": suite.apgd_targeted, "square": suite.square}
    attack = made.get(name, suite.fab if name.startswith("fab") else suite.apgd)
    attack.seed = 0
    with seeded(0), torch.no_grad():
        x_adv: Tensor = attack.perturb(x, y)
    return x_adv


def theirs_in_turn(case: Case, version: str = "standard") -> dict[str, Tensor]:
    suite, left, after = official(case, version), right(case, case.x), {}
    for name in suite.attacks_to_run:
        x_adv = case.x.clone()
        x_adv[left] = perturbed(suite, name, case.x[left], case.y[left])
        left = left & right(case, x_adv)
        after[name] = left
    return after


def alone_theirs(case: Case, name: str) -> Tensor:
    return right(case, perturbed(official(case), name, case.x, case.y))


def told(name: str, ours: Tensor, theirs: Tensor) -> str:
    """Counts, and the samples that one code breaks and the other does not."""
    first = (theirs & ~ours).nonzero()[:, 0].tolist()
    second = (ours & ~theirs).nonzero()[:, 0].tolist()
    counts = f"{int(ours.sum())} right, official {int(theirs.sum())}"
    return f"{name}: {counts}; only ours breaks {first}, only the official {second}"
