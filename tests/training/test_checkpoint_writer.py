"""Checkpoints are written beside the training, by all workers, and only whole ones."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from rrl_dist.core.errors import UserError
from rrl_dist.training.checkpoint import Checkpoints, Commit
from rrl_dist.training.checkpoint_parts import Part, piece
from rrl_dist.training.checkpoint_policy import Kept, check_checkpoints
from rrl_dist.training.checkpoint_writer import CheckpointWriter
from rrl_dist.training.wishes import LeftError
from tests.training.saved import alone, attempt, saved, write

WORKERS = 3


def state(step: int) -> dict[str, Any]:
    return {
        "identity": "x",
        "step": step,
        "workers": 1,
        "objective": {"w": torch.full((6,), float(step))},
    }


def part(step: int, number: int, of: int = WORKERS) -> Part:
    """Of a state of which each worker has two elements."""
    own = piece(torch.full((2,), float(step)), 2 * number, (2 * of,))
    return Part({**state(step), "objective": {"w": own}}, number, of)


def group(folder: Path, workers: int = WORKERS) -> list[CheckpointWriter]:
    """The workers of an attempt that begins; the first is rank 0."""
    first, begun = attempt(folder)
    start = 0 if begun is None else int(begun["step"])
    others = [
        CheckpointWriter(Checkpoints(folder, pytest.fail), Kept(2, None), None)
        for _ in range(workers - 1)
    ]
    for other in others:
        other.join(first.attempt, start)
    return [first, *others]


class Collective:
    """What `any_worker` does, among threads."""

    def __init__(self, workers: int) -> None:
        self.flags: list[bool] = []
        self.barrier = threading.Barrier(workers)

    def agree(self, flag: bool) -> bool:
        self.flags.append(flag)
        self.barrier.wait(timeout=60)
        found = any(self.flags)
        if self.barrier.wait(timeout=60) == 0:
            self.flags.clear()
        self.barrier.wait(timeout=60)
        return found


def together(writers: list[CheckpointWriter], step: int) -> list[BaseException | None]:
    """All save a step and wait for it; what each of them raised."""
    collective = Collective(len(writers))

    def one(number: int) -> BaseException | None:
        try:
            writers[number].save(step, part(step, number, len(writers)))
            writers[number].settle(collective.agree, copied=True)
        except Exception as error:
            return error
        return None

    with ThreadPoolExecutor(len(writers)) as pool:
        return list(pool.map(one, range(len(writers))))


def loaded(folder: Path) -> dict[str, Any]:
    found = Checkpoints(folder, pytest.fail).load()
    assert found is not None
    assert torch.equal(found["objective"]["w"], torch.full((6,), float(found["step"])))
    return found


def test_training_goes_on_until_all_parts_are_there(tmp_path: Path) -> None:
    first, *others = group(tmp_path)
    first.save(4, part(4, 0))
    others[0].save(4, part(4, 1))
    time.sleep(0.1)
    # All of this happened while a third worker had not even begun.
    assert Checkpoints(tmp_path, pytest.fail).load() is None
    others[1].save(4, part(4, 2))
    first.settle(alone, copied=True)
    assert loaded(tmp_path)["step"] == 4
    for writer in (first, *others):
        writer.close()
    assert not list(tmp_path.glob("*.sha256")), "they have served"


def test_workers_save_and_wait_together(tmp_path: Path) -> None:
    writers = group(tmp_path)
    for step in (2, 4, 6):
        assert together(writers, step) == [None] * WORKERS
        assert loaded(tmp_path)["step"] == step
    assert len(list(tmp_path.glob("step-*"))) == 2 * (WORKERS + 1)


@pytest.mark.parametrize("broken", [0, 1])
def test_where_one_worker_fails_all_do(tmp_path: Path, broken: int) -> None:
    writers = group(tmp_path / "here")
    assert together(writers, 2) == [None] * WORKERS
    (tmp_path / "file").touch()
    writers[broken].folder = tmp_path / "file"  # what it writes there fails
    found = together(writers, 4)
    for number, error in enumerate(found):
        if number == broken:
            assert isinstance(error, UserError)
            assert "a file has the name of a folder" in str(error)
        else:
            assert isinstance(error, RuntimeError)
    for writer in writers:
        writer.close(patience=0)
    assert loaded(tmp_path / "here")["step"] == 2


def test_an_error_is_raised_once_and_not_at_the_save(tmp_path: Path) -> None:
    writer, _ = attempt(tmp_path / "here")
    writer.folder = tmp_path / "file"
    writer.folder.touch()
    writer.save(1, Part(state(1), 0, 1))
    with pytest.raises(UserError, match="a file has the name"):
        writer.settle(alone, copied=False)
    writer.close()


def test_a_part_that_never_comes_leaves_no_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path, 2, state(2))
    first, second, _ = group(tmp_path)
    first.save(4, part(4, 0))
    second.save(4, part(4, 1))
    for writer in (second, first):
        writer.close(patience=0.1)
    assert loaded(tmp_path)["step"] == 2
    assert len(list(tmp_path.glob("step-00000004-*"))) == 3
    # Who goes on takes none of what was left.
    writers = group(tmp_path)
    assert not list(tmp_path.glob("step-00000004-*"))
    assert together(writers, 4) == [None] * WORKERS
    assert loaded(tmp_path)["step"] == 4


def test_parts_of_two_attempts_do_not_mix(tmp_path: Path) -> None:
    _, old, _ = group(tmp_path)
    first, second = group(tmp_path, workers=2)
    # Late, after the new attempt has begun and swept.
    old.save(4, part(4, 1))
    old.close()
    first.save(4, part(4, 0, of=2))
    time.sleep(0.1)
    assert Checkpoints(tmp_path, pytest.fail).load() is None
    second.save(4, part(4, 1, of=2))
    first.settle(alone, copied=True)
    found = Checkpoints(tmp_path, pytest.fail).load()
    assert found is not None
    assert found["objective"]["w"].tolist() == [4.0] * 4


def test_of_two_attempts_only_the_later_makes_checkpoints(tmp_path: Path) -> None:
    old, _ = attempt(tmp_path)
    write(old, 2, state(2))
    new, begun = attempt(tmp_path)
    assert begun is not None
    write(new, 4, state(4))
    old.save(6, Part(state(6), 0, 1))
    with pytest.raises(LeftError, match="SUPERSEDED"):
        old.settle(alone, copied=True)
    old.close()
    assert [c.step for c in new.checkpoints.commits()] == [4, 2]
    assert loaded(tmp_path)["step"] == 4


def measured(writer: CheckpointWriter, value: float) -> None:
    probe = writer.noting(lambda: {"knn_acc": value, "linear_acc": -value})
    assert probe is not None
    assert probe()["knn_acc"] == value or value != value


def steps(folder: Path) -> list[int]:
    return [commit.step for commit in Checkpoints(folder, pytest.fail).commits()]


def test_the_best_by_the_probe_stays(tmp_path: Path) -> None:
    writer, _ = attempt(tmp_path, keep=1, best="knn_acc")
    assert writer.noting(None) is None
    kept = []
    for step, value in enumerate([0.5, 0.7, float("nan"), 0.6, 0.7, 0.1, 0.2], start=1):
        measured(writer, value)
        write(writer, step, state(step))
        kept.append(steps(tmp_path))
    assert kept == [[1], [2], [3, 2], [4, 2], [5], [6, 5], [7, 5]]
    # One that was not judged is none of the best, and another attempt knows them.
    writer, _ = attempt(tmp_path, keep=1, best="knn_acc")
    write(writer, 8, state(8))
    assert steps(tmp_path) == [8, 5]
    writer, _ = attempt(tmp_path, keep=1, best=None)
    write(writer, 9, state(9))
    assert steps(tmp_path) == [9]


def test_the_best_is_by_the_metric_that_is_set_now(tmp_path: Path) -> None:
    """Another metric than before, on the same stage."""
    writer, _ = attempt(tmp_path, keep=1, best="knn_acc")
    for step, value in ((1, 0.9), (2, 0.1)):
        measured(writer, value)
        write(writer, step, state(step))
    assert steps(tmp_path) == [2, 1]
    writer, _ = attempt(tmp_path, keep=1, best="robust_acc")
    for step, value in ((3, 0.3), (4, 0.5), (5, 0.4)):
        probe = writer.noting(lambda value=value: {"robust_acc": value})
        assert probe is not None
        probe()
        write(writer, step, state(step))
    assert steps(tmp_path) == [5, 4]
    # All that was measured is known, whatever was set then.
    writer, _ = attempt(tmp_path, keep=2, best=None)
    measured(writer, 0.7)
    write(writer, 6, state(6))
    writer, _ = attempt(tmp_path, keep=2, best="linear_acc")
    write(writer, 7, state(7))
    write(writer, 8, state(8))
    assert steps(tmp_path) == [8, 7, 6]


def test_kept_is_what_a_slow_reading_of_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        count = int(torch.randint(1, 8, (), generator=generator))
        found = [
            Commit(step, 1, (), {} if draw < 0.3 else {"knn_acc": round(draw, 1)}, 1)
            for step, draw in enumerate(torch.rand(count, generator=generator).tolist())
        ]
        for last in (1, 2, 5):
            for best in (None, "knn_acc"):
                expected = {commit.step for commit in found[-last:]}
                values = [c.measured["knn_acc"] for c in found if c.measured]
                if best and values:
                    top = [c for c in found if c.measured == {"knn_acc": max(values)}]
                    expected.add(top[-1].step)
                kept = Kept(last, best).of(reversed(found))
                assert {commit.step for commit in kept} == expected
                assert len(kept) <= Kept(last, best).most


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep": 0}, "keep=0; set a whole number from 1 on"),
        ({"keep": 1.5}, "keep=1.5; set a whole number"),
        ({"keep": True}, "keep=True; set a whole number"),
        ({"best": "loss"}, "best=loss; choose knn_acc, linear_acc, robust_acc"),
        ({"best": "knn_acc"}, "is measured by a probe, and there is none"),
        ({"copy": "s3://"}, "lacks a bucket"),
        ({"copy": "ftp://host/x"}, "is no address that pyarrow knows"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], said: str) -> None:
    train = {"checkpoints": {"keep": 2, "best": None, "copy": None, **settings}}
    for probe in (None, {"every_epochs": 0}):
        with pytest.raises(UserError, match=said) as told:
            check_checkpoints(train, probe)
        assert "\n" not in str(told.value)
    if "best" in settings and settings["best"] == "knn_acc":
        check_checkpoints(train, {"every_epochs": 1})
