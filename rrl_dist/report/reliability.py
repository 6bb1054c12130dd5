"""Reliability diagrams."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from rrl_dist.core.errors import UserError
from rrl_dist.report import labels
from rrl_dist.report.calibration import OUTPUTS, shown_outputs
from rrl_dist.report.entries import mark
from rrl_dist.report.figures import COLOURS, LINES, MARKERS, PALE, drawing
from rrl_dist.report.run import Arm, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


def reliability_diagram(run: Run, path: Path) -> None:
    """Draw share right against mean confidence, in percent: a panel for each kind of
    outputs, a line for each arm, a point for each bin that has outputs.

    Raises:
        UserError: if no arm has them.
    """
    arms = [arm for arm in run.arms if arm.calibration]
    if not arms:
        raise UserError(
            f"run {run.name} has no calibration; evaluate it with this version first"
        )
    shown = shown_outputs([run])
    with drawing(path, width=3.0 * len(shown) + 2.4, height=3.6) as figure:
        figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, shown, strict=True):
            lines = [_line(axes, arm, kind, place) for place, arm in enumerate(arms)]
            _frame(axes, f"{OUTPUTS[kind]} images")
        panels[0].set_ylabel("right (%)")
        title = textwrap.fill(_title(run, arms), 35 * len(shown) + 15)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        figure.legend(
            handles=lines,
            labels=[textwrap.fill(arm.name + mark([arm]), 22) for arm in arms],
            loc="outside right upper",
            frameon=False,
            handlelength=3.2,
        )


def _title(run: Run, arms: list[Arm]) -> str:
    shares = [share for arm in arms for share in arm.components.values()]
    binnings = {arm.calibration.binning for arm in arms if arm.calibration}
    return (
        f"{run.data}: share right against confidence, {labels.images(run, shares)}, "
        f"{labels.seeds(run)}; {', '.join(sorted(binnings))}"
    )


def _line(axes: Axes, arm: Arm, kind: str, place: int) -> Line2D:
    found = arm.calibration and arm.calibration.outputs.get(kind)
    points = found.diagram if found else ()
    (line,) = axes.plot(
        [100 * confidence for confidence, _, _ in points],
        [100 * accuracy for _, accuracy, _ in points],
        color=COLOURS[place % len(COLOURS)],
        marker=MARKERS[place % len(MARKERS)],
        markersize=4.5,
        linestyle=LINES[place % len(LINES)],
        linewidth=1.5,
        clip_on=False,
        zorder=3,
    )
    line.set_in_layout(False)  # one without points has no place
    return line


def _frame(axes: Axes, title: str) -> None:
    axes.plot([0, 100], [0, 100], color=PALE, linewidth=1.0, linestyle=(0, (2, 2)))
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_aspect("equal")
    axes.set_xlabel("confidence (%)")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
