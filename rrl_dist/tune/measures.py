"""What a trial has measured: numbers of `results.json` by name.

Nothing here knows a section of `results.json`, so that what evaluations come to measure
can be searched by at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch

from rrl_dist.core.columns import Columns
from rrl_dist.evaluate.plan import Suite
from rrl_dist.evaluate.summary import summarize
from rrl_dist.evaluate.survey import of_features
from rrl_dist.evaluate.vulnerability import told

_SHORT = {"worst": "robust", "components.clean": "clean"}
OF_LAYERS = "representation.sigmas."  # whose names only an encoder tells
_OF_AN_ESTIMATE = ("value", "low", "high", "count")


@dataclass(frozen=True)
class Estimate:
    """A number of a trial, with its interval where it has one.

    Attributes:
        value: in the measure's own unit; finite.
        low, high: as `results.json` has them.
    """

    value: float
    low: float | None = None
    high: float | None = None


Measured = Mapping[str, Estimate]


def numbers(entry: Mapping[str, Any]) -> dict[str, Estimate]:
    """All numbers of an arm's part of `results.json`, by dotted name.

    What has a `value` is one measure, named by its place: "distance",
    "components.pgd20-linf@0.05", "corruptions.error". Flags, lists, and what is not
    finite or not there are left out.
    """
    return dict(_numbers(entry, ""))


def _numbers(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Estimate]]:
    estimate = is_number(node.get("value"))
    if estimate:
        low, high = (node.get(key) for key in ("low", "high"))
        yield path, Estimate(float(node["value"]), low, high)
    for key, child in node.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(child, Mapping):
            yield from _numbers(child, name)
        elif is_number(child) and not (estimate and key in _OF_AN_ESTIMATE):
            yield name, Estimate(float(child))


def is_number(found: object) -> bool:
    """Whether it is one, and finite; flags are none."""
    real = isinstance(found, int | float) and not isinstance(found, bool)
    return real and isfinite(found)  # type: ignore[arg-type]


def measured(entry: Mapping[str, Any], seconds: float) -> dict[str, Estimate]:
    """What a trial has measured, by the names that aims and floors have.

    `numbers`, with "robust" and "clean" for the worst case and the clean images, and
    "cost".

    Args:
        entry: of the trial's arm in `results.json`.
        seconds: of device time that it took.
    """
    found = numbers(entry)
    named = {_SHORT.get(name, name): number for name, number in found.items()}
    return {**named, "cost": Estimate(float(seconds))}


def names_of(suite: Suite, *, classes: int) -> list[str]:
    """Measures that a trial will report, before there is one: those of a summary of
    one image that was never attacked.

    Args:
        suite: of the trials.
        classes: of the data, at least 2.
    """
    zero, one = np.zeros(1), np.zeros(1, dtype=np.int64)
    columns = Columns(one, one == 0, zero, zero, zero, one - 1, (), zero, one == 0)
    survey = {**of_features(torch.eye(2)), "head_norm": 1.0, "sigmas": {}}
    known, information = suite.estimation, None
    if known is not None:
        information = told([0.0], [0.0], estimation=known, eps=0.0, classes=classes)
    rows = dict.fromkeys(suite.attacks, columns)
    return list(measured(summarize(rows, suite, survey, information), 0.0))


def canonical(name: str) -> str:
    """The one name of a measure that may be written in more ways."""
    name = name.removesuffix(".value")
    return _SHORT.get(name, name)
