"""A picture of what a sweep is after against each setting that it searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rrl_dist.report.figures import PALE, drawing
from rrl_dist.tune.dimension import Choices, Dimension, shown
from rrl_dist.tune.findings import Findings, Measure, kind
from rrl_dist.tune.importance import importances
from rrl_dist.tune.marks import (
    BEST,
    COLOURS,
    GOOD,
    Ruler,
    frame,
    legend,
    mark,
    swatch,
    title,
    without_value,
)
from rrl_dist.tune.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST = 6  # panels
_ROW = 3  # panels side by side
_EDGE = 0.04  # of an axis, beyond its ends
_ASIDE, _GOLDEN = 0.07, 0.618  # trials of one choice stand beside each other


def strength_picture(findings: Findings, path: Path) -> bool:
    """Draw the first aim against each number that is searched, or against each choice
    if there is no number. Returns whether there was anything to draw."""
    aim = findings.aims.aims[0].measure
    valued = [r for r in findings.records if findings.value(r, aim) is not None]
    panels = _panels(findings, valued)
    if not panels:
        return False
    columns = min(_ROW, len(panels))
    rows = -(-len(panels) // columns)
    alone = len(panels) == 1
    width, height = (7.0, 5.0) if alone else (3.2 * columns + 0.8, 2.9 * rows)
    with drawing(path, width=width, height=height + 1.2) as figure:
        figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.1)
        grid = figure.add_gridspec(rows, columns)
        first: Axes | None = None
        for place, dimension in enumerate(panels):
            axes = figure.add_subplot(
                grid[place // columns, place % columns], sharey=first
            )
            first = first or axes
            _panel(findings, axes, dimension)
            if place % columns:
                axes.tick_params(labelleft=False)
            else:
                axes.set_ylabel(Measure.of(aim).title)
        title(figure, findings, _told(findings, panels))
        own = PALE if _colours(findings) else GOOD
        legend(figure, findings.kinds(aim), _named(findings), colour=own)
    return True


def _panels(findings: Findings, valued: Sequence[Record]) -> list[Dimension]:
    """What some trial with a value has: numbers, or choices if there are none."""
    drawn = [
        dimension
        for dimension in findings.space.dimensions
        if any(dimension.name in record.settings for record in valued)
    ]
    numbers = [d for d in drawn if not isinstance(d.domain, Choices)]
    kept = numbers or drawn
    if len(kept) > _MOST:
        shares = importances(findings)
        ranked = sorted(kept, key=lambda d: -shares.get(d.name, 0.0))[:_MOST]
        kept = [dimension for dimension in kept if dimension in ranked]
    return kept


def _told(findings: Findings, panels: Sequence[Dimension]) -> str:
    numbers = [
        d for d in findings.space.dimensions if not isinstance(d.domain, Choices)
    ]
    if len(panels) == _MOST < len(numbers):
        return f"the {_MOST} that matter most of {len(numbers)} settings"
    return "bars are 95 % intervals"


def _panel(findings: Findings, axes: Axes, dimension: Dimension) -> None:
    frame(axes)
    aim = findings.aims.aims[0].measure
    measure, ruler, colours = Measure.of(aim), Ruler(dimension), _colours(findings)
    best = {record.number for record in findings.front}
    without: list[float] = []
    for record in findings.records:
        if dimension.name not in record.settings:
            continue
        x = ruler.place(record.settings[dimension.name])
        if ruler.choices:
            x += _ASIDE * (record.number * _GOLDEN % 1 - 0.5)
        found = findings.value(record, aim)
        if found is None:
            without.append(x)
            continue
        colour = _colour(findings, record, colours)
        mark(axes, kind(record), x, found, measure, colour=colour)
        if record.number in best:
            y = found.value * measure.scale
            axes.scatter([x], [y], s=95, facecolor="none", edgecolor=BEST, zorder=4)
    without_value(axes, without)
    axes.set_xlim(-_EDGE, 1 + _EDGE)
    places, words = zip(*ruler.ticks(), strict=True)
    axes.set_xticks(places, words)
    axes.set_xlabel(dimension.name)


def _colours(findings: Findings) -> Mapping[str, str]:
    """By the choice."""
    choice = findings.choice
    values = choice.domain.grid(1) if choice is not None else []
    return {shown(value): COLOURS[i] for i, value in enumerate(values)}


def _colour(findings: Findings, record: Record, colours: Mapping[str, str]) -> str:
    if findings.choice is None:
        return GOOD if kind(record) == "complete" else PALE
    return colours.get(shown(record.settings.get(findings.choice.name)), PALE)


def _named(findings: Findings) -> list[tuple[str, object]]:
    two = len(findings.aims.aims) > 1
    ring = swatch(BEST, markerfacecolor="none", markersize=9, markeredgewidth=1.0)
    best = [("front" if two else "best", ring)] if findings.front else []
    return [*((f"{v}", swatch(c)) for v, c in _colours(findings).items()), *best]
