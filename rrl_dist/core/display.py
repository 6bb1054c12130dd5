"""What a running command tells a person, whatever it is shown on."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol


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

    def attacking(self) -> Callable[[Any], None]:
        """Of an evaluation: returns what is told its `Status` as it goes on."""
        ...

    def counting(self, what: str) -> Callable[[int], Callable[[int], None]]:
        """A progress bar: called with a total, it returns what advances it."""
        ...


class Silent:
    """A display that shows nothing."""

    def stage(self, name: str, *, done: bool) -> None:
        """See `Display`."""

    def notify(self, line: str) -> None:
        """See `Display`."""

    def training(
        self, folder: Path, steps: int, batch_size: int
    ) -> AbstractContextManager[None]:
        """See `Display`."""
        return nullcontext()

    def attacking(self) -> Callable[[Any], None]:
        """See `Display`."""
        return _nothing

    def counting(self, what: str) -> Callable[[int], Callable[[int], None]]:
        """See `Display`."""
        return lambda total: _nothing


def _nothing(told: Any) -> None:
    """Nobody looks."""
