"""The rule of a sweep, of its settings."""

import math
from collections.abc import Mapping
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.tune.aims import Aims
from rrl_dist.tune.asha import Asha
from rrl_dist.tune.intervals import Intervals
from rrl_dist.tune.rules import Both, Never, Rule

_KINDS = ("both", "asha", "intervals", "none")


def rule_of(
    sweep: Mapping[str, Any], aims: Aims, *, probe_every: int, steps: int
) -> Rule:
    """What ends trials early.

    Probes measure robust accuracy, so a sweep with other aims or with floors ends none.

    Args:
        sweep: `stop`, `grace` (a share of the steps, up to the next probe), `eta`,
            `alpha`, `trials`.
        aims: of the sweep.
        probe_every: steps between two probes; 0 for none.
        steps: of a whole trial.

    Raises:
        UserError: a setting that cannot be.
    """
    kind, grace = sweep["stop"], sweep["grace"]
    if kind not in _KINDS:
        raise UserError(f"sweep.stop={kind}; choose {', '.join(_KINDS)}")
    if not 0 <= float(grace) <= 1:
        raise UserError(f"sweep.grace={grace}; give a share of the training, 0 to 1")
    on_the_way = (steps - 1) // probe_every if probe_every else 0
    if kind == "none" or not on_the_way or not ends_early(aims):
        return Never()
    # Steps of rungs are those of probes: eta may be no whole number of them.
    before = max(math.ceil(float(grace) * steps / probe_every), 1)
    first = before * probe_every
    asha = Asha(grace=first, eta=float(sweep["eta"]))
    looks = int(sweep["trials"]) * max(on_the_way + 2 - before, 1)
    intervals = Intervals(alpha=float(sweep["alpha"]), looks=looks, grace=first)
    if kind == "both":
        return Both(rules=(intervals, asha))
    return asha if kind == "asha" else intervals


def ends_early(aims: Aims) -> bool:
    """Whether probes on the way speak of what a sweep is after: of floors they do not,
    and a trial that is robust and nothing else would end those that are both."""
    return [aim.measure for aim in aims.aims] == ["robust"] and not aims.floors
