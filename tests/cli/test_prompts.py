"""Bars keep still while a debugger asks on their terminal."""

import io
import pdb
from collections.abc import Callable

from rich.console import Console
from rich.progress import TextColumn

from rrl_dist.cli.prompts import QuietBars, at_prompt


class Typist(io.StringIO):
    """What a debugger reads its commands from; does something before each answer."""

    def __init__(self, before: Callable[[], None]) -> None:
        super().__init__()
        self.before = before

    def readline(self, size: int | None = -1) -> str:
        self.before()
        return "c\n"


def test_bars_are_drawn_but_while_a_debugger_asks() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=40)
    bars = QuietBars(
        TextColumn("{task.description}"), console=console, auto_refresh=False
    )
    drawn: list[tuple[bool, int]] = []

    def draw() -> None:
        before = shown.tell()
        bars.refresh()
        drawn.append((at_prompt(), shown.tell() - before))

    with bars:
        bars.add_task("training")
        draw()
        debugger = pdb.Pdb(stdin=Typist(draw), stdout=io.StringIO(), nosigint=True)
        debugger.runcall(draw)
        draw()
    asked = [at for at, _ in drawn]
    assert asked.count(True) >= 1
    assert asked.count(False) == 3
    assert all((characters == 0) == at for at, characters in drawn)
