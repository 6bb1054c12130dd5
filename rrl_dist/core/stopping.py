"""When enough samples are drawn: a rule on an interval that is valid at any time."""

import re
from dataclasses import dataclass
from typing import Literal, cast

from rrl_dist.core.aggregate import Proportion
from rrl_dist.core.errors import UserError

Quantity = Literal["half_width", "below", "above"]

_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)"
_RULE = re.compile(
    rf"(half_width ?<|below|above) ?{_NUMBER}(?: ?with ?{_NUMBER} ?%)?",
    re.ASCII,
)
_GRAMMAR = (
    '"half_width<0.01", "below 0.40 with 95 %" or "above 0.40 with 95 %", '
    "or null for all samples"
)


@dataclass(frozen=True)
class StopRule:
    """Stop when the interval is narrow, or on one side of a bound.

    The interval has to be one of `rrl_dist.core.confidence`, of this rule's level: the
    usual ones do not hold at a look that was chosen by what it shows.

    Attributes:
        quantity: half_width is (high - low) / 2; below and above are claims on the
            share.
        bound: of a half width in (0, 0.5), of a share in (0, 1).
        percent: of all runs, in which the interval holds the share; in (50, 100).
    """

    quantity: Quantity
    bound: float
    percent: float

    @property
    def level(self) -> float:
        """In (0.5, 1), to be given to the confidence sequence."""
        return self.percent / 100

    def met(self, interval: Proportion) -> bool:
        """Whether this interval is all that was asked for."""
        if self.quantity == "half_width":
            return (interval.high - interval.low) / 2 < self.bound
        if self.quantity == "below":
            return interval.high < self.bound
        return interval.low > self.bound

    def __str__(self) -> str:
        """The one way to write this rule, which `parse_stop` reads."""
        sign = "<" if self.quantity == "half_width" else " "
        level = f"{_plain(self.percent)} %"
        return f"{self.quantity}{sign}{_plain(self.bound)} with {level}"


def _plain(number: float) -> str:
    return repr(number).removesuffix(".0")


def parse_stop(text: str) -> StopRule:
    """The rule in words: "half_width<0.01", "below 0.40 with 95 %", "above 0.40".

    Args:
        text: with or without a level, which is 95 % if it is not told.

    Raises:
        UserError: it is no rule, or one that no interval or every one would meet.
    """
    text = " ".join(text.split())
    found = _RULE.fullmatch(text)
    if found is None:
        raise UserError(f'evaluate.stop_when="{text}" is no rule; write {_GRAMMAR}')
    quantity = cast(Quantity, found[1].rstrip("< "))
    rule = StopRule(quantity, float(found[2]), float(found[3] or 95))
    widest = 0.5 if quantity == "half_width" else 1.0
    if not 0 < rule.bound < widest:
        raise UserError(
            f'evaluate.stop_when="{text}" has the bound {found[2]}; write a '
            f"{'half width' if quantity == 'half_width' else 'share'} between 0 and "
            f"{_plain(widest)}, such as {'0.01' if widest < 1 else '0.40'}"
        )
    if not 50 < rule.percent < 100:
        raise UserError(
            f'evaluate.stop_when="{text}" has the level {found[3]} %; write one '
            "between 50 and 100, such as 95 %"
        )
    return rule
