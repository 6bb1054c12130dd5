"""Answers that have been through a softmax or a sigmoid, behind which gradients vanish.

AutoAttack's authors' code warns of the former (checks.py). Probabilities themselves are
refused before any attack; this is about what is made of them.
"""

from rrl_dist.evaluate.verdict.evidence import Evidence
from rrl_dist.evaluate.verdict.finding import Finding, Level

# Of rows' sums, far above half precision's rounding; sums of logits differ by far more.
SAME = 1e-2


def check(evidence: Evidence) -> Finding | None:
    """Fail where no answer is negative and all rows have one sum, as of a softmax times
    a number; suspect where all answers are in [0, 1], as of sigmoids."""
    probes = evidence.probes
    low, high = probes.smallest, probes.largest
    level, told = Level.OK, f"logits go from {low:.3g} to {high:.3g}"
    if low >= 0 and probes.sums < SAME and len(probes.index) > 1:
        level = Level.FAIL
        told = f"{told}, and all rows have one sum, as after a softmax"
    elif low >= 0 and high <= 1:
        level, told = Level.SUSPECT, f"{told}, as after a sigmoid"
    return Finding(
        level,
        told,
        "return what goes into the softmax or the sigmoid, then the same suite again",
        {"smallest": low, "largest": high, "sums": probes.sums},
        {"sums": SAME},
    )
