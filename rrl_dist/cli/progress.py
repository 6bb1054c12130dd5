"""What a person sees while an experiment runs."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rrl_dist.cli.prompts import QuietBars
from rrl_dist.evaluate.costs import duration
from rrl_dist.evaluate.status import Standing, Status
from rrl_dist.training.journal import read_metrics
from rrl_dist.training.worker import NOTES

_PERCENT = ("knn_acc", "linear_acc", "robust_acc")


class Terminal:
    """Progress bars on a terminal; plain lines where the output is a file."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None

    def stage(self, name: str, *, done: bool) -> None:
        """One line for each stage."""
        self._close_bar()
        mark = "[green]done[/]    " if done else "[bold]running[/] "
        self.console.print(f"{mark} {name}")

    def notify(self, line: str) -> None:
        """One line of news, not taken for markup."""
        self.console.print(f"         {line}", markup=False)

    def counting(self, what: str) -> Callable[[int], Callable[[int], None]]:
        """See `rrl_dist.experiment.Display`."""

        def start(total: int) -> Callable[[int], None]:
            self._close_bar()
            bar = self._bar = self._progress()
            bar.start()
            task = bar.add_task(what, total=total, news="")

            def advance(count: int) -> None:
                bar.advance(task, count)
                if bar.finished:
                    self._close_bar()

            return advance

        return start

    def attacking(self) -> Callable[[Status], None]:
        """See `rrl_dist.core.display.Display`."""
        self._close_bar()
        bars: dict[str, TaskID] = {}

        def show(status: Status) -> None:
            if self._bar is None and status.settled < status.total:
                self._bar = self._progress()
                self._bar.start()
            if self._bar is None:
                return
            for name, standing in status.components.items():
                if name not in bars:
                    bars[name] = self._bar.add_task(name, total=status.samples, news="")
                news = _standing_text(standing)
                if name == next(iter(status.components)):
                    news = f"{news}  {_left_text(status)}"
                self._bar.update(bars[name], completed=standing.settled, news=news)
            if status.settled == status.total:
                self._close_bar()

        return show

    @contextmanager
    def training(self, folder: Path, steps: int, batch_size: int) -> Iterator[None]:
        """Follow `metrics.jsonl` in `folder`, which some worker writes."""
        self._close_bar()
        stop = threading.Event()
        thread = threading.Thread(
            target=self._follow, args=(folder, steps, batch_size, stop), daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _follow(
        self, folder: Path, steps: int, batch_size: int, stop: threading.Event
    ) -> None:
        with self._progress() as bar:
            task = bar.add_task("training", total=steps, news="starting workers")
            seen, noted, probe = 0, 0, ""
            ended = False
            while not ended:
                ended = stop.wait(0.3)  # one more look after the end
                records = read_metrics(folder / "metrics.jsonl")
                for record in records[seen:]:
                    if "knn_acc" in record:
                        probe = _probe_text(record)
                        if not bar.console.is_terminal:
                            self.notify(f"step {record['step']}: {probe}")
                    else:
                        news = _step_text(record, batch_size)
                        text = f"{news}  {probe}".strip()
                        bar.update(task, completed=record["step"], news=text)
                seen = len(records)
                noted = self._notes(folder, noted)

    def _notes(self, folder: Path, seen: int) -> int:
        """Show what workers noted beyond the first `seen` lines."""
        file = folder / NOTES
        lines = file.read_text().splitlines() if file.is_file() else []
        for line in lines[seen:]:
            self.notify(line)
        return len(lines)

    def _progress(self) -> Progress:
        return QuietBars(
            TextColumn("         {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[news]}"),
            console=self.console,
            refresh_per_second=4,
            # A debugger that begins within a bar would have its words drawn with it.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _standing_text(standing: Standing) -> str:
    return f"{standing.broken:,} wrong" if standing.settled else ""


def _left_text(status: Status) -> str:
    """Of the whole evaluation."""
    spent = f"{duration(60 * status.device_minutes, of='device-')} so far"
    if status.left is None:
        return spent
    left = status.left
    told = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
    return f"{spent}, about {told} left"


def _step_text(record: Mapping[str, Any], batch_size: int) -> str:
    pace = record["steps_per_second"] * batch_size
    return f"loss {record['loss']:.3f}  {pace:,.0f} images/s"


def _probe_text(record: Mapping[str, Any]) -> str:
    knn, linear, robust = (100 * record[name] for name in _PERCENT)
    low, high = 100 * record["robust_low"], 100 * record["robust_high"]
    return (
        f"kNN {knn:.1f} %  linear {linear:.1f} %  "
        f"under PGD {robust:.1f} % [{low:.1f}, {high:.1f}]"
    )
