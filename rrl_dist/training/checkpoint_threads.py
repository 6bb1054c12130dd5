"""Threads that write checkpoints, and copy them, while training goes on."""

import threading
from collections.abc import Callable
from concurrent.futures import Future


class Writing:
    """What one worker's thread does: its own part, and what comes of all of them.

    Args:
        own: writes the part; returns its sha256.
        then: called with that.

    Attributes:
        own: done when the part is written.
        durable: done after `then`.
    """

    def __init__(self, own: Callable[[], str], then: Callable[[str], None]) -> None:
        self.own, self.durable = Future[None](), Future[None]()
        self._thread = threading.Thread(
            target=self._work, args=(own, then), daemon=True
        )
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _work(self, own: Callable[[], str], then: Callable[[str], None]) -> None:
        try:
            found = own()
        except BaseException as error:
            self.own.set_exception(error)
            self.durable.set_exception(error)
            return
        self.own.set_result(None)
        try:
            then(found)
            self.durable.set_result(None)
        except BaseException as error:
            self.durable.set_exception(error)


class Copying:
    """Copies in a thread that nothing waits for but the end of a run.

    What is wished while it works is done by one more call for all these wishes.

    Args:
        update: copies what is missing.
    """

    def __init__(self, update: Callable[[], None]) -> None:
        self.update = update
        self._lock = threading.Lock()
        self._wished = False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def wish(self) -> None:
        """Begin, or begin once more after the call in hand."""
        with self._lock:
            self._wished = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def error(self, *, wait: bool) -> BaseException | None:
        """What the last call raised.

        Args:
            wait: for what is wished.
        """
        thread = self._thread
        if wait and thread is not None:
            thread.join()
        return self._error

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._wished:
                    self._thread = None
                    return
                self._wished = False
            try:
                self.update()
                self._error = None
            except BaseException as error:
                self._error = error
