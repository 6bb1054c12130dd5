"""Accuracies as a table, and the one sentence that matters most."""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rrl_dist.core.aggregate import Proportion
from rrl_dist.report import labels
from rrl_dist.report.entries import mark, method
from rrl_dist.report.run import Arm, Run

_TEXT_WIDTH = 100
_WIDEST_COLUMN = 24
_FEW_CLASSES = 10
# Weak to strong, as robustness tables are read; others follow by name.
_ATTACK_ORDER = ("clean", "feature", "pgd", "apgd-ce", "apgd", "fab", "square")


@dataclass(frozen=True)
class Table:
    """Rows of text under a header.

    Attributes:
        header, rows: cells; each row is as long as the header.
        caption: what holds for all rows.
        labels: how many columns at the left hold words; the others hold numbers.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    labels: int

    def to_markdown(self) -> str:
        """A table of GitHub's Markdown, and the caption below it."""
        numbers = len(self.header) - self.labels
        rule = [":--"] * self.labels + ["--:"] * numbers
        cells = [[escape(cell) for cell in row] for row in (self.header, *self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:])]
        return "\n".join([*lines, "", escape(self.caption), ""])

    def to_text(self) -> str:
        """For a terminal, at most 100 columns wide, without colour codes.

        A number stands above its interval. Columns that find no room go below, beside
        the label columns again.
        """
        from rich.console import Console
        from rich.text import Text

        page = Console(
            file=io.StringIO(),
            width=_TEXT_WIDTH,
            color_system=None,
            force_terminal=False,
            force_jupyter=False,
            legacy_windows=False,
        )
        for columns in self._blocks():
            page.print(self._rich_table(columns))
            page.print()
        page.print(Text(self.caption))
        assert isinstance(page.file, io.StringIO)
        lines = page.file.getvalue().splitlines()
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def _rich_table(self, columns: Sequence[int]) -> object:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE, show_edge=False, leading=1)
        for column in columns:
            table.add_column(
                Text(self._stacked(self.header[column], column)),
                justify="left" if column < self.labels else "right",
                max_width=_WIDEST_COLUMN,
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(Text(self._stacked(row[c], c)) for c in columns))
        return table

    def _stacked(self, cell: str, column: int) -> str:
        """A number above its interval, an attack above its radius."""
        return cell if column < self.labels else cell.replace(" ", "\n", 1)

    def _blocks(self) -> Iterator[list[int]]:
        """Columns that fit side by side, the label columns in each block."""
        words = list(range(self.labels))
        block, used = list(words), sum(map(self._width, words))
        for column in range(self.labels, len(self.header)):
            if used + self._width(column) > _TEXT_WIDTH and len(block) > self.labels:
                yield block
                block, used = list(words), sum(map(self._width, words))
            block.append(column)
            used += self._width(column)
        yield block

    def _width(self, column: int) -> int:
        from rich.cells import cell_len

        cells = [row[column] for row in (self.header, *self.rows)]
        lines = [s for cell in cells for s in self._stacked(cell, column).splitlines()]
        return min(_WIDEST_COLUMN, max(map(cell_len, lines), default=0)) + 3  # gap


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table's cell too."""
    return re.sub(r"([\\`*<|])", r"\\\1", re.sub(r"\s+", " ", text))


def robustness_table(runs: Sequence[Run]) -> Table:
    """Clean and robust accuracy of every arm, in percent with 95 % intervals.

    Columns: method, backbone, clean, one per attack found in any run, worst case,
    minutes. With several runs, methods are prefixed with their run's name.
    """
    components = components_of(runs)
    rows = []
    for run in runs:
        prefix = f"{run.name}: " if len(runs) > 1 else ""
        for arm in run.arms:
            cells = [_cell(arm.components.get(key)) for key in components]
            cells += [labels.percent(arm.worst)] if attacked(runs) else []
            ends = *cells, labels.minutes(arm.minutes)
            rows.append((prefix + method(arm), arm.backbone, *ends))
    attacks = [labels.attack(key) for key in components]
    attacks += ["worst case"] if attacked(runs) else []
    header = ("method", "backbone", *attacks, "minutes")
    return Table(header, tuple(rows), _caption(runs), labels=2)


def components_of(runs: Sequence[Run]) -> list[str]:
    """Every component of the runs, weak attacks before strong ones; but those made on
    other classifiers, which have a table of their own."""
    found = {key for run in runs for arm in run.arms for key in arm.components}
    own = {key for key in found if labels.TRANSFERRED.fullmatch(key) is None}
    return sorted(own | {"clean"}, key=_rank)


def attacked(runs: Sequence[Run]) -> bool:
    """Whether anything but clean images was tried."""
    components = {key for run in runs for arm in run.arms for key in arm.components}
    return components != {"clean"}


def _rank(component: str) -> tuple[int, str]:
    starts = [component.startswith(prefix) for prefix in _ATTACK_ORDER]
    return (starts.index(True) if any(starts) else len(starts), component)


def _cell(accuracy: Proportion | None) -> str:
    return labels.MISSING if accuracy is None else labels.percent(accuracy)


def _caption(runs: Sequence[Run]) -> str:
    facts = [f"{facts_of(run)}, {labels.seeds(run)}{_device(run)}." for run in runs]
    if len(set(facts)) == 1:
        told = facts[0]
    else:
        told = " ".join(f"{r.name}: {f}" for r, f in zip(runs, facts, strict=True))
    return (
        f"{told} Accuracy in percent with its 95 % interval, "
        "which covers the sampling of test images only."
    )


def _device(run: Run) -> str:
    return f", minutes on {run.device}" if run.device else ""


def facts_of(run: Run) -> str:
    """What holds for all of a run's numbers: data, images, threat model, protocol."""
    steps = labels.of_255(run.eps) if run.norm == "linf" else None
    eps = f"{run.eps:.4g}" + (f" ({steps})" if steps else "")
    used = {arm.name: arm.protocol.upper() for arm in run.arms if arm.protocol}
    if len(set(used.values())) == 1:
        protocols = list(used.values())[:1]
    elif several_protocols(run):  # which names tell
        protocols = list(dict.fromkeys(used.values()))
    else:
        protocols = [f"{name} {protocol}" for name, protocol in used.items()]
    everything = [p for arm in run.arms for p in (*arm.components.values(), arm.worst)]
    count = labels.images(run, everything)
    tasks = "; ".join(f"{name} is {_task(run, name)}" for name in run.tasks)
    about = f"{run.data} ({tasks})" if tasks else run.data
    return ", ".join([about, count, f"{labels.norm(run.norm)} eps {eps}", *protocols])


def _task(run: Run, name: str) -> str:
    """Its data set, where that is another, and its classes."""
    own = {arm.data for arm in run.arms if arm.task == name and arm.data is not None}
    words = [*own, *([_classes(run.tasks[name])] if run.tasks[name] else [])]
    return ", ".join(words)


def several_protocols(run: Run) -> bool:
    """Whether an arm was judged by more than one."""
    pairs = {(arm.arm, arm.task, arm.protocol) for arm in run.arms}
    return len(pairs) > len({(arm, task) for arm, task, _ in pairs})


def _classes(names: Sequence[str]) -> str:
    """ "classes 6, 7, 8, 9", or how many."""
    few = len(names) <= _FEW_CLASSES
    return f"classes {', '.join(names)}" if few else f"{len(names)} classes"


def lead(run: Run) -> str:
    """The result in one sentence, or one for each task and protocol.

    The arm that keeps most under the worst attack is set against the run's first arm,
    or, where the first is itself the best, against the next best.
    """
    where = f"under the worst attack at {labels.threat(run)}"
    alike: dict[tuple[str | None, str | None], list[Arm]] = {}
    for arm in run.arms:
        alike.setdefault((arm.task, arm.protocol), []).append(arm)
    return " ".join(_lead(arms, where) for arms in alike.values())


def _lead(arms: Sequence[Arm], where: str) -> str:
    ranked = sorted(arms, key=lambda arm: -arm.worst.value)
    best = ranked[0]
    name = best.name + mark([best])
    if len(ranked) == 1:
        return f"{name} keeps {labels.percent(best.worst)} % {where}."
    other = ranked[1] if best is arms[0] else arms[0]
    its = other.name + mark([other])
    points = f"{100 * (best.worst.value - other.worst.value):.1f}"
    if points == "0.0":
        return f"{name} and {its} do not differ {where}."
    if best.worst.low > other.worst.high:
        verdict = "the intervals do not overlap"
    else:
        verdict = "the intervals overlap, so this run does not tell them apart"
    return f"{name} stands {points} points above {its} {where}; {verdict}."
