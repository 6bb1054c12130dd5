"""How pictures of a sweep mark its trials, and the axes that they stand on."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rrl_dist.report.figures import PALE
from rrl_dist.tune.dimension import Choices, Dimension, Floats, Value, Whole, shown
from rrl_dist.tune.findings import Findings, Kind, Measure, written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rrl_dist.tune.aims import Estimate

BEST, GOOD = "#D55E00", "#0072B2"
# Okabe and Ito 2008, told apart by colour-blind readers; their yellow is too pale here.
COLOURS = (GOOD, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", BEST, "#000000")
_MARKERS: dict[Kind, str] = {
    "complete": "o",
    "infeasible": "s",
    "running": "D",
    "pruned": "v",
    "failed": "x",
}
_LEGEND = {
    "complete": "complete",
    "infeasible": "infeasible",
    "running": "running, at its last probe",
    "pruned": "pruned, at its last probe",
    "failed": "no value",
}
_SMALL = 5.0  # points
_TICKS = 6


def mark(
    axes: Axes,
    of: Kind,
    x: float,
    found: Estimate,
    measure: Measure,
    *,
    colour: str,
    across: Estimate | None = None,
    unit: Measure | None = None,
) -> None:
    """One trial with its intervals as bars; hollow if it is not complete.

    Args:
        axes: to draw on.
        of: its kind.
        x: where it stands.
        found: its height, in the unit of `measure`.
        measure: of the height.
        colour: of the mark.
        across: x with its interval, in the unit of `unit`.
        unit: of `across`.
    """
    style: dict[str, Any] = {"color": colour, "alpha": 0.35, "linewidth": 1.1}
    if found.low is not None and found.high is not None:
        ends = found.low * measure.scale, found.high * measure.scale
        axes.plot([x, x], ends, zorder=2, **style)
    y = found.value * measure.scale
    if across is not None and unit is not None and across.low is not None:
        assert across.high is not None
        ends = across.low * unit.scale, across.high * unit.scale
        axes.plot(ends, [y, y], zorder=2, **style)
    axes.plot([x], [y], **look_of(of, colour), zorder=3)


def look_of(of: Kind, colour: str) -> dict[str, Any]:
    """What matplotlib is told of a mark."""
    return {
        "marker": _MARKERS[of],
        "markersize": _SMALL + (0.5 if of == "complete" else 0),
        "markeredgecolor": colour,
        "markerfacecolor": colour if of == "complete" else "white",
        "markeredgewidth": 1.2,
        "linestyle": "none",
    }


def without_value(axes: Axes, places: Sequence[float]) -> None:
    """Trials that have no height, along the lower edge."""
    if places:
        axes.plot(
            places,
            [0.025] * len(places),
            transform=axes.get_xaxis_transform(),
            **look_of("failed", PALE),
            zorder=2,
        )


def legend(
    figure: Figure,
    kinds: Sequence[Kind],
    more: Sequence[tuple[str, Any]] = (),
    *,
    colour: str = GOOD,
) -> None:
    """Below the picture: what marks mean.

    Args:
        figure: with its axes.
        kinds: that are in it.
        more: labels and matplotlib's handles, which stand first.
        colour: of what is complete.
    """
    from matplotlib.lines import Line2D

    words = [label for label, _ in more] + [_LEGEND[of] for of in kinds]
    handles = [handle for _, handle in more]
    for of in kinds:
        own = colour if of == "complete" else PALE
        handles.append(Line2D([], [], **look_of(of, own)))
    if words:
        figure.legend(
            handles,
            words,
            loc="outside lower center",
            ncols=min(4, len(words)),
            frameon=False,
            fontsize=9,
        )


def title(
    figure: Figure, findings: Findings, told: str = "bars are 95 % intervals"
) -> None:
    """What the trials are, and how to read them, above all panels."""
    aims = " and ".join(Measure.of(a.measure).title for a in findings.aims.aims)
    width = int(figure.get_figwidth() * 11)  # letters
    counts = "; ".join(filter(None, [findings.counts(), told]))
    lines = [counts] if len(counts) <= width else [findings.counts(), told]
    lines = [f"{findings.name}: {aims}", *lines]
    text = "\n".join(textwrap.fill(line, width) for line in lines)
    figure.suptitle(text, x=0.02, ha="left", fontsize=11)


def swatch(colour: str, **style: Any) -> Any:
    """A filled mark for a legend, or a line where `linestyle` says so."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, **{**look_of("complete", colour), **style})


def frame(axes: Axes) -> None:
    """A pale grid, and no lines at the top and at the right."""
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


class Ruler:
    """Where the values of a dimension stand between 0 and 1.

    Args:
        dimension: of a space.
    """

    def __init__(self, dimension: Dimension) -> None:
        domain = dimension.domain
        self.choices = domain.grid(1) if isinstance(domain, Choices) else []
        self.log = isinstance(domain, Floats | Whole) and domain.log
        self.low, self.high = 0.0, float(max(len(self.choices) - 1, 0))
        if isinstance(domain, Floats | Whole):
            self.low, self.high = float(domain.low), float(domain.high)
        self.whole = isinstance(domain, Whole)

    def place(self, value: Value) -> float:
        """Of one value; 0.5 if there is no other."""
        number = self._number(value)
        low, high = self.low, self.high
        if low == high:
            return 0.5
        if self.log:
            low, high, number = math.log(low), math.log(high), math.log(number)
        return (number - low) / (high - low)

    def _number(self, value: Value) -> float:
        if self.choices:
            return float([shown(v) for v in self.choices].index(shown(value)))
        assert isinstance(value, int | float)
        return float(value)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and words of a few values."""
        if self.choices:
            return [(self.place(value), shown(value)) for value in self.choices]
        return [(self.place(value), written(value)) for value in self._marks()]

    def _marks(self) -> list[float]:
        if self.low == self.high:
            return [self.low]
        if self.log:
            return log_marks(self.low, self.high)
        from matplotlib.ticker import MaxNLocator

        found = MaxNLocator(_TICKS - 1, integer=self.whole).tick_values(
            self.low, self.high
        )
        return [float(v) for v in found if self.low <= v <= self.high]


def log_marks(low: float, high: float) -> list[float]:
    """At most six round numbers of a range: powers of ten, or finer in a short one."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7)):
        every = [d * 10.0**e for e in range(first, last + 1) for d in digits]
        inside = [v for v in every if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
        found = inside if len(inside) <= _TICKS or not found else found
        if len(found) >= _TICKS // 2:
            break
    if len(found) < 2:
        return [low, high]
    return found[:: math.ceil(len(found) / _TICKS)]
