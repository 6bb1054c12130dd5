"""An attack that sees less breaks no more.

Athalye et al. 2018, arXiv:1802.00420, section 3.1: black-box attacks that are better
than white-box ones. AutoAttack's authors' code (checks.py, check_square_sr) tells of
Square breaking more than 0.2 % of the images after all others.
"""

import numpy as np

from rrl_dist.core.exact import exact
from rrl_dist.evaluate.verdict.evidence import Evidence, Flags
from rrl_dist.evaluate.verdict.finding import Finding, Level, counted, surely_above

# Of right images, those that are broken without gradients and not along them. After a
# loss that no scale of logits hides, AutoAttack's own flag. The cross-entropy alone
# misses some percent of networks that hide nothing, too: APGD leaves 11 of the 126
# right images of docs/attacks.md's network, of which a blind search finds a few.
SUSPECT_AFTER_ALL, SUSPECT, FAIL = 0.002, 0.02, 0.05


def check(evidence: Evidence) -> Finding | None:
    """Of the suite's attacks at the full radius, or of Square on the probes' images."""
    if evidence.white is None:
        return None
    black, among, alone = evidence.black, evidence.right, evidence.alone
    if black is None:
        if evidence.probes.square is None:
            return None
        black, among, alone = *_of_probes(evidence), True
    if not among.any():
        return None
    return compared(
        among & black, among & evidence.white, among, evidence.scale_free, alone=alone
    )


def compared(
    black: Flags, white: Flags, among: Flags, scale_free: bool, *, alone: bool
) -> Finding:
    """[N] each: broken without gradients and along them, of the right images `among`;
    `alone`, whether both were asked about all of these."""
    only, others = int((black & ~white).sum()), int((white & ~black).sum())
    share = exact(only, int(among.sum()))
    suspect = SUSPECT_AFTER_ALL if scale_free else SUSPECT
    level = surely_above(share, suspect=suspect, fail=FAIL)
    figures = {"share": share}
    told = f"{counted(share)} right images are broken without gradients alone"
    if alone and only + others:
        # Of images that one kind broke and the other did not: the sign test.
        won = exact(only, only + others)
        figures["won"] = won
        told += f", and {others:,} along gradients alone"
        level = Level.FAIL if won.low > 0.5 else level
    return Finding(
        level,
        told,
        "suite=autoattack; after it, one with more queries of Square and restarts",
        figures,
        {"suspect": suspect, "fail": FAIL, "won": 0.5},
    )


def _of_probes(evidence: Evidence) -> tuple[Flags, Flags]:
    """[N]: what Square broke of the probes' images, and which of these are right."""
    probes = evidence.probes
    right = np.array(probes.index)[np.array(probes.right, dtype=bool)]
    broken = right[np.array(probes.square, dtype=bool)]
    asked = np.isin(evidence.index, right) & evidence.right
    return np.isin(evidence.index, broken), asked
