"""A log that is read from its beginning again and again, and shown once."""

from collections.abc import Callable


class Log:
    """Shows each character once, however often reading begins anew.

    Args:
        show: called with what was not shown so far, in order.

    Attributes:
        shown: characters so far.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show, self.shown, self._passed = show, 0, 0

    def begin(self) -> None:
        """What is added from now on comes from the log's beginning."""
        self._passed = 0

    def add(self, text: str) -> None:
        """What follows in the log, in pieces of any size."""
        if fresh := text[max(self.shown - self._passed, 0) :]:
            self._show(fresh)
        self._passed += len(text)
        self.shown = max(self.shown, self._passed)
