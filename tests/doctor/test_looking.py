"""Checks together: found by their names, none stopped by another, few rows."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import rrl_dist.doctor
from rrl_dist.core.errors import UserError
from rrl_dist.doctor import looking
from rrl_dist.doctor.finding import FAIL, OK, Asked, Row, Seen, fail, failed, ok, warn
from rrl_dist.doctor.rows import rows
from tests.doctor.asking import asked, only


@pytest.fixture
def fresh() -> Iterator[None]:
    looking.checks.cache_clear()
    yield
    looking.checks.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_a_new_file_is_a_new_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = set(looking.checks())
    assert {"versions", "devices", "network", "disk", "storage", "tokens"} <= known
    (tmp_path / "check_weather.py").write_text("def look(asked): ...\n")
    path = [*rrl_dist.doctor.__path__, str(tmp_path)]
    monkeypatch.setattr(rrl_dist.doctor, "__path__", path)
    looking.checks.cache_clear()
    assert set(looking.checks()) - known == {"weather"}


def test_every_check_does_something() -> None:
    for module in looking.checks().values():
        assert module.__doc__
        assert {"look", "compare", "between"} & set(vars(module))


def test_one_check_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def mistaken(asked: Asked) -> Seen:
        raise UserError("a is wrong; set b")

    def broken(asked: Asked) -> Seen:
        raise ZeroDivisionError("by zero\nmore")

    def hanging(asked: Asked) -> Seen:
        released.wait()
        return Seen((ok("late"),))

    looks = {"broken": broken, "hanging": hanging, "mistaken": mistaken}
    looks["fine"] = lambda asked: Seen((ok("fine"),), {"a": 1})
    found = {name: SimpleNamespace(look=look) for name, look in looks.items()}
    found["elsewhere"] = SimpleNamespace(between=None)
    monkeypatch.setattr(looking, "checks", lambda: found)
    seen = looking.look(asked(tmp_path, patience=0.2))
    released.set()
    assert seen["fine"] == Seen((ok("fine"),), {"a": 1})
    assert only(seen["mistaken"]) == fail("a is wrong", "set b")
    assert "ZeroDivisionError: by zero)" in only(seen["broken"]).found
    assert only(seen["hanging"]).found == "no answer within 0.2 s"
    assert "elsewhere" not in seen


def test_a_mistake_is_cut_into_what_is_and_what_to_do() -> None:
    assert failed(UserError("a; b; c")) == fail("a; b", "c")
    assert failed(UserError("a alone")).found == "a alone"


def test_what_nodes_share_is_one_row_and_worst_is_first() -> None:
    fine, bad = ok("fine"), fail("bad", "mend")
    found = {
        ("disk", "a"): [fine],
        ("disk", "b"): [fine, bad],
        ("disk", "c"): [fine],
        ("clocks", "a"): [warn("late", "set it")],
    }
    assert rows(found) == [
        Row("clocks", ("a",), warn("late", "set it")),
        Row("disk", ("b",), bad),
        Row("disk", ("a", "c"), fine),
    ]
    assert {row.finding.state for row in rows({("x", "a"): [fine, bad]})} == {FAIL}
    assert rows({("x", "a"): [fine, fine]})[0].finding.state == OK
