"""Asynchronous successive halving, in the variant that ends trials and pauses none.

Li et al. 2018, arXiv:1810.05934, with the cut of Ray Tune's AsyncHyperBandScheduler: at
each rung a trial has to reach the 1 - 1/eta quantile of those that were there before,
so that about one in eta goes on. It claims nothing of the trials that it ends: a value
that falls short by one image falls short.
"""

import numpy as np

from rrl_dist.core.errors import UserError
from rrl_dist.tune.rules import Look

_ROUNDING = 1e-9  # of the quantile: a trial that equals it goes on


class Asha:
    """See the text above. Who comes first to a rung goes on; nobody waits for others.

    The rungs are at grace * eta^k steps, k = 0, 1, 2, ... A look counts at the highest
    rung that it reached, if the trial has no value there yet.

    Args:
        grace: steps of the lowest rung, at least 1. Nobody ends before it.
        eta: above 1; one in eta goes on, and rungs are eta times apart.

    Raises:
        UserError: if grace or eta is out of its range.
    """

    def __init__(self, *, grace: int, eta: float) -> None:
        if grace < 1:
            raise UserError(f"asha has grace={grace}; set it to 1 step or more")
        if not eta > 1:
            raise UserError(f"asha has eta={eta}; set it above 1, such as 3")
        self.grace, self.eta = grace, eta
        self._rungs: dict[int, dict[int, float]] = {}  # k -> trial -> value
        self._said: dict[tuple[int, int], str | None] = {}

    def look(self, trial: int, look: Look) -> str | None:
        """See `Rule`."""
        key = (trial, look.step)
        if key not in self._said:
            self._said[key] = self._judge(trial, look)
        return self._said[key]

    def ended(self, trial: int, final: Look | None) -> None:
        """See `Rule`."""
        if final is not None:
            self.look(trial, final)  # too late to end it

    def forget(self, trial: int) -> None:
        """See `Rule`."""
        for rung in self._rungs.values():
            rung.pop(trial, None)

    def _judge(self, trial: int, look: Look) -> str | None:
        if look.step < self.grace:
            return None
        k = 0
        while self.grace * self.eta ** (k + 1) <= look.step:
            k += 1
        rung = self._rungs.setdefault(k, {})
        if trial in rung:
            return None
        before = list(rung.values())
        rung[trial] = look.value
        if not before:
            return None
        cut = float(np.quantile(before, 1 - 1 / self.eta))
        if look.value >= cut - _ROUNDING:
            return None
        return (
            f"at step {look.step} {_percent(look.value)} is below the cut of "
            f"{len(before)} others at this rung, {_percent(cut)}"
        )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
