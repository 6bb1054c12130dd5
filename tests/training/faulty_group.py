"""The workers of one attempt: how they are started, heard, stopped and killed."""

import os
import random
import select
import signal
import time
from dataclasses import dataclass

from tests.training.faulty import FULL, Plan, Shared, Teller, run

ANYWHERE = "at a random time"
PATIENCE = 60.0  # seconds; longer than any attempt takes


@dataclass
class Heard:
    """What the workers of one attempt told."""

    begun: int | None = None
    step: int = 0
    durable: int = 0
    copied: int = 0
    left: int | None = None
    place: str = ANYWHERE
    there: int = 0  # checkpoints in the copy before it began

    def line(self, words: list[str]) -> None:
        kind, rest = words[0], words[1:]
        assert kind != "error", " ".join(rest).replace("\\n", "\n")
        if kind == "ended":
            self.place = " ".join(rest)
        elif kind == "there":
            parts = [word for word in rest if word.startswith("step")]
            self.there = len({w for w in parts if not w.endswith(".json")})
        else:
            setattr(self, kind, int(rest[0]))


class Group:
    """Processes that train together.

    Args:
        plan: how they end.
        draw: of the moments that it leaves open.

    Attributes:
        stands: whether they were stopped, and not yet killed.
    """

    def __init__(self, plan: Plan, draw: random.Random) -> None:
        self.plan, self.draw = plan, draw
        self.heard, self.stands = Heard(), False
        self.workers: set[int] = set()
        self._text, self._pipe = b"", -1
        self._due = self._wakes = time.monotonic() + PATIENCE

    def run(self, earlier: "Group | None") -> Heard:
        """Start them, and listen until all are gone or stand still.

        The first goes by itself or is killed here, and the others are killed soon
        after, as Ray does.

        Args:
            earlier: which stand still, and wake up meanwhile.
        """
        self._pipe, writing = os.pipe()
        shared = Shared(self.plan.workers)
        for number in range(self.plan.workers):
            process = os.fork()
            if process == 0:
                os.close(self._pipe)
                run(self.plan, number, shared, Teller(writing))
            self.workers.add(process)
        os.close(writing)
        shared.memory.close()
        killed = False
        while self.workers and not self.stands:
            self._listen()
            if earlier is not None and time.monotonic() > self._wakes:
                earlier.wake()
                self._wakes += PATIENCE
            if self.plan.stops and (self._by_itself() or self._is_due()):
                self._stop()
            elif not killed:
                killed = self._killed()
            self.workers -= self._gone()
        if not self.stands:
            self.end()
        return self.heard

    def wake(self) -> None:
        """Let them go on from where they stood still."""
        for process in self.workers:
            os.kill(process, signal.SIGCONT)

    def end(self) -> None:
        """Kill those that are left, and hear the last of them."""
        for process in self.workers:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        with os.fdopen(self._pipe, "rb") as pipe:
            self._hear(pipe.read())

    def _listen(self) -> None:
        if select.select([self._pipe], [], [], 0.001)[0]:
            self._hear(os.read(self._pipe, 1 << 16))

    def _hear(self, read: bytes) -> None:
        *lines, self._text = (self._text + read).split(b"\n")
        for line in lines:
            self.heard.line(line.decode().split())
            if line.startswith(b"begun"):
                now = time.monotonic()
                self._wakes = now + self.draw.uniform(0.0, 0.1)
                if self.plan.victim < 0 or self.plan.beginning:
                    self._due = now + self.draw.uniform(0.0, 0.15)

    def _is_due(self) -> bool:
        return time.monotonic() > self._due

    def _by_itself(self) -> bool:
        return self.heard.place not in (ANYWHERE, FULL)

    def _gone(self) -> set[int]:
        return {p for p in self.workers if os.waitpid(p, os.WNOHANG)[0]}

    def _stop(self) -> None:
        for process in self.workers:
            os.kill(process, signal.SIGSTOP)
        for process in self.workers:
            os.waitpid(process, os.WUNTRACED)
        while select.select([self._pipe], [], [], 0)[0]:
            self._hear(os.read(self._pipe, 1 << 16))
        self.stands = True

    def _killed(self) -> bool:
        """Whether their end has come, and so they were killed."""
        gone = self._gone()
        self.workers -= gone
        if not gone and not self._is_due():
            return False
        assert gone or self.heard.begun is not None, "nothing has begun"
        left = sorted(self.workers)
        self.draw.shuffle(left)
        for place, process in enumerate(left):
            if gone or place:
                time.sleep(self.draw.uniform(0.0, 0.01))
            os.kill(process, signal.SIGKILL)
        return True
