"""What a driver makes of how its groups of workers ended."""

from pathlib import Path

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.core.interrupts import StoppedError
from rrl_dist.core.storage import read_json, write_json
from rrl_dist.training.attempts import Attempts, newest_step
from rrl_dist.training.checkpoint import Commit
from rrl_dist.training.group import Ended, Group, first_cause, how_ended
from rrl_dist.training.wishes import Wish
from rrl_dist.training.worker import DONE, ORDERS, ended_file

STAGE = {"train": {"batch_size": 192}}


def committed(step: int) -> str:
    """Name of the file that makes a checkpoint."""
    return Commit(step, attempt=1, hashes=(), measured={}, owner=1).name


class Judged:
    """Attempts that are told how their groups of two ended."""

    def __init__(self, folder: Path, max_failures: int = 0) -> None:
        self.folder, self.lines = folder, list[str]()
        cluster = {"max_failures": max_failures, "workers": 3, "min_workers": 1}
        self.attempts = Attempts(
            STAGE, folder, cluster, self.lines.append, lambda: False
        )

    def ends(self, kind: str, why: str = "") -> bool:
        return self.attempts.judge(Ended(2, {"kind": kind, "why": why}))

    def loses(self) -> None:
        lost = RuntimeError("connection closed\nby peer")
        assert not self.attempts.judge(Ended(2, lost=lost))

    def saves(self, step: int) -> None:
        write_json(self.folder / "checkpoints" / committed(step), {})


def test_losses_are_counted_while_nothing_is_saved(tmp_path: Path) -> None:
    judged = Judged(tmp_path, max_failures=2)
    judged.loses()
    judged.loses()
    judged.saves(8)
    judged.loses()
    judged.loses()
    assert newest_step(tmp_path) == 8
    assert judged.lines[-1] == (
        "workers were lost (connection closed); going on from step 8"
    )
    with pytest.raises(RuntimeError, match="connection closed"):
        judged.loses()


def test_workers_that_found_no_places_were_not_lost(tmp_path: Path) -> None:
    judged = Judged(tmp_path)
    for size in (3, 2):
        lost = RuntimeError("timeout")
        assert not judged.attempts.judge(Ended(size, lost=lost, crowded=True))
    three, two = judged.lines
    assert "3 workers did not find their places within 120 s" in three
    assert three.endswith("trying again with 2")
    assert two.endswith("trying again with 1")


@pytest.mark.parametrize("why", [Wish.RESIZE, Wish.PREEMPTED])
def test_workers_that_left_are_followed_by_others(why: Wish, tmp_path: Path) -> None:
    judged = Judged(tmp_path)
    judged.saves(7)
    assert not judged.ends("LeftError", why.name)
    assert judged.lines[0].endswith("; going on from step 7")


@pytest.mark.parametrize("error", [UserError, StoppedError])
def test_what_another_attempt_would_not_mend_is_raised(
    error: type[BaseException], tmp_path: Path
) -> None:
    with pytest.raises(error, match="because"):
        Judged(tmp_path, max_failures=9).ends(error.__name__, "because")


def test_a_group_that_came_to_the_last_step_is_the_last(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert Judged(tmp_path).ends(DONE)


def test_an_end_without_a_model_is_none(tmp_path: Path) -> None:
    judged = Judged(tmp_path, max_failures=1)
    assert not judged.ends(DONE)
    assert "model.safetensors is not seen here" in judged.lines[0]


def test_a_driver_whose_run_another_has_taken_over_ends(tmp_path: Path) -> None:
    """Its workers ended as if all were well, and the stage has no model."""
    with pytest.raises(UserError, match="begun again elsewhere, and goes on there"):
        Judged(tmp_path, max_failures=9).ends("LeftError", Wish.SUPERSEDED.name)


def test_only_the_newest_driver_gives_orders(tmp_path: Path) -> None:
    old, older = Group(tmp_path, "old", 2, 2), Group(tmp_path, "old", 1, 2)
    older.order(Wish.GO_ON)
    old.order(Wish.GO_ON)
    old.order(Wish.RESIZE)
    new = Group(tmp_path, "new", 1, 2)
    new.order(Wish.GO_ON)
    for group, wish in ((older, Wish.STOP), (Group(tmp_path, "old", 3, 2), Wish.GO_ON)):
        with pytest.raises(UserError, match="begun again elsewhere"):
            group.order(wish)
    assert read_json(tmp_path / ORDERS) == {"group": "new-1", "wish": "GO_ON"}
    new.order(Wish.STOP)
    assert read_json(tmp_path / ORDERS) == {"group": "new-1", "wish": "STOP"}


def test_a_late_word_of_another_group_is_not_heard(tmp_path: Path) -> None:
    group = Group(tmp_path, "mine", 1, 2)
    write_json(ended_file(tmp_path, "old-4"), {"kind": "UserError", "why": "the copy"})
    assert str(how_ended(group, None).lost) == "they ended without a word"
    told = {"kind": DONE, "why": ""}
    write_json(ended_file(tmp_path, group.name), told)
    assert how_ended(group, None) == Ended(2, told)


def test_what_ray_raises_is_told_apart(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.exceptions import ActorDiedError
    from ray.train.v2._internal.exceptions import (
        WorkerGroupStartupFailedError,
        WorkerGroupStartupTimeoutError,
    )
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    group = Group(tmp_path, "mine", 1, 2)
    no_places = ControllerError(WorkerGroupStartupTimeoutError(2))
    assert how_ended(group, no_places).crowded
    failed = WorkerGroupStartupFailedError("a worker failed to initialize")
    gloo = RuntimeError("Gloo connectFullMesh failed")
    for cause in (failed, gloo):
        ended = how_ended(group, ControllerError(cause))
        assert (ended.crowded, ended.lost) == (False, cause)
    died, mistake = ActorDiedError(), UserError("no such folder")
    workers = WorkerGroupError("two failed", {0: gloo, 1: died})
    assert first_cause(workers) is gloo
    workers = WorkerGroupError("two failed", {0: gloo, 1: mistake})
    assert first_cause(workers) is mistake
    assert first_cause(died) is died
