"""Requests to end a run: Ctrl-C, and the SIGTERM of a batch system."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_REQUESTS = (signal.SIGINT, signal.SIGTERM)
_HEARD = b"\nstopping after the step in hand; Ctrl-C once more ends at once\n"


def never() -> bool:
    """What a run asks that nobody can stop."""
    return False


_WISH: ContextVar[Callable[[], bool]] = ContextVar("wish", default=never)


class StoppedError(KeyboardInterrupt):
    """A run was asked to end and has: all that it did is in its checkpoint."""


class _Requests:
    """Those that have come since `answered` began."""

    came = False


def _interrupt(number: int, frame: object) -> None:
    _Requests.came = True
    raise KeyboardInterrupt


@contextmanager
def answered() -> Iterator[None]:
    """Both requests raise KeyboardInterrupt in the block.

    Where that is lost, since Python was freeing an object, `check_answered` raises it
    again. Ctrl-C stays ignored where whoever started this process has it so.
    """
    _Requests.came = False
    with handlers_kept():
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, _interrupt)
        yield


def check_answered() -> None:
    """Raises KeyboardInterrupt where a request came before and was lost."""
    if _Requests.came:
        raise KeyboardInterrupt


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Undo what the block does to the handlers of both requests.

    Only the main thread can set handlers; in another one nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _REQUESTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopped_by(wish: Callable[[], bool]) -> Iterator[None]:
    """Runs of the block, in this thread, are asked to end when `wish` says so."""
    token = _WISH.set(wish)
    try:
        yield
    finally:
        _WISH.reset(token)


@contextmanager
def noted() -> Iterator[Callable[[], bool]]:
    """Note the first request of the block; the second raises KeyboardInterrupt.

    Yields:
        whether there was one. A thread other than the main one hears none of them, and
        is stopped by what `stopped_by` says there.
    """
    # No threading.Event: set by a handler while its own thread waits for it, it
    # never returns.
    heard = False

    def note(number: int, frame: object) -> None:
        nonlocal heard
        if heard:
            raise KeyboardInterrupt
        heard = True
        os.write(2, _HEARD)

    with handlers_kept():
        if threading.current_thread() is threading.main_thread():
            for number in _REQUESTS:
                signal.signal(number, note)
        wish = _WISH.get()
        yield lambda: heard or wish()


@contextmanager
def unheard_by_children() -> Iterator[None]:
    """Processes that the block starts do not hear requests to end.

    A terminal sends Ctrl-C to all of them, a batch system SIGTERM; who ends them is
    this process, which hears one that comes meanwhile when the block has ended.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _REQUESTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
