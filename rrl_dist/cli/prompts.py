"""Bars share their terminal with the prompt of a debugger."""

import functools
import pdb
from typing import Any

from rich.progress import Progress

_asking = 0


class QuietBars(Progress):
    """Bars that are not drawn while pdb, or what is built on it (ipdb), asks."""

    def __init__(self, *columns: Any, **options: Any) -> None:
        super().__init__(*columns, **options)
        _watch_pdb()
        draw = self.live.refresh

        def refresh() -> None:
            if not at_prompt():
                draw()

        # What the thread calls that draws them several times a second.
        self.live.refresh = refresh  # type: ignore[method-assign]


def at_prompt() -> bool:
    """Whether a debugger waits for a command, since the first bars were made."""
    return _asking > 0


def _watch_pdb() -> None:
    """Count its prompts where they begin and end.

    To look for one on the main thread's stack would need no patch, but another
    thread's frames change while they are read (CPython hands out freed ones).
    """
    ask = pdb.Pdb.interaction
    if hasattr(ask, "__wrapped__"):
        return

    @functools.wraps(ask)
    def interaction(debugger: pdb.Pdb, *arguments: Any, **options: Any) -> None:
        global _asking
        _asking += 1
        try:
            ask(debugger, *arguments, **options)
        finally:
            _asking -= 1

    pdb.Pdb.interaction = interaction  # type: ignore[method-assign, assignment]
