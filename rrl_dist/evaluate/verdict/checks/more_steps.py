"""With steps, the loss rises.

Athalye et al. 2018, arXiv:1802.00420, section 3.1: one-step attacks that are better
than iterative ones. Carlini et al. 2019, arXiv:1902.06705, ask for loss against steps.
"""

from rrl_dist.core.aggregate import mean_of
from rrl_dist.core.exact import exact
from rrl_dist.evaluate.verdict.evidence import Evidence
from rrl_dist.evaluate.verdict.finding import (
    Finding,
    Level,
    counted,
    surely_above,
    surely_below,
)
from rrl_dist.evaluate.verdict.probes import STEPS

# Of right images, those whose loss is larger within the steps than at the image itself:
# any slope that is followed raises it.
RISES_SUSPECT, RISES_FAIL = 0.9, 0.5
# Of right images, those whose loss is larger after one step as long as the radius than
# within the shorter ones.
OUTDONE_SUSPECT, OUTDONE_FAIL = 0.1, 0.5
# A difference below this share of the loss is none.
_SAME = 1e-3


def check(evidence: Evidence) -> Finding | None:
    """Of PGD from the probes' images themselves."""
    probes = evidence.probes
    count = len(probes.many)
    if count == 0:
        return None
    pairs = list(zip(probes.clean, probes.one, probes.many, strict=True))
    rises = exact(sum(many > clean * (1 + _SAME) for clean, _, many in pairs), count)
    outdone = exact(sum(one > many * (1 + _SAME) for _, one, many in pairs), count)
    level = max(
        surely_below(rises, suspect=RISES_SUSPECT, fail=RISES_FAIL),
        surely_above(outdone, suspect=OUTDONE_SUSPECT, fail=OUTDONE_FAIL),
    )
    clean, one, many = map(mean_of, (probes.clean, probes.one, probes.many))
    return Finding(
        Level(level),
        f"within {STEPS} steps the loss rises at {counted(rises)} right images, and "
        f"one step does better at {counted(outdone)}; its mean is {clean.value:.3g}, "
        f"after one step {one.value:.3g}, within {STEPS} {many.value:.3g}",
        "smaller and more steps from random starts, and suite=autoattack",
        {"rises": rises, "outdone": outdone, "clean": clean, "one": one, "many": many},
        {
            "rises_suspect": RISES_SUSPECT,
            "rises_fail": RISES_FAIL,
            "outdone_suspect": OUTDONE_SUSPECT,
            "outdone_fail": OUTDONE_FAIL,
        },
    )
