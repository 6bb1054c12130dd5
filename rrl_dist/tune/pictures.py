"""Pictures of a sweep: what its trials reached, and what they cost."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rrl_dist.report.figures import PALE, drawing
from rrl_dist.tune.aims import Aim, Estimate
from rrl_dist.tune.findings import KINDS, Findings, Measure, better, kind
from rrl_dist.tune.importance import importance_picture
from rrl_dist.tune.marks import (
    BEST,
    GOOD,
    frame,
    legend,
    mark,
    swatch,
    title,
    without_value,
)
from rrl_dist.tune.parallel import parallel_picture
from rrl_dist.tune.record import Record
from rrl_dist.tune.strength import strength_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BESIDE = ("clean", "robust")  # what a single aim is set against
_NAMED = 12  # trials whose number stands beside them
_NEAR = 0.05  # of the picture: two numbers would cover each other


def front_picture(findings: Findings, path: Path) -> bool:
    """Draw the first aim against the second, or against clean accuracy, with intervals;
    beside it what was probed alone. Returns whether there was anything to draw."""
    up, right = findings.aims.aims[0].measure, _across(findings)
    points = [
        (record, x, y)
        for record in findings.records
        if (x := findings.estimate(record, right)) is not None
        and (y := findings.estimate(record, up)) is not None
    ]
    if not points:
        return False
    probed = [r for r in findings.records if findings.probe(r, up) is not None]
    with drawing(path, width=8.0, height=5.4) as figure:
        axes, strip = _panels(figure, bool(probed))
        _front(findings, axes, points)
        if strip is not None:
            _probed(findings, strip, probed)
        axes.set_xlabel(Measure.of(right).title)
        axes.set_ylabel(Measure.of(up).title)
        title(figure, findings)
        best = {record.number for record in findings.front}
        others = {kind(r) for r, _, _ in points if r.number not in best}
        kinds = [k for k in KINDS if k in others]
        kinds += [k for k in KINDS if k in {kind(r) for r in probed}]
        two = len(findings.aims.aims) > 1
        line = "-" if two else "none"
        ours = swatch(BEST, linestyle=line, linewidth=1.4)
        named = [("front" if two else "best", ours)] if best else []
        legend(figure, kinds, named)
    return True


def _across(findings: Findings) -> str:
    names = [aim.measure for aim in findings.aims.aims]
    beside = next(name for name in _BESIDE if name != names[0])
    return names[1] if len(names) > 1 else beside


def _panels(figure: Figure, strip: bool) -> tuple[Axes, Axes | None]:
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    if not strip:
        axes = figure.add_subplot()
        frame(axes)
        return axes, None
    grid = figure.add_gridspec(1, 2, width_ratios=[6, 1])
    axes = figure.add_subplot(grid[0])
    beside = figure.add_subplot(grid[1], sharey=axes)
    beside.tick_params(labelleft=False, left=False)
    beside.set_xticks([])
    for one in (axes, beside):
        frame(one)
    return axes, beside


def _front(
    findings: Findings, axes: Axes, points: Sequence[tuple[Record, Estimate, Estimate]]
) -> None:
    up, right = findings.aims.aims[0].measure, _across(findings)
    height, width = Measure.of(up), Measure.of(right)
    best = {record.number for record in findings.front}
    for record, x, y in points:
        of = kind(record)
        colour = GOOD if of == "complete" else PALE
        colour = BEST if record.number in best else colour
        place = x.value * width.scale
        mark(axes, of, place, y, height, colour=colour, across=x, unit=width)
    marked = sorted(
        (x.value * width.scale, y.value * height.scale, record.number)
        for record, x, y in points
        if record.number in best
    )
    if len(findings.aims.aims) > 1:
        # Between two trials the front is at the value that both sides still reach.
        drawn = "steps-pre" if findings.aims.aims[1].maximize else "steps-post"
        across, heights = [p[0] for p in marked], [p[1] for p in marked]
        axes.plot(across, heights, drawstyle=drawn, color=BEST, linewidth=1.4, zorder=2)
    _name(axes, marked)


def _name(axes: Axes, marked: Sequence[tuple[float, float, int]]) -> None:
    """Numbers of trials beside their marks, where there is room for them."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    placed: list[tuple[float, float]] = []
    for x, y, number in marked:
        at = (x - left) / (right - left), (y - low) / (high - low)
        near = any(abs(at[0] - a) + abs(at[1] - b) < _NEAR for a, b in placed)
        if near or len(placed) == _NAMED:
            continue
        placed.append(at)
        axes.annotate(
            str(number),
            (x, y),
            xytext=(5, 4),
            textcoords="offset points",
            color=BEST,
            fontsize=9,
        )


def _probed(findings: Findings, strip: Axes, records: Sequence[Record]) -> None:
    up = findings.aims.aims[0].measure
    for place, record in enumerate(records):
        found = findings.probe(record, up)
        assert found is not None
        mark(strip, kind(record), place, found, Measure.of(up), colour=PALE)
    strip.set_xlim(-1, len(records))
    strip.set_xlabel("not complete")


def history_picture(findings: Findings, path: Path) -> bool:
    """Draw each aim against the cost of all trials up to there, with the best so far.
    Returns whether there was anything to draw."""
    aims = [a for a in findings.aims.aims if _valued(findings, a.measure)]
    if not aims:
        return False
    with drawing(path, width=8.0, height=2.4 + 2.6 * len(aims)) as figure:
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
        panels = figure.subplots(len(aims), 1, sharex=True, squeeze=False)[:, 0]
        for axes, aim in zip(panels, aims, strict=True):
            frame(axes)
            _history(findings, axes, aim)
            axes.set_ylabel(textwrap.fill(Measure.of(aim.measure).title, 26))
        panels[-1].set_xlim(left=0)
        panels[-1].set_xlabel("cost of all trials so far (device-minutes)")
        title(figure, findings)
        line = swatch(BEST, linestyle="-", marker="none", linewidth=1.6)
        named = [("best so far", line)] if findings.front else []
        shown = {k for aim in aims for k in findings.kinds(aim.measure)}
        legend(figure, [k for k in KINDS if k in shown], named)
    return True


def _valued(findings: Findings, measure: str) -> list[Record]:
    return [r for r in findings.records if findings.value(r, measure) is not None]


def _history(findings: Findings, axes: Axes, aim: Aim) -> None:
    measure, spent = Measure.of(aim.measure), _spent(findings)
    valued = _valued(findings, aim.measure)
    for record in valued:
        found = findings.value(record, aim.measure)
        assert found is not None
        of = kind(record)
        colour = GOOD if of == "complete" else PALE
        mark(axes, of, spent[record.number], found, measure, colour=colour)
    known = {record.number for record in valued}
    without_value(axes, [x for number, x in spent.items() if number not in known])
    reached = [r for number in spent for r in valued if r.number == number]
    reached = [record for record in reached if record.feasible]
    if reached:
        told = [findings.estimate(record, aim.measure) for record in reached]
        heights = better(aim, [e.value * measure.scale for e in told if e is not None])
        across = [spent[record.number] for record in reached]
        end = max(spent.values())
        axes.plot(
            [*across, end],
            [*heights, heights[-1]],
            drawstyle="steps-post",
            color=BEST,
            linewidth=1.6,
            zorder=2.5,
        )


def _spent(findings: Findings) -> dict[int, float]:
    """Device-minutes of all trials up to the end of each, in the order of their ends;
    of one that runs, up to now."""

    def ended(record: Record) -> tuple[bool, float, int]:
        time = record.ended.timestamp() if record.ended is not None else 0.0
        return record.state == "running", time, record.number

    spent, total = dict[int, float](), 0.0
    for record in sorted(findings.records, key=ended):
        total += record.seconds / 60
        spent[record.number] = total
    return spent


_PICTURES: tuple[tuple[str, str, Callable[[Findings, Path], bool]], ...] = (
    ("Best trials", "front.png", front_picture),
    ("Each setting", "strength.png", strength_picture),
    ("Importance of settings", "importance.png", importance_picture),
    ("All settings of a trial", "parallel.png", parallel_picture),
    ("What was found for what cost", "history.png", history_picture),
)


def draw_pictures(findings: Findings, folder: Path) -> dict[str, Path]:
    """Draw what there is to see; titles and files.

    A picture that would be empty is not drawn, and an old one of its name is removed.
    """
    drawn: dict[str, Path] = {}
    for about, name, draw in _PICTURES:
        path = folder / name
        if draw(findings, path):
            drawn[about] = path
        else:
            path.unlink(missing_ok=True)
    return drawn
