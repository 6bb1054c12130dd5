"""A picture of all settings of each trial beside what it reached."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrl_dist.report.figures import INK, PALE, drawing
from rrl_dist.tune.dimension import Dimension, Floats
from rrl_dist.tune.findings import Findings, Measure
from rrl_dist.tune.marks import BEST, GOOD, Ruler, legend, swatch, title
from rrl_dist.tune.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STRONG = 3  # trials in a strong colour, where one aim has a single best
_ABSENT = -0.16  # height of what a trial does not have
_NEAR = 0.05  # two numbers would cover each other


def parallel_picture(findings: Findings, path: Path) -> bool:
    """Draw a line for each trial with a value, over an axis for each setting and each
    aim; the best in a strong colour. Returns whether there was anything to draw."""
    aims = [aim.measure for aim in findings.aims.aims]
    lines = [r for r in findings.ordered if r.settings and _valued(findings, r)]
    if not lines:
        return False
    rulers = [Ruler(dimension) for dimension in findings.space.dimensions]
    rulers += [Ruler(_axis_of(findings, lines, aim)) for aim in aims]
    heights = [_heights(findings, record, rulers) for record in lines]
    width = min(14.0, max(7.0, 1.35 * len(rulers) + 1.0))
    with drawing(path, width=width, height=5.4) as figure:
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
        axes = figure.add_subplot()
        for place, ruler in enumerate(rulers):
            missing = any(line[place] is None for line in heights)
            _axis(axes, place, ruler, missing=missing)
        _lines(findings, axes, lines, heights)
        names = [_broken(findings.short[d.name]) for d in findings.space.dimensions]
        names += [textwrap.fill(Measure.of(aim).title, 14) for aim in aims]
        axes.set_xticks(range(len(rulers)), names)
        absent = any(None in line for line in heights)
        _bare(axes, len(rulers), _ABSENT if absent else 0.0)
        title(figure, findings, "")
        legend(figure, [], _named(findings, lines))
    return True


def _valued(findings: Findings, record: Record) -> bool:
    aims = findings.aims.aims
    return any(findings.value(record, aim.measure) is not None for aim in aims)


def _axis_of(findings: Findings, lines: Sequence[Record], aim: str) -> Dimension:
    """From the least to the most that trials have."""
    found = [e.value for r in lines if (e := findings.value(r, aim)) is not None]
    scale = Measure.of(aim).scale
    low, high = min(found, default=0.0) * scale, max(found, default=0.0) * scale
    return Dimension(aim, aim, Floats(low=low, high=high, log=False, step=None))


def _heights(
    findings: Findings, record: Record, rulers: Sequence[Ruler]
) -> list[float | None]:
    """One for each axis, in [0, 1]; None for what the trial does not have."""
    names = [dimension.name for dimension in findings.space.dimensions]
    found = [
        ruler.place(record.settings[name]) if name in record.settings else None
        for name, ruler in zip(names, rulers, strict=False)
    ]
    for aim, ruler in zip(findings.aims.aims, rulers[len(names) :], strict=True):
        value = findings.value(record, aim.measure)
        scale = Measure.of(aim.measure).scale
        found.append(None if value is None else ruler.place(value.value * scale))
    return found


def _axis(axes: Axes, place: int, ruler: Ruler, *, missing: bool) -> None:
    axes.plot([place, place], [0, 1], color="#9a9a9a", linewidth=1.0, zorder=1)
    for height, word in ruler.ticks():
        axes.plot([place - 0.02, place + 0.02], [height] * 2, color=INK, linewidth=0.8)
        short = textwrap.shorten(word, 16, placeholder="…")
        _write(axes, short, (place, height), (-5, 0) if place == 0 else (4, 0))
    if missing:
        _write(axes, "none", (place, _ABSENT), (0, -9))


def _write(
    axes: Axes, word: str, at: tuple[float, float], beside: tuple[int, int]
) -> None:
    axes.annotate(
        word,
        at,
        xytext=beside,
        textcoords="offset points",
        ha={-1: "right", 0: "center", 1: "left"}[(beside[0] > 0) - (beside[0] < 0)],
        va="center",
        fontsize=8,
        color=INK,
        zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
    )


def _best(findings: Findings) -> list[int]:
    """Numbers of the trials that stand out."""
    found = [record.number for record in findings.ordered if record.feasible]
    return found[: max(_STRONG, len(findings.front))] if found else []


def _lines(
    findings: Findings,
    axes: Axes,
    lines: Sequence[Record],
    heights: Sequence[Sequence[float | None]],
) -> None:
    strong, named = _best(findings), list[float]()
    for record, line in zip(lines, heights, strict=True):
        y = [_ABSENT if height is None else height for height in line]
        style = _style(record, strong)
        axes.plot(range(len(y)), y, **style)
        if record.number in strong and all(abs(y[-1] - n) > _NEAR for n in named):
            named.append(y[-1])
            axes.annotate(
                str(record.number),
                (len(y) - 1, y[-1]),
                xytext=(34, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                color=BEST,
                annotation_clip=False,
            )


def _style(record: Record, strong: Sequence[int]) -> dict[str, Any]:
    if record.number in strong:
        first = record.number == strong[0]
        width = 2.6 if first else 1.6
        return {"color": BEST, "linewidth": width, "zorder": 4}
    if record.state == "complete":
        colour = GOOD if record.feasible else PALE
        return {"color": colour, "linewidth": 1.0, "alpha": 0.45, "zorder": 3}
    return {
        "color": PALE,
        "linewidth": 1.0,
        "linestyle": ":",
        "zorder": 2,
    }


def _named(findings: Findings, lines: Sequence[Record]) -> list[tuple[str, object]]:
    strong, bare = _best(findings), {"marker": "none", "linestyle": "-"}
    front = len(findings.aims.aims) > 1 and len(findings.front) == len(strong)
    found: list[tuple[str, object]] = []
    if strong:
        best = f"best {len(strong)}" if len(strong) > 1 else "best"
        line = swatch(BEST, **bare, linewidth=2.0)
        found.append(("front" if front else best, line))
    if any(r.feasible and r.number not in strong for r in lines):
        found.append(("complete", swatch(GOOD, **bare, linewidth=1.2)))
    if any(r.state == "complete" and not r.feasible for r in lines):
        found.append(("infeasible", swatch(PALE, **bare, linewidth=1.2)))
    if any(r.state != "complete" for r in lines):
        dotted = swatch(PALE, marker="none", linestyle=":", linewidth=1.2)
        found.append(("not complete, at the last probe", dotted))
    return found


def _bare(axes: Axes, count: int, low: float) -> None:
    axes.set_yticks([])
    axes.set_xlim(-0.15, count - 1 + 0.55)
    axes.set_ylim(low - 0.05, 1.04)
    axes.tick_params(axis="x", length=0, labelsize=9, pad=6)
    axes.spines[:].set_visible(False)


def _broken(name: str) -> str:
    """A long name in lines that end at its dots."""
    return name if len(name) <= 14 else name.replace(".", ".\n").replace("@", "\n@")
