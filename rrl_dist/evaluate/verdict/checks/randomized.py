"""Answers that are others when the same images are shown again.

An attack that follows one draw is led astray by the next: Athalye et al. 2018,
arXiv:1802.00420, section 4.2, whose remedy is the mean gradient over many draws.
"""

from rrl_dist.evaluate.verdict.evidence import Evidence
from rrl_dist.evaluate.verdict.finding import Finding, Level

# Over the gap of the image's logits. Calls of one shape give the same bits on a CPU;
# sums in another order, as on a GPU, move float32 by some 1e-6 of the gap and half
# precision by some 1e-3.
SUSPECT, FAIL = 1e-5, 5e-3


def check(evidence: Evidence) -> Finding | None:
    """The largest change of a logit between two calls."""
    change = evidence.probes.change
    found = f"a logit changes by {change:.2g} of the logits' gap when asked again"
    limits = {"suspect": SUSPECT, "fail": FAIL}
    level, stronger = Level.OK, "suite=autoattack_rand, which averages 20 passes"
    if change > FAIL:
        level = Level.FAIL
    elif change > SUSPECT:
        level, stronger = Level.SUSPECT, f"deterministic kernels, or {stronger}"
    if level is Level.FAIL and evidence.averaged:
        level, found = Level.SUSPECT, f"{found}; attacks average several passes"
        stronger = "the same attacks with five times their passes (eot)"
    return Finding(level, found, stronger, {"change": change}, limits)
