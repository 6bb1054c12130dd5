"""Checkpoints are copied to a folder or a real S3 server, and fetched from there."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.core.store import Store, open_store
from rrl_dist.training.checkpoint import Checkpoints
from rrl_dist.training.checkpoint_copy import CheckpointCopy
from rrl_dist.training.checkpoint_writer import open_writer
from tests.training.copied import NAME, Copied, state
from tests.training.saved import alone, attempt, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def copied(folder: Path, store: Store) -> Copied:
    return Copied(folder, store)


def test_what_is_durable_is_copied_and_comes_back(copied: Copied) -> None:
    assert copied.save(2, 4, 6) is None
    assert copied.same()
    assert len(copied.there()) == 4
    assert copied.news == []
    shutil.rmtree(copied.folder)
    assert copied.begins_with() == 6
    assert copied.news == [f"going on from the copy in {copied.store.address} (step 6)"]
    # The older one stays there until the next is written.
    assert len(copied.here()) == 2
    copied.save(8)
    assert copied.same()
    assert copied.here()[0].startswith("step-00000006")


def test_the_newer_of_both_is_taken(copied: Copied, tmp_path: Path) -> None:
    copied.save(2, 4)
    shutil.copytree(copied.folder, tmp_path / "older")
    copied.save(6, 8)
    assert copied.begins_with() == 8
    assert copied.news == []
    shutil.rmtree(copied.folder)
    (tmp_path / "older").rename(copied.folder)
    assert copied.begins_with() == 8
    # Fetched, it takes the place of the older of those before it.
    assert [name[:13] for name in copied.here()] == [
        *["step-00000004"] * 2,
        *["step-00000008"] * 2,
    ]
    assert len(copied.news) == 1


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_a_damaged_one_is_mended_from_the_copy(
    copied: Copied, damage: Callable[[Path], None]
) -> None:
    copied.save(2, 4)
    for path in copied.folder.glob("step-*.pt"):
        damage(path)
    assert copied.begins_with() == 4
    *damaged, last = copied.news
    assert all("is damaged" in line for line in damaged)
    assert len(damaged) == 2
    assert "going on from the copy" in last


def test_a_damaged_copy_is_named_and_the_one_before_is_taken(copied: Copied) -> None:
    copied.save(2, 4)
    shutil.rmtree(copied.folder)
    newest = max(name for name in copied.there() if name.endswith(".pt"))
    copied.store.write(f"{NAME}/{newest}", b"something else")
    assert copied.begins_with() == 2
    assert "(step 4) is damaged" in copied.news[0]
    assert "going on from the copy" in copied.news[1]
    copied.save(4)
    shutil.rmtree(copied.folder)
    assert copied.begins_with() == 4


def test_what_a_kill_leaves_in_the_copy_is_removed(copied: Copied) -> None:
    copied.save(2, 4)
    left = [
        "step-00000006-00000001-part-0001-of-0002.pt",
        "step-00000006-00000001.json",  # unreadable
    ]
    for name in left:
        copied.store.write(f"{NAME}/{name}", b"half")
    assert copied.begins_with() == 4
    copied.save(6)
    assert copied.same()
    assert len(copied.here()) == 4


def test_a_copy_that_was_set_later_gets_all_that_is_kept(copied: Copied) -> None:
    writer, _ = attempt(copied.folder, keep=3)
    for step in (2, 4):
        write(writer, step, state(step))
    writer.close()
    assert copied.there() == []
    copy = CheckpointCopy(copied.store, NAME)
    writer, _ = attempt(copied.folder, keep=3, copy=copy)
    writer.settle(alone, copied=True)  # before it saves any
    writer.close()
    assert copied.same()
    assert len(copied.here()) == 4


def test_the_best_stays_in_the_copy(copied: Copied) -> None:
    copy = CheckpointCopy(copied.store, NAME)
    writer, _ = attempt(copied.folder, keep=1, best="knn_acc", copy=copy)
    for step, value in enumerate([0.9, 0.1, 0.2], start=1):
        probe = writer.noting(lambda value=value: {"knn_acc": value})
        assert probe is not None
        probe()
        write(writer, step, state(step))
    writer.close()
    assert {name[:13] for name in copied.there()} == {"step-00000001", "step-00000003"}
    # Here it is lost; there it is not.
    shutil.rmtree(copied.folder)
    copied.save(4, keep=1, best="knn_acc")
    assert {name[:13] for name in copied.there()} == {"step-00000001", "step-00000004"}


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_store_that_is_away_is_told_of_and_caught_up_with(
    folder: Path, tmp_path: Path
) -> None:
    place, news = tmp_path / "store", []
    copy = CheckpointCopy(open_store(place), NAME)
    writer, _ = attempt(folder, copy=copy, notify=news.append)
    write(writer, 2, state(2))
    place.rename(tmp_path / "away")
    place.touch()
    write(writer, 4, state(4), copied=False)  # the training goes on
    wait_until(lambda: bool(news))
    assert len(news) == 1
    assert "a checkpoint is not copied yet: " in news[0]
    with pytest.raises(UserError, match="a file has the name of a folder"):
        write(writer, 6, state(6))  # at its end it does not
    place.unlink()
    (tmp_path / "away").rename(place)
    write(writer, 8, state(8))
    writer.close()
    names = {path.name for path in (place / NAME).glob("step-*")}
    assert names == {path.name for path in folder.glob("step-*")}


def test_a_store_that_cannot_be_used_is_told_of_before_the_training(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "store").touch()
    copy = CheckpointCopy(open_store(tmp_path / "store"), NAME)
    with pytest.raises(UserError, match="a file has the name of a folder"):
        attempt(folder, copy=copy)


def test_each_stage_of_each_run_has_a_place_of_its_own(tmp_path: Path) -> None:
    settings = {"keep": 2, "best": None, "copy": str(tmp_path / "store")}
    for run, stage in (
        ("a", "pretrain-x-1"),
        ("a", "pretrain-x-2"),
        ("b/c", "pretrain-x-1"),
    ):
        folder = tmp_path / run / "stages" / stage
        writer = open_writer(settings, folder, run, pytest.fail)
        writer.recover()
        assert writer.checkpoints.load() is None
        writer.join(writer.attempt, 0)
        write(writer, 1, state(1))
        writer.close()
        here = {path.name for path in (folder / "checkpoints").glob("step-*")}
        there = tmp_path / "store" / run / stage
        assert {path.name for path in there.glob("step-*")} == here
    assert Checkpoints(there, pytest.fail).load() is not None
