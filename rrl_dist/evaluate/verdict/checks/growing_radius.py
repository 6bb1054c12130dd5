"""With the radius, accuracy falls, and to zero.

Athalye et al. 2018, arXiv:1802.00420, section 3.1: unbounded attacks reach every image,
and a larger bound never spares one. Carlini et al. 2019, arXiv:1902.06705, ask for the
radius at which accuracy is 0.
"""

import numpy as np

from rrl_dist.core.aggregate import Proportion
from rrl_dist.core.exact import exact
from rrl_dist.evaluate.verdict.evidence import Evidence, Flags
from rrl_dist.evaluate.verdict.finding import Finding, Level, counted, surely_above

# Of right images, those that PGD leaves right in a ball that holds every image. Images
# of other classes are in it, so each one is a failure of the attack.
SUSPECT, FAIL = 0.01, 0.05
# Of right images, those that the suite's attack breaks at one radius of the curve and
# not at a larger one. The steps grow with the radius, so a few are passed by.
RETURN_SUSPECT, RETURN_FAIL = 0.05, 0.2


def check(evidence: Evidence) -> Finding | None:
    """Of the probes, and of the suite's curve where it has one."""
    probes, right = evidence.probes, sum(evidence.probes.right)
    if not probes.radii or right == 0:
        return None
    share = exact(sum(n == len(probes.radii) for n in probes.left), right)
    level = surely_above(share, suspect=SUSPECT, fail=FAIL)
    told = (
        f"PGD leaves {counted(share)} right images right in a ball that holds every "
        "image"
    )
    figures = {"share": share}
    if evidence.curve is not None and evidence.right.any():
        back = figures["returns"] = _returns(evidence.curve[:, evidence.right])
        told += f"; {counted(back)} are broken at one radius and right at a larger one"
        other = surely_above(back, suspect=RETURN_SUSPECT, fail=RETURN_FAIL)
        level = Level(max(level, other))
    return Finding(
        level,
        told,
        "more steps and restarts, and suite=autoattack",
        figures,
        {
            "suspect": SUSPECT,
            "fail": FAIL,
            "returns_suspect": RETURN_SUSPECT,
            "returns_fail": RETURN_FAIL,
        },
    )


def _returns(broken: Flags) -> Proportion:
    """broken: [radii, N] by growing radius -> share of the N images that are right at
    one after they were broken at a smaller."""
    before = np.logical_or.accumulate(broken, axis=0)
    back = (before & ~broken).any(0)
    return exact(int(back.sum()), broken.shape[1])
