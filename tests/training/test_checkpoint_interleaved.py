"""A start of a run that stood still wakes up while a later one trains."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from rrl_dist.core.errors import UserError
from rrl_dist.core.store import open_store
from rrl_dist.training.checkpoint import Checkpoints
from rrl_dist.training.checkpoint_copy import CheckpointCopy
from rrl_dist.training.checkpoint_parts import Part
from rrl_dist.training.checkpoint_policy import Kept
from rrl_dist.training.checkpoint_writer import CheckpointWriter
from rrl_dist.training.wishes import LeftError
from tests.training.saved import alone, attempt, write

pytestmark = pytest.mark.slow
# Calls between two places where the earlier start stands still; a save has some 2000.
APART = 307


def state(step: int, who: str) -> dict[str, Any]:
    named = {"identity": "x", "workers": 1, "objective": {}}
    return {"step": step, "who": who, "weight": torch.full((50,), float(step)), **named}


def nothing(line: str) -> None:
    """News are no subject here."""


class Stall:
    """Makes threads that begin in it stand still at a call, until `end`."""

    def __init__(self, calls: int) -> None:
        self.left = calls
        self.reached, self.ended = threading.Event(), threading.Event()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        # There it would hold what another thread needs, as no other process would.
        if str(frame.f_globals.get("__name__")).startswith(("threading", "importlib")):
            return
        self.left -= 1
        if self.left == 0:
            self.reached.set()
            assert self.ended.wait(60)

    @contextmanager
    def of_new_threads(self) -> Iterator[None]:
        threading.setprofile(self)
        try:
            yield
        finally:
            threading.setprofile(None)

    def wait(self, thread: threading.Thread) -> bool:
        """Until it stands still; False if its work was done before."""
        while thread.is_alive():
            if self.reached.wait(0.001):
                return True
        return self.reached.is_set()

    def end(self) -> None:
        self.ended.set()


def copy_of(folder: Path, copied: bool) -> CheckpointCopy | None:
    store = open_store(folder.parent / f"copy-of-{folder.name}")
    return CheckpointCopy(store, "run/stage") if copied else None


def begin(
    folder: Path, keep: int, copied: bool
) -> tuple[CheckpointWriter, dict[str, Any] | None]:
    return attempt(folder, keep=keep, copy=copy_of(folder, copied), notify=nothing)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("step-*")}


def places(work: Callable[[int], bool]) -> None:
    """Call `work` with places ever later, until it says that there are no more."""
    place = 1
    while work(place):
        place += APART
    assert place > 3 * APART, "it has never stood still"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("saves", [0, 1, 2])
@pytest.mark.parametrize("keep", [1, 2])
def test_nothing_of_a_later_start_is_lost(
    tmp_path: Path, keep: int, saves: int, copied: bool
) -> None:
    def one(place: int) -> bool:
        folder = tmp_path / str(place)
        old, _ = begin(folder, keep, copied)
        for step in (4, 6):
            write(old, step, state(step, "old"))
        stall = Stall(place)
        with stall.of_new_threads():
            old.save(8, Part(state(8, "old"), 0, 1))
        assert old._writing is not None
        stood = stall.wait(old._writing._thread)
        new, begun = begin(folder, keep, copied)
        assert begun is not None
        steps = [begun["step"] + 2 * n for n in range(1, saves + 1)]
        for step in steps:
            write(new, step, state(step, "new"))
        before = contents(folder)
        stall.end()
        with suppress(LeftError):
            old.settle(alone, copied=True)
        old.close()
        new.close()
        after = contents(folder)
        assert {name: after.get(name) for name in before} == before
        last, found = begin(folder, keep, copied)
        last.close()
        assert found is not None
        if saves:
            assert (found["step"], found["who"]) == (steps[-1], "new")
        else:
            assert found["step"] >= begun["step"]
        return stood

    places(one)


@pytest.mark.parametrize("keep", [1, 2])
def test_nor_is_what_it_began_with_where_the_newest_was_damaged(
    tmp_path: Path, keep: int
) -> None:
    def one(place: int) -> bool:
        folder = tmp_path / str(place)
        old, _ = begin(folder, keep, copied=False)
        for step in (4, 6):
            write(old, step, state(step, "old"))
        stall = Stall(place)
        with stall.of_new_threads():
            old.save(8, Part(state(8, "old"), 0, 1))
        assert old._writing is not None
        stood = stall.wait(old._writing._thread)
        for path in folder.glob("step-00000008-*.pt"):
            flip(path)
        new, begun = begin(folder, keep, copied=False)
        stall.end()
        with suppress(LeftError):
            old.settle(alone, copied=True)
        old.close()
        new.close()
        # It was killed before it had saved any.
        last, found = begin(folder, keep, copied=False)
        last.close()
        if begun is not None:
            assert found is not None
            assert found["step"] >= begun["step"]
        return stood

    places(one)


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("copied", [False, True])
def test_nor_by_one_that_stood_still_as_it_began(
    tmp_path: Path, keep: int, copied: bool
) -> None:
    def one(place: int) -> bool:
        folder = tmp_path / str(place)
        first, _ = begin(folder, keep, copied)
        for step in (4, 6):
            write(first, step, state(step, "first"))
        first.close()
        checkpoints = Checkpoints(folder, nothing)
        old = CheckpointWriter(checkpoints, Kept(keep, None), copy_of(folder, copied))
        told: list[BaseException] = []
        thread = threading.Thread(target=recovering, args=(old, told))
        stall = Stall(place)
        with stall.of_new_threads():
            thread.start()
        stood = stall.wait(thread)
        new, begun = begin(folder, keep, copied)
        assert begun is not None
        assert begun["step"] == 6
        for step in (8, 10):
            write(new, step, state(step, "new"))
        before = contents(folder)
        stall.end()
        thread.join()
        assert all(isinstance(error, LeftError) for error in told), told
        if told:
            after = contents(folder)
            assert {name: after.get(name) for name in before} == before
            write(new, 12, state(12, "new"))
        # Or it has not even claimed before it woke up, and so is the later one.
        new.close()
        last, found = begin(folder, keep, copied)
        last.close()
        assert found is not None
        assert (found["step"], found["who"]) == (12 if told else 10, "new")
        return stood

    places(one)


def recovering(writer: CheckpointWriter, told: list[BaseException]) -> None:
    try:
        writer.recover()
    except (LeftError, UserError) as error:
        told.append(error)
