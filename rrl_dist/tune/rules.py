"""When a trial of a sweep is ended before its time.

A rule sees the robust probes of all trials, in the order in which they came, and says
of each whether its trial ends there. It holds no more than they made of it: given the
same looks in the same order again, it says the same and is where it was, so that a
driver that was killed loses nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Look:
    """One robust probe of a trial that is still training.

    Attributes:
        step: optimizer steps made, at least 1.
        value: share of the attacked validation images that are right, in [0, 1].
        low, high: interval of this look alone, in [0, 1]. For people: no rule reads it,
            since it does not hold for many looks together.
        count: images attacked, at least 1.
    """

    step: int
    value: float
    low: float
    high: float
    count: int

    def __post_init__(self) -> None:
        if self.step < 1 or self.count < 1 or not 0 <= self.value <= 1:
            raise ValueError(f"{self} is no look at an accuracy")

    @property
    def right(self) -> int:
        """Images that are right; `value` may be rounded far below 1 / count."""
        return round(self.value * self.count)


class Rule(Protocol):
    """Ends trials.

    A look that comes twice, by trial and step, as after a resume, counts once and is
    answered as it was the first time.
    """

    def look(self, trial: int, look: Look) -> str | None:
        """Note a look of a trial that has steps left.

        Args:
            trial: its number.
            look: its steps grow from look to look.

        Returns:
            why the trial ends here, in a few words, or None: it goes on.
        """
        ...

    def ended(self, trial: int, final: Look | None) -> None:
        """Note the last look of a trial that has come to its end; others are measured
        against it. None: it had no look at its end, and what it had before stays."""
        ...

    def forget(self, trial: int) -> None:
        """Nobody is measured against this trial from here on, since it failed: what it
        promised is not to be had."""
        ...


class Never:
    """All trials go on to their end."""

    def look(self, trial: int, look: Look) -> str | None:
        """See `Rule`."""
        return None

    def ended(self, trial: int, final: Look | None) -> None:
        """See `Rule`."""

    def forget(self, trial: int) -> None:
        """See `Rule`."""


class Both:
    """A trial ends when any of some rules ends it.

    Args:
        rules: each sees every look, whatever the others say. The first of them that
            ends the trial is the one that is told.
    """

    def __init__(self, *, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)

    def look(self, trial: int, look: Look) -> str | None:
        """See `Rule`."""
        reasons = [rule.look(trial, look) for rule in self.rules]
        return next((reason for reason in reasons if reason is not None), None)

    def ended(self, trial: int, final: Look | None) -> None:
        """See `Rule`."""
        for rule in self.rules:
            rule.ended(trial, final)

    def forget(self, trial: int) -> None:
        """See `Rule`."""
        for rule in self.rules:
            rule.forget(trial)
