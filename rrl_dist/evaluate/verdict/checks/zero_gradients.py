"""Images at which the loss has no slope, so that an attack along it stands still.

AutoAttack's authors' code (fra31/auto-attack, checks.py) warns of the same. Athalye et
al. 2018, arXiv:1802.00420, section 3: gradients that are shattered, or that vanish.
"""

from rrl_dist.core.exact import exact
from rrl_dist.evaluate.verdict.evidence import Evidence
from rrl_dist.evaluate.verdict.finding import Finding, Level, counted, surely_above

# No image of a network whose attack works shows it: float32 loses the cross-entropy's
# gradient from a gap of logits of 104 on. One in a hundred may be such an outlier; one
# in twenty are five points of accuracy that nobody has tried to take.
SUSPECT, FAIL = 0.01, 0.05
_STRONGER = (
    "return logits without the factor or the step that hides the gradient (in its "
    "place a smooth one on the way back, arXiv:1802.00420), then suite=autoattack"
)


def check(evidence: Evidence) -> Finding | None:
    """Share of the right images whose cross-entropy has a gradient of exactly 0."""
    probes = evidence.probes
    right = sum(probes.right)
    if right == 0:
        return None
    if not probes.differentiable:
        told = "the logits carry no gradient to the images"
        return Finding(Level.FAIL, told, _STRONGER, {"share": exact(right, right)})
    share = exact(sum(probes.still), right)
    return Finding(
        surely_above(share, suspect=SUSPECT, fail=FAIL),
        f"the gradient is 0 at {counted(share)} right images",
        _STRONGER,
        {"share": share},
        {"suspect": SUSPECT, "fail": FAIL},
    )
