"""A forwarded port that breaks off, as one of `ssh -L` does."""

import socket
import time
from contextlib import suppress
from threading import Thread
from types import TracebackType
from typing import Self

_AT_ONCE = 65_536  # bytes


class Forwarder:
    """Passes connections on to a port of this machine, until it is left.

    Args:
        port: that they are passed on to.

    Attributes:
        port: its own.
    """

    def __init__(self, port: int) -> None:
        self._to, self.port = port, 0
        self._listen()

    def cut(self, seconds: float) -> int:
        """End all connections, and take none for a while; returns how many it ended."""
        ended = sum(thread.is_alive() for thread in self._passing) // 2
        self._close()
        time.sleep(seconds)
        self._listen()
        return ended

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _listen(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self.port))
        self.port = self._server.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._passing: list[Thread] = []
        self._accepting = Thread(target=self._accept)
        self._accepting.start()

    def _close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._server.close()
        for one in self._sockets:
            with suppress(OSError):  # the other end was sooner
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._passing:
            thread.join()
        for one in self._sockets:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:  # it is cut
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            self._sockets += [near, far]
            for pair in ((near, far), (far, near)):
                self._passing.append(Thread(target=_pass_on, args=pair))
                self._passing[-1].start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_AT_ONCE):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
