"""A long run that faults end again and again, and that goes on from what is there.

    python -m tests.training.faults 200 FOLDER

The first half has a folder alone, the other half copies to an S3 server on loopback.
What a fault costs is held against what the documentation says, and printed as a table.
"""

import random
import re
import shutil
import sys
import time
from collections import Counter, defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from rrl_dist.training.checkpoint_parts import write_part
from tests.core.s3 import s3_server
from tests.training.faulty import EVERY, KEPT, Plan, part_of
from tests.training.faulty_group import Group, Heard

DAMAGED = "and a file is damaged"
LOST = "and the disk is lost"
STOPPED = "stopped, and wakes up beside the next"
MOST = KEPT + 1 + 1  # the best, and the one that is written
# About two checkpoints' calls in threads of the first worker, without and with a copy,
# and of another; of a beginning; and of two copies.
CALLS, OTHERS, BEGINNING, COPYING = {False: 5200, True: 8000}, 2300, 1500, 1500
_CHECKPOINT = re.compile(r"step-\d+(-[0-9a-f]{8})?")


@dataclass
class Faults:
    """One run and its faults.

    Attributes:
        folder: of its checkpoints.
        store: address of their copy, or None.
        safe: the step that the next attempt must not begin before.
        copied: the last that was told to be durable, and so copied.
        reached: the last step that was seen.
        fault: what ended the last attempt that had begun.
        asleep: workers that stand still.
        seen, again: faults by kind; the most steps that were done again after one.
    """

    folder: Path
    store: str | None
    draw: random.Random
    safe: int = 0
    copied: int = 0
    reached: int = 0
    since_damage: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    again: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    fault: str = ""
    asleep: Group | None = None

    def one(self) -> None:
        """An attempt, its end by a fault, and what was left held against the rules."""
        plan, beside = self._plan(), self.asleep is not None
        heard = self._attempt(plan)
        kind = STOPPED if plan.stops and self.asleep else heard.place
        assert heard.left is None, "nobody else has begun"
        if heard.begun is not None:
            self._check_begin(heard)
            self.fault = kind
            self.reached = max(heard.step, heard.begun)
            self.safe = max(heard.durable, heard.begun)
            self.copied = max(self.copied, heard.copied)
            # What one beside has left late is in the way of knowing which is damaged.
            self.since_damage += heard.durable > heard.begun + EVERY and not beside
        self._check_disk(heard, MOST + beside)
        if (
            self.asleep is None
            and not beside
            and self.draw.random() < 0.3
            and (more := self._break_more())
        ):
            self.fault = kind = more
        self.seen[kind] += 1

    def finish(self) -> None:
        """An attempt that is not part of the count, for what the last fault left."""
        quiet = {"victim": -1, "stops": False, "beginning": False}
        heard = self._attempt(replace(self._plan(), **quiet))
        while heard.begun is None:
            heard = self._attempt(replace(self._plan(), **quiet))
        self._check_begin(heard)

    def _plan(self) -> Plan:
        workers = self.draw.choice((1, 2, 3))
        victim = self.draw.randrange(workers) if self.draw.random() < 0.7 else -1
        beginning = self.draw.random() < 0.15
        most = BEGINNING if beginning else OTHERS
        if victim == 0 and not beginning:
            most = CALLS[self.store is not None]
        copying = self.store is not None and victim == 0 and self.draw.random() < 0.5
        if copying and not beginning:
            most = COPYING
        full = 0 if victim < 0 or self.draw.random() < 0.8 else self.draw.randint(1, 20)
        return Plan(
            self.folder,
            self.store,
            self.draw.choice((None, "knn_acc", "robust_acc")),
            workers,
            victim=0 if beginning else victim,
            calls=self.draw.randint(1, most),
            beginning=beginning,
            copying=copying and not beginning,
            full=full,
            stops=not beginning and not full and self.draw.random() < 0.2,
        )

    def _check_begin(self, heard: Heard) -> None:
        assert heard.begun is not None
        assert heard.begun >= self.safe, f"{self.fault}: {heard.begun} < {self.safe}"
        again = self.reached - heard.begun
        limit = 2 * EVERY if self.fault == DAMAGED else EVERY
        # Copies are made when there is time for them.
        assert again <= limit or self.fault == LOST, f"{self.fault}: {again} again"
        self.again[self.fault] = max(self.again[self.fault], again)

    def _check_disk(self, heard: Heard, most: int) -> None:
        files = [p.name for p in self.folder.glob("*step-*") if ".json" not in p.name]
        here = {match[0] for name in files if (match := _CHECKPOINT.search(name))}
        assert len(here) <= most, sorted(files)
        assert heard.there <= most

    def _break_more(self) -> str | None:
        """Beyond the kill: a byte of the newest checkpoint, or the whole folder."""
        commits = sorted(self.folder.glob("step-*.json"), key=_step)
        if self.store is not None and self.draw.random() < 0.5:
            shutil.rmtree(self.folder, ignore_errors=True)
            # What was only begun with may not have been copied yet.
            self.safe = min(self.safe, self.copied)
            return LOST
        if len(commits) >= KEPT and self.since_damage:
            parts = sorted(self.folder.glob(f"{commits[-1].stem}-*.pt"))
            broken = self.draw.choice(parts)
            content = bytearray(broken.read_bytes())
            content[self.draw.randrange(len(content))] ^= 1
            broken.write_bytes(content)
            self.since_damage = 0
            before = _step(commits[-2])
            self.safe = min(self.safe, max(before, self.copied if self.store else 0))
            return DAMAGED
        return None

    def _attempt(self, plan: Plan) -> Heard:
        group, earlier = Group(plan, self.draw), self.asleep
        heard = group.run(earlier)
        if earlier is not None:
            earlier.end()
        self.asleep = group if group.stands else None
        return heard


def _step(commit: Path) -> int:
    return int(commit.name.split("-")[1])


def main(count: int, folder: Path, address: str | None = None) -> None:
    """Print a table of so many faults; AssertionError where one costs too much.

    Args:
        count: of faults.
        folder: for the runs; it need not exist.
        address: of an S3 server's bucket; None: one is started.
    """
    begun, rows = time.monotonic(), []
    # So that what torch imports for the first file is no part of each attempt.
    write_part(folder / "first", part_of(0, 0, 1).state)
    where = nullcontext(address) if address is not None else s3_server()
    with where as store:
        for name, place, share in (
            ("a folder", None, count - count // 2),
            ("a folder and S3", store, count // 2),
        ):
            faults = Faults(
                folder / name.replace(" ", "-"), place, random.Random(count)
            )
            for _ in range(share):
                faults.one()
            faults.finish()
            seen, again = faults.seen, faults.again
            rows += [(name, kind, seen[kind], again.get(kind, "")) for kind in seen]
    print("| checkpoints in | killed | faults | steps again, at most |")
    print("| :-- | :-- | --: | --: |")
    for name, kind, seen, again in sorted(rows):
        print(f"| {name} | {kind} | {seen} | {again} |")
    total = sum(seen for _, _, seen, _ in rows)
    print(f"{total} faults in {time.monotonic() - begun:.0f} s; none lost a checkpoint")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
