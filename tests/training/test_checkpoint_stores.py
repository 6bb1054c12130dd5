"""Stores that are away, slow, damaged or another run's cost no checkpoint."""

import re
import shutil
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from rrl_dist.core.errors import DamagedError, UserError
from rrl_dist.core.store import Store, open_store
from rrl_dist.training.checkpoint_copy import CheckpointCopy
from rrl_dist.training.checkpoint_parts import Part
from rrl_dist.training.wishes import LeftError
from tests.training.copied import NAME, Copied, kind, state
from tests.training.saved import alone, attempt, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


class Troubled:
    """A store whose operations wait, or fail, as a test says."""

    def __init__(self, store: Store) -> None:
        self.store, self.address = store, store.address
        self.error: UserError | None = None
        self.open = threading.Event()
        self.open.set()
        self.written: list[str] = []

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.store, name)

        def answer(*arguments: Any) -> Any:
            assert self.open.wait(60)
            if self.error is not None:
                raise self.error
            if name == "write":
                self.written.append(arguments[0].removeprefix(f"{NAME}/"))
            return operation(*arguments)

        return answer


@pytest.fixture
def troubled(tmp_path: Path) -> Troubled:
    return Troubled(open_store(tmp_path / "store"))


def copy_in(troubled: Troubled) -> CheckpointCopy:
    return CheckpointCopy(cast(Store, troubled), NAME)


def test_between_two_groups_a_store_may_be_away(
    folder: Path, troubled: Troubled
) -> None:
    news: list[str] = []
    writer, _ = attempt(folder, copy=copy_in(troubled), notify=news.append)
    write(writer, 2, state(2))
    writer.close()
    troubled.error = UserError("the endpoint does not answer")
    writer, begun = attempt(folder, copy=copy_in(troubled), notify=news.append)
    assert begun is not None
    assert begun["step"] == 2
    assert "is not used now: the endpoint does not answer" in news[0]
    write(writer, 4, state(4), copied=False)
    troubled.error = None
    write(writer, 6, state(6))
    writer.close()
    there = CheckpointCopy(troubled.store, NAME)
    assert {c.step for c in there._commits(there._names())} == {4, 6}
    assert there.newest_attempt(folder) == 2
    # Where nothing is left here, all depends on it.
    shutil.rmtree(folder)
    troubled.error = UserError("the endpoint does not answer")
    with pytest.raises(UserError, match="does not answer"):
        attempt(folder, copy=copy_in(troubled), notify=news.append)
    troubled.error = None
    _, begun = attempt(folder, copy=copy_in(troubled), notify=news.append)
    assert begun is not None
    assert begun["step"] == 6


def test_nothing_waits_for_a_slow_store_but_the_end(
    folder: Path, troubled: Troubled
) -> None:
    writer, _ = attempt(folder, copy=copy_in(troubled))
    write(writer, 1, state(1))
    troubled.open.clear()
    for step in range(2, 10):
        write(writer, step, state(step), copied=False)
    troubled.open.set()
    writer.settle(alone, copied=True)
    writer.close()
    names = {kind(name)[:13] for name in troubled.written if name.endswith(".pt")}
    # Those that were replaced meanwhile were left out, but the one in hand.
    assert {"step-00000008", "step-00000009"} <= names
    assert len(names) <= 4
    copied = Copied(folder, troubled.store)
    assert copied.same()


def test_a_damaged_file_of_a_bucket_is_no_store_that_is_away(
    folder: Path, troubled: Troubled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that hashes what it gives tells of damage by itself."""
    copied = Copied(folder, troubled.store)
    copied.save(2, 4)
    shutil.rmtree(folder)
    read = Store.read

    def checked(store: Store, name: str) -> bytes:
        if "step-00000004" in name:
            raise DamagedError(f"{name} is damaged; remove it")
        return read(store, name)

    monkeypatch.setattr(Store, "read", checked)
    assert copied.begins_with() == 2


def test_of_two_attempts_the_earlier_changes_nothing_in_the_copy(
    tmp_path: Path, troubled: Troubled
) -> None:
    """Not even where it does not see the other one's folder any more."""
    here, news = tmp_path / "here", list[str]()
    old, _ = attempt(here, copy=copy_in(troubled), notify=news.append)
    write(old, 2, state(2))
    shutil.copytree(here, tmp_path / "cut-off")
    other = Copied(here, troubled.store)
    other.save(4, 6, 8)
    there = other.there()
    # As on a node that is cut off from the shared folder, but not from the store.
    old.checkpoints.folder = old.folder = tmp_path / "cut-off"
    old.save(4, Part(state(4), 0, 1))
    with pytest.raises(LeftError, match="SUPERSEDED"):
        old.settle(alone, copied=True)
    old.close()
    assert other.there() == there
    assert other.begins_with() == 8


def test_two_runs_do_not_copy_to_one_place(tmp_path: Path, store: Store) -> None:
    one, other = Copied(tmp_path / "one", store), Copied(tmp_path / "other", store)
    one.save(2, 4)
    there = one.there()
    with pytest.raises(UserError, match=f"holds copies of {one.folder};") as told:
        other.save(6)
    assert "\n" not in str(told.value)
    assert one.there() == there
    # On a new disk under another name, one says that it is meant.
    shutil.rmtree(one.folder)
    (file,) = re.findall(r"remove (\S+) there", str(told.value))
    store.remove(f"{NAME}/{file}")
    assert other.begins_with() == 4
