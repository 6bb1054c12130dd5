"""The numbers of an evaluation, of its rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rrl_dist.attacks.cascade import Cascade
from rrl_dist.attacks.result import Attack
from rrl_dist.core.aggregate import (
    Interval,
    Proportion,
    accuracy,
    accuracy_after,
    rounded,
    wilson,
)
from rrl_dist.core.columns import Columns
from rrl_dist.core.confidence import anytime
from rrl_dist.core.stopping import StopRule
from rrl_dist.evaluate.bound import bound_along
from rrl_dist.evaluate.calibration import calibration_errors
from rrl_dist.evaluate.corruption import corruption_errors
from rrl_dist.evaluate.distances import nearest
from rrl_dist.evaluate.grid import CLEAN
from rrl_dist.evaluate.plan import Suite

SCHEMA = 3


@dataclass(frozen=True)
class Stop:
    """An evaluation that ended before all samples were attacked.

    Attributes:
        rule: that was met.
        worst: accuracy under the worst attack when it was.
        total: samples that there are.
    """

    rule: StopRule
    worst: Proportion
    total: int

    def interval(self, successes: int, count: int) -> Proportion:
        """One that is valid though it was looked at before."""
        return anytime(successes, count, self.total, level=self.rule.level)


def summarize(
    rows: Mapping[str, Columns],
    suite: Suite,
    survey: Mapping[str, Any] | None,
    vulnerability: Mapping[str, Any] | None = None,
    stop: Stop | None = None,
    *,
    imagenet: bool = False,
) -> dict[str, Any]:
    """Accuracies of the components, of the worst of them, and along the curve; the
    bound, the distance to the nearest adversarial image, the encoder's measures,
    errors on corrupted images, and calibration.

    A component of several attacks in turn has `after`, the accuracy after each of them.

    Holds no times, paths or worker counts: two evaluations of one thing are equal.

    Args:
        rows: by component; each is asked for when it is needed, and not kept.
        suite: what was run.
        survey: what a `Survey` leaves; None of a classifier that shows no encoder,
            which has neither bound nor measures.
        vulnerability: see `rrl_dist.evaluate.vulnerability.told`, or None.
        stop: how it ended before all samples were attacked; None if it did not.
        imagenet: whether the classes are ImageNet's thousand.
    """
    interval = wilson if stop is None else stop.interval
    numbers = {
        name: accuracy([rows[name]], interval=interval).as_dict()
        for name in {*suite.full, *(name for _, name in suite.curve)}
    }
    worst = accuracy((rows[name] for name in suite.full), interval=interval)
    return {
        "schema": SCHEMA,
        "components": {
            name: {
                **numbers[name],
                **_after(rows, name, suite.attacks.get(name), interval),
            }
            for name in suite.full
        },
        "worst": (worst if stop is None else stop.worst).as_dict(),
        "stopped": None if stop is None else _stopped(stop),
        "curve": [{"eps": eps, **numbers[name]} for eps, name in suite.curve],
        "bound": None if survey is None else _bound(rows, suite, survey),
        "distance": _nearest(rows, suite, interval),
        "representation": None if survey is None else _representation(survey),
        "vulnerability": vulnerability,
        "corruptions": corruption_errors(rows, suite.corruptions, imagenet),
        "calibration": calibration_errors(rows, suite),
    }


def _stopped(stop: Stop) -> dict[str, Any]:
    """What was not attacked, and why."""
    attacked = stop.worst.count
    return {
        "rule": str(stop.rule),
        "level": stop.rule.level,
        "attacked": attacked,
        "not_attacked": stop.total - attacked,
    }


def _after(
    rows: Mapping[str, Columns], name: str, attack: Attack | None, interval: Interval
) -> dict[str, Any]:
    """Accuracy after each attack of a component, the image itself first; nothing of a
    component that is one attack."""
    if not isinstance(attack, Cascade):
        return {}
    columns, names = rows[name], attack.names
    found = [
        accuracy_after(columns, names[: place + 1], interval=interval)
        for place in range(len(names))
    ]
    pairs = zip(names, found, strict=True)
    return {"after": [{"attack": each, **left.as_dict()} for each, left in pairs]}


def _bound(
    rows: Mapping[str, Columns], suite: Suite, survey: Mapping[str, Any]
) -> list[dict[str, Any]]:
    norm, unit = survey["head_norm"], survey["spread"]
    return bound_along(rows, suite.levels, clean=CLEAN, head_norm=norm, spread=unit)


def _nearest(
    rows: Mapping[str, Columns], suite: Suite, interval: Interval
) -> dict[str, Any] | None:
    """Of the search; it is no part of the worst case."""
    if suite.search is None:
        return None
    attack = suite.attacks[suite.search]
    assert attack is not None
    return nearest(rows[suite.search], suite.search, attack.ball, interval)


def _representation(survey: Mapping[str, Any]) -> dict[str, Any]:
    """What a `Survey` leaves, rounded, with the sum of the squares of its sigmas."""
    numbers = {key: rounded(v) for key, v in survey.items() if key != "sigmas"}
    sigmas = survey["sigmas"]
    if sigmas is None:
        return {**numbers, "sigmas": None, "sigma_squared_sum": None}
    return {
        **numbers,
        "sigmas": {name: rounded(sigma) for name, sigma in sigmas.items()},
        "sigma_squared_sum": rounded(math.fsum(s**2 for s in sigmas.values())),
    }
