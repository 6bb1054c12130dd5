"""Robust accuracy against attack size."""

from __future__ import annotations

import math
import textwrap
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING

from rrl_dist.core.errors import UserError
from rrl_dist.report import labels
from rrl_dist.report.entries import mark
from rrl_dist.report.figures import COLOURS, LINES, MARKERS, PALE, drawing
from rrl_dist.report.run import Arm, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


def robustness_curve(run: Run, path: Path) -> None:
    """Draw accuracy (percent) against eps, a line with its 95 % band for each arm.

    The run's own eps is marked. Arms without a curve are left out.

    Raises:
        UserError: if no arm has a curve.
    """
    arms = [arm for arm in run.arms if arm.curve]
    if not arms:
        raise UserError(
            f"run {run.name} has no curve; evaluate it at more than one eps first"
        )
    scale = 255 if labels.radius(run.eps).endswith("/255") else 1
    with drawing(path, width=8.0, height=4.6) as figure:
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
        axes = figure.add_subplot()
        lines = [_line(axes, arm, i, scale, run.eps) for i, arm in enumerate(arms)]
        _frame(axes, run, arms, scale)
        axes.legend(
            handles=lines,
            labels=[textwrap.fill(arm.name + mark([arm]), 22) for arm in arms],
            loc="upper left",
            bbox_to_anchor=(1.03, 1.02),
            frameon=False,
            handlelength=3.2,
            labelspacing=0.8,
        )


def _line(axes: Axes, arm: Arm, place: int, scale: int, own_eps: float) -> Line2D:
    colour = COLOURS[place % len(COLOURS)]
    x = [point.eps * scale for point in arm.curve]
    y = [100 * point.accuracy.value for point in arm.curve]
    low = [100 * point.accuracy.low for point in arm.curve]
    high = [100 * point.accuracy.high for point in arm.curve]
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    near = [math.isclose(p.eps, own_eps, rel_tol=1e-5) for p in arm.curve]
    marker = MARKERS[place % len(MARKERS)]
    axes.scatter(
        list(compress(x, near)),
        list(compress(y, near)),
        s=130,
        marker="o",
        facecolor="none",
        edgecolor=colour,
        linewidth=1.6,
        zorder=4,
        clip_on=False,
    )
    (line,) = axes.plot(
        x,
        y,
        color=colour,
        marker=marker,
        markersize=5.5,
        linestyle=LINES[place % len(LINES)],
        linewidth=1.8,
        clip_on=False,
        zorder=3,
    )
    return line


def _frame(axes: Axes, run: Run, arms: list[Arm], scale: int) -> None:
    eps, size = run.eps * scale, labels.norm(run.norm)
    unit = "1/255 of the pixel range" if scale == 255 else "pixels in [0, 1]"
    axes.set_xlabel(f"attack size eps ({size}, {unit})")
    axes.set_ylabel("robust accuracy (%)")
    axes.set_ylim(0, 100)
    last = max(arm.curve[-1].eps for arm in arms) * scale
    axes.set_xlim(0, max(last, eps) or 1)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.axvline(eps, color=PALE, linewidth=1.0, linestyle=(0, (2, 2)), zorder=2)
    axes.annotate(
        f"eps {labels.radius(run.eps)}",
        (eps, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        color=PALE,
        fontsize=9,
    )
    axes.set_title(_title(run, arms), loc="left", fontsize=11, pad=20)


def _title(run: Run, arms: list[Arm]) -> str:
    attack = labels.attack(run.curve_attack) if run.curve_attack else "attack"
    if labels.norm(run.norm) not in attack:
        attack = f"{labels.norm(run.norm)} {attack}"
    count = labels.images(run, [point.accuracy for arm in arms for point in arm.curve])
    first = textwrap.fill(f"{run.data}: accuracy under {attack}", 70)
    bands = "bands are 95 % Wilson intervals"
    return f"{first}\n{count}, {labels.seeds(run)}; {bands}"
