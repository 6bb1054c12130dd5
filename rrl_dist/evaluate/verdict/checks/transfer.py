"""Images made on another classifier break no more than the model's own.

Athalye et al. 2018, arXiv:1802.00420, section 3.1; Carlini et al. 2019,
arXiv:1902.06705, ask each evaluation for them. Only of suites with surrogates.
"""

from rrl_dist.core.exact import exact
from rrl_dist.evaluate.verdict.evidence import Evidence
from rrl_dist.evaluate.verdict.finding import Finding, Level, counted, surely_above

# Of right images, those that are broken by images of others and not by the model's own
# gradients: as for attacks without gradients after the cross-entropy alone.
SUSPECT, FAIL = 0.02, 0.05


def check(evidence: Evidence) -> Finding | None:
    """Of the suite's attacks at the full radius."""
    theirs, own, right = evidence.transferred, evidence.white, evidence.right
    if theirs is None or own is None or not right.any():
        return None
    only = int((right & theirs & ~own).sum())
    others = int((right & own & ~theirs).sum())
    share = exact(only, int(right.sum()))
    level, figures = surely_above(share, suspect=SUSPECT, fail=FAIL), {"share": share}
    if only + others:
        won = figures["won"] = exact(only, only + others)
        level = Level.FAIL if won.low > 0.5 else level
    return Finding(
        level,
        f"{counted(share)} right images are broken by images of others alone, and "
        f"{others:,} by the model's own alone",
        "suite=autoattack, and surrogates that are nearer to the model",
        figures,
        {"suspect": SUSPECT, "fail": FAIL, "won": 0.5},
    )
