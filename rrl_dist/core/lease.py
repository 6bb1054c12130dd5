"""One command at a time on a store, without locks and without comparing clocks.

An object store has no exclusive create, so this is a lease: the holder writes a growing
counter, and a newcomer takes over what has not grown while it watched.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.store import Store

_NAME = "lease.json"
# How long a newcomer waits before it reads back what it wrote, in seconds. All that
# use a store have the same, or the proof in `_claim` fails.
_SETTLE = 0.5


class Lease:
    """What the holder of a store has in hand.

    Attributes:
        generation: grows with each holder; written beside results, it tells those of a
            holder that was replaced from those of its successor.
    """

    def __init__(self, store: Store, generation: int) -> None:
        self.generation = generation
        self._store, self._owner = store, uuid.uuid4().hex
        self._counter, self._lost = 0, False

    def check(self) -> None:
        """Return if the store is still held by this command, as read from it now.

        Raises:
            UserError: another has taken it; or the storage cannot be read.
        """
        if self._lost or not self._own():
            self._lost = True
            raise UserError(
                f"{self._store.address} has been taken over by another command; wait "
                "until that one ends, or choose another name="
            )

    def _own(self) -> bool:
        record = _read(self._store)
        return record is not None and record["owner"] == self._owner

    def _write(self, *, free: bool = False) -> None:
        record = {
            "owner": self._owner,
            "generation": self.generation,
            "counter": self._counter,
            "free": free,
        }
        self._store.write_json(_NAME, record)

    def _claim(
        self, seen: dict[str, Any] | None, *, beat: float, settle: float
    ) -> None:
        """Write the lease, and stay if nobody wrote after us.

        Of two that claim, the first to write reads back at least `settle` after that.
        The other read before that write; was it quick, it wrote within `settle` of its
        reading, so the first sees it and goes. Was it not, the first may have passed;
        after a beat it has seen us and is lost, or has overwritten us.
        """
        begin = time.monotonic()
        if _read(self._store) != seen:
            raise UserError(_held(self._store))
        self._write()
        if time.monotonic() - begin < settle / 2:
            time.sleep(settle)
        else:
            self.generation += 1  # not that of the one who may have passed
            self._write()
            time.sleep(beat + settle)
        if not self._own():
            raise UserError(_held(self._store))

    def _beat(self, beat: float, stop: threading.Event) -> None:
        """A beat that does not reach the storage is tried again at the next one."""
        while not stop.wait(beat):
            with suppress(UserError, OSError):
                if not self._own():
                    self._lost = True
                    return
                self._counter += 1
                self._write()

    def _release(self) -> None:
        """Spare the next one the wait; if that fails, it waits."""
        with suppress(UserError, OSError):
            if self._own():
                self._write(free=True)


@contextmanager
def held(
    store: Store, *, beat: float = 5.0, patience: float | None = None
) -> Iterator[Lease]:
    """Hold a store: one command at a time.

    A command that was killed is replaced once its lease has stood still for `patience`.
    Staleness is what the newcomer saw on its own monotonic clock: no time is compared.

    Args:
        beat: seconds between two signs of life.
        patience: seconds to watch a lease before taking it over; three beats if None.

    Raises:
        UserError: another command works there; the storage cannot be used.
    """
    patience = 3 * beat if patience is None else patience
    seen = _vacant(store, patience=patience, pause=min(beat, patience) / 4)
    lease = Lease(store, 1 if seen is None else seen["generation"] + 1)
    stop = threading.Event()
    thread = threading.Thread(target=lease._beat, args=(beat, stop), daemon=True)
    try:
        lease._claim(seen, beat=beat, settle=_SETTLE)
        thread.start()
        yield lease
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join()
        lease._release()


def _vacant(store: Store, *, patience: float, pause: float) -> dict[str, Any] | None:
    """The lease that may be replaced: none, a free one, or one that stands still."""
    seen, begin = _read(store), time.monotonic()
    while seen is not None and not seen["free"]:
        if time.monotonic() - begin >= patience:
            break
        time.sleep(pause)
        now = _read(store)
        if now is not None and not now["free"] and now != seen:
            raise UserError(_held(store))
        seen = now
    return seen


def _held(store: Store) -> str:
    return (
        f"{store.address} is held by another command that is still working there; "
        "wait, or choose another name="
    )


def _read(store: Store) -> dict[str, Any] | None:
    """The lease as it stands, None if there is none."""
    try:
        record = store.read_json(_NAME)
        if {"owner", "generation", "counter", "free"} <= set(record):
            return dict(record)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        pass
    raise UserError(
        f"{store.address}/{_NAME} is damaged; remove it if no command works there"
    )
