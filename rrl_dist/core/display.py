"""What a running command tells a person, whatever it is shown on."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class Display(Protocol):
    """News of a running experiment."""

    def stage(self, name: str, *, done: bool) -> None:
        """A stage begins, or is skipped since it is done."""

    def notify(self, line: str) -> None:
        """One line of news."""

    def training(
        self, folder: Path, steps: int, batch_size: int
    ) -> AbstractContextManager[None]:
        """Follow what a training stage writes into `folder`, while it runs."""
        ...

    def counting(self, what: str) -> Callable[[int], Callable[[int], None]]:
        """A progress bar: called with a total, it returns what advances it."""
        ...
