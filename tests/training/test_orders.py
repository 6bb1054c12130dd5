"""What workers hear of their driver, and what they tell it at their end."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json, write_json
from rrl_dist.training.wishes import LeftError, Wish
from rrl_dist.training.worker import DONE, Orders, ended_file, tell_end


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def orders(path: Path, clock: Clock, notice: Any = None) -> Orders:
    return Orders(path, "mine", lambda: notice, clock)


def heard(told: Orders, clock: Clock) -> Wish:
    clock.now += 1
    return told.heard()


@pytest.mark.parametrize("wish", [Wish.GO_ON, Wish.STOP, Wish.RESIZE])
def test_a_wish_is_heard(wish: Wish, tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "orders.json"
    told = orders(path, clock)
    assert heard(told, clock) is Wish.GO_ON  # there is none yet
    write_json(path, {"group": "mine", "wish": wish.name})
    assert told.heard() is Wish.GO_ON  # not looked for at each step
    assert heard(told, clock) is wish


def test_workers_of_an_earlier_driver_are_told_to_go(
    tmp_path: Path, clock: Clock
) -> None:
    write_json(tmp_path / "orders.json", {"group": "another's", "wish": "GO_ON"})
    assert heard(orders(tmp_path / "orders.json", clock), clock) is Wish.SUPERSEDED


@pytest.mark.parametrize("content", ["", "{", '{"group": '])
def test_a_file_that_cannot_be_read_stops_nobody(
    content: str, tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "orders.json"
    path.write_text(content)
    assert heard(orders(path, clock), clock) is Wish.GO_ON


def test_nodes_are_asked_after_every_five_seconds(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "orders.json"
    write_json(path, {"group": "mine", "wish": "GO_ON"})
    told = orders(path, clock, notice="a node will be gone")
    found = [heard(told, clock) for _ in range(14)]
    assert [at for at, wish in enumerate(found, 1) if wish is Wish.LOOK] == [6, 12]
    assert told.preempted()
    assert not orders(path, clock).preempted()


def test_how_workers_ended_is_written_down(tmp_path: Path) -> None:
    file = ended_file(tmp_path, "mine-1")
    for error in (LeftError(Wish.RESIZE), LeftError(Wish.SUPERSEDED), UserError("no")):
        tell_end(file, partial(raised, error))
        told = {"kind": type(error).__name__, "why": str(error)}
        assert read_json(file) == told
    tell_end(file, lambda: None)
    assert read_json(file) == {"kind": DONE, "why": ""}


def test_who_is_lost_says_nothing(tmp_path: Path) -> None:
    file = ended_file(tmp_path, "mine-1")
    with pytest.raises(RuntimeError, match="connection closed"):
        tell_end(file, partial(raised, RuntimeError("connection closed")))
    assert not file.exists()


def raised(error: BaseException) -> None:
    raise error
