"""End a trial when it is sure that another one is more accurate at the same step.

All probes of a sweep attack the same n images, a random sample of all images there are.
By the accuracy of a trial at a step we mean the share of all images that the model it
has at that step gets right under the probe's attack. A probe counts the right ones of
the sample: given the model, which has not seen the sample, a binomial number. Its exact
interval (Clopper and Pearson 1934) misses the accuracy with probability at most
alpha / M, where M is the number of looks that all trials can have. So with probability
1 - alpha no interval misses (union bound: it needs no independence, and the looks share
their images). Then a trial whose upper end is under the lower end of another at the
same step is less accurate there, whoever of the others is looked at and whenever.

What it does not say:

- Nothing of later steps. A curve may cross another's, and may fall, so a trial is never
  measured against another step of the incumbent.
- Nothing of training seeds: it is about the models that were trained.
- Nothing exact if the settings of trials are chosen by what earlier ones scored on
  these images, as TPE does: their models then depend on the sample. Random search and a
  grid do not do that.

Which trial is right on which image is not in a `Look`. A paired test would need it, and
would be sharper.
"""

import math
from functools import cache

import numpy as np

from rrl_dist.core.errors import UserError
from rrl_dist.tune.rules import Look

_HALVINGS = 60  # of [0, 1]: below the rounding of a float


@cache
def exact_interval(right: int, count: int, *, error: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share: each end fails with probability at
    most error / 2, whatever the share is.

    Args:
        right: images that are right, 0 to count.
        count: images, at least 1.
        error: in (0, 1), of both ends together.

    Raises:
        ValueError: if there is no image, or more right ones than images.
    """
    if count <= 0 or not 0 <= right <= count:
        raise ValueError(f"{right} right of {count} images")
    low = _least(right, count, error / 2)
    return low, 1 - _least(count - right, count, error / 2)


def _least(right: int, count: int, error: float) -> float:
    """The largest share under which `right` or more of `count` have probability at most
    `error`, from below."""
    if right == 0:
        return 0.0
    k = np.arange(right, count + 1)
    whole = math.lgamma(count + 1)
    ways = np.array(
        [whole - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in k.tolist()]
    )
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        logs = ways + k * math.log(middle) + (count - k) * math.log1p(-middle)
        tail = float(np.exp(logs).sum())
        low, high = (middle, high) if tail <= error else (low, middle)
    return low


class Intervals:
    """See the text above. The incumbent at a step is the trial with the best value
    there among those that reached it, in whatever order they came.

    Args:
        alpha: in (0, 1); the probability that a sweep ends any trial which is, at that
            step, at least as accurate as the incumbent is at most this.
        looks: M above, at least 1: trials of the sweep times probes of each from
            `grace` on. It is set before the sweep. Looks beyond it end nobody, and
            nobody is measured against them.
        grace: steps; looks before it are not judged and do not count, at least 1.

    Raises:
        UserError: if one of them is out of its range.
    """

    def __init__(self, *, alpha: float, looks: int, grace: int) -> None:
        if not 0 < alpha < 1:
            raise UserError(
                f"intervals has alpha={alpha}; set it between 0 and 1, such as 0.05"
            )
        if looks < 1 or grace < 1:
            name, found = ("looks", looks) if looks < 1 else ("grace", grace)
            raise UserError(f"intervals has {name}={found}; set it to 1 or more")
        self.alpha, self.looks, self.grace = alpha, looks, grace
        self._spent = 0
        # step -> trial -> value, low, high
        self._steps: dict[int, dict[int, tuple[float, float, float]]] = {}
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
        """See `Rule`. The looks that it spent stay spent."""
        for trials in self._steps.values():
            trials.pop(trial, None)

    def _judge(self, trial: int, look: Look) -> str | None:
        if look.step < self.grace or self._spent == self.looks:
            return None
        self._spent += 1
        error = self.alpha / self.looks
        low, high = exact_interval(look.right, look.count, error=error)
        there = self._steps.setdefault(look.step, {})
        there[trial] = (look.value, low, high)
        incumbent = max(there, key=lambda other: there[other][0])
        least = there[incumbent][1]
        if high >= least:
            return None
        return (
            f"at step {look.step} at most {_percent(high)}, and trial {incumbent} at "
            f"least {_percent(least)}"
        )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
