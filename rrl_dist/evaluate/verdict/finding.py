"""What a check of the verdict has found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from rrl_dist.core.aggregate import Mean, Proportion, rounded

Figure = Proportion | Mean | float


class Level(IntEnum):
    """How bad it is; the verdict is the worst of all checks."""

    OK = 0
    SUSPECT = 1
    FAIL = 2

    @property
    def word(self) -> str:
        """Of a check, as `results.json` has it."""
        return self.name.lower()

    @property
    def verdict(self) -> str:
        """Of an evaluation: "pass", "suspect" or "fail"."""
        return "pass" if self is Level.OK else self.word


@dataclass(frozen=True)
class Finding:
    """Of one check.

    Attributes:
        level: what it comes to.
        told: in words, with the numbers.
        stronger: what to do, or which stronger attack to run, where it is not OK.
        figures: that were measured, by name.
        thresholds: that they were held against, by name.
    """

    level: Level
    told: str
    stronger: str
    figures: Mapping[str, Figure]
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "level": self.level.word,
            "told": self.told,
            "stronger": None if self.level is Level.OK else self.stronger,
            "figures": {name: _plain(value) for name, value in self.figures.items()},
            "thresholds": dict(self.thresholds),
        }


def _plain(value: Figure) -> Any:
    if isinstance(value, Proportion | Mean):
        return value.as_dict()
    return rounded(value)


def surely_above(share: Proportion, *, suspect: float, fail: float) -> Level:
    """By the lower end of its interval."""
    if share.low > fail:
        return Level.FAIL
    return Level.SUSPECT if share.low > suspect else Level.OK


def surely_below(share: Proportion, *, suspect: float, fail: float) -> Level:
    """By the upper end of its interval."""
    if share.high < fail:
        return Level.FAIL
    return Level.SUSPECT if share.high < suspect else Level.OK


def counted(share: Proportion) -> str:
    """Such as "3 of 60"."""
    return f"{round(share.value * share.count):,} of {share.count:,}"
