import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from rrl_dist.core.errors import UserError
from rrl_dist.tune import database
from rrl_dist.tune.aims import Estimate
from rrl_dist.tune.record import Asked, Outcome, Record, best, front
from rrl_dist.tune.rules import Look
from rrl_dist.tune.study import Study, read_study
from tests.tune.sweeps import (
    SAMPLERS,
    SMOOTH,
    SPACE,
    STARTS,
    drive,
    driver,
    killed,
    look_of,
    opened,
    outcome_of,
    same,
    states_of,
    study_of,
)

TWO = (True, False)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """A process that is killed loses nothing that it wrote; a machine might."""

    def set_up(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", set_up)
    yield
    event.remove(Engine, "connect", set_up)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


def refusal(address: str | Path, **changed: Any) -> str:
    with pytest.raises(UserError) as caught, study_of(address, **changed):
        pass
    message = str(caught.value)
    assert "\n" not in message
    return message


def handed(study: Study) -> Asked | None:
    """What a driver runs next."""
    left = study.left()
    return left[0] if left else study.ask()


# --- what a sweep has in the end -----------------------------------------------------


def test_a_study_has_all_that_was_told(path: Path) -> None:
    with study_of(path, trials=5) as study:
        asked = list(drive(study))
        records = study.trials()
    assert [r.number for r in records] == [a.number for a in asked] == [0, 1, 2, 3, 4]
    assert [r.settings for r in records] == [a.settings for a in asked]
    states = ["complete", "complete", "pruned", "failed", "complete"]
    assert [r.state for r in records] == states
    assert [r.feasible for r in records] == [True, True, False, False, False]
    for record, was in zip(records, asked, strict=True):
        outcome = outcome_of(was)
        for name in ("values", "violations", "measured", "why", "seconds"):
            assert getattr(record, name) == getattr(outcome, name)
        assert record.looks == (look_of(was, 10), look_of(was, 20))
        assert record.started is not None
        assert record.ended is not None
        assert record.started <= record.ended
        assert record.started.tzinfo is not None


def test_a_study_that_is_read_is_the_one_that_was_written(path: Path) -> None:
    with study_of(path, trials=4, frozen={"a": {"b": [1, 2]}}) as study:
        list(drive(study))
        frozen, records = read_study(path, "sweep")
        assert records == study.trials()
    assert frozen == {"a": {"b": [1, 2]}}
    for name, place in [("other", path), ("sweep", path.with_name("no.db"))]:
        with pytest.raises(UserError, match=f"has no sweep {name}; check name="):
            read_study(place, name)
    assert not path.with_name("no.db").exists()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_settings_are_in_the_space_and_numbers_are_counted(
    path: Path, sampler: str
) -> None:
    with study_of(path, sampler=sampler, trials=9) as study:
        asked = list(drive(study))
        assert study.ask() is None
    assert [a.number for a in asked] == list(range(9))
    for settings in (a.settings for a in asked):
        assert settings.keys() - {"weight@b"} == {"weight", "steps", "kind"}
        assert ("weight@b" in settings) == (settings["kind"] == "b")
        weight, steps = settings["weight"], settings["steps"]
        assert isinstance(weight, float)
        assert isinstance(steps, int)
        assert 0.1 <= weight <= 100
        assert 1 <= steps <= 10


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_starting_points_come_first_and_what_they_leave_out_is_drawn(
    path: Path, sampler: str
) -> None:
    with study_of(path, sampler=sampler, trials=6) as study:
        asked = [a.settings for a in drive(study)]
    assert asked[0] == STARTS[0]
    assert isinstance(asked[0]["weight"], float)
    assert asked[1]["weight"] == 10.0
    assert asked[1].keys() >= {"steps", "kind"}
    assert [a["weight"] for a in asked].count(10.0) == 1


def test_a_grid_is_used_up(path: Path) -> None:
    grid = SPACE.grid(2)
    sampler = {"name": "grid", "points": 2}
    with study_of(path, sampler=sampler, trials=100) as study:
        asked = [a.settings for a in drive(study)]
        assert study.ask() is None
    assert asked == grid


def test_another_seed_is_another_sweep(tmp_path: Path) -> None:
    def drawn(seed: int) -> list[Mapping[str, object]]:
        with study_of(tmp_path / f"{seed}.db", seed=seed, trials=4) as study:
            return [a.settings for a in drive(study)]

    assert drawn(1)[2:] != drawn(2)[2:]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "grid"])
def test_two_aims_have_a_front(path: Path, sampler: str) -> None:
    with study_of(path, sampler=sampler, trials=12, maximize=TWO) as study:
        list(drive(study))
        records, found, top = study.trials(), study.front(), study.best()
    feasible = [r for r in records if r.feasible]
    assert {r.state for r in records} == {"complete", "pruned", "failed"}

    def loses(a: Record, b: Record) -> bool:
        behind = b.values[0] >= a.values[0] and b.values[1] <= a.values[1]
        return behind and a.values != b.values

    assert found == [r for r in feasible if not any(loses(r, o) for o in feasible)]
    assert top is not None
    assert top.values[0] == max(r.values[0] for r in feasible)


def test_the_infeasible_are_never_best() -> None:
    def record(number: int, value: float, violation: float, state: Any) -> Record:
        values = (value,) if state == "complete" else ()
        return Record(
            number, state, {}, values, (violation,), {}, (), (), "", 0.0, None, None
        )

    records = [
        record(0, 0.9, 0.1, "complete"),
        record(1, 0.5, 0.0, "complete"),
        record(2, 0.5, -1.0, "complete"),
        record(3, 0.0, 0.0, "pruned"),
        record(4, 0.2, 0.0, "complete"),
    ]
    assert best(records, (True,)) is records[1]
    assert best(records, (False,)) is records[4]
    assert front(records, (True,)) == records[1:3]
    assert best(records[:1], (True,)) is None
    assert front(records[:1], (True,)) == []


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_sampler_keeps_away_from_what_is_infeasible(
    tmp_path: Path, sampler: str
) -> None:
    """More weight is better; above 1, which is two thirds of the range, infeasible."""

    def feasible(*, bound: bool) -> list[float]:
        about: dict[str, Any] = {"space": SMOOTH, "trials": 30}
        about["sampler"] = {**SAMPLERS[sampler]}
        if sampler == "nsga2":
            about["sampler"]["population"] = 6
        with study_of(tmp_path / f"{bound}.db", **about) as study:
            weights = []
            while (asked := study.ask()) is not None:
                weight = asked.settings["weight"]
                assert isinstance(weight, float)
                weights.append(weight)
                violations = (weight - 1, -1.0) if bound else (-1.0, -1.0)
                told = Outcome.complete((weight,), violations, {}, (), 1.0)
                study.tell(asked.number, told)
            top = study.best()
        assert top is not None
        assert top.values == (max(w for w in weights if w <= 1 or not bound),)
        return [w for w in weights[10:] if w <= 1]

    assert len(feasible(bound=True)) > len(feasible(bound=False)) + 3


def test_cmaes_is_kept_from_what_is_infeasible(path: Path) -> None:
    with study_of(path, sampler="cmaes", space=SMOOTH, trials=5) as study:
        list(drive(study))
        assert [r.state for r in study.trials()][4] == "complete"
        assert not study.trials()[4].feasible
    trials = optuna.load_study(study_name="sweep", storage=f"sqlite:///{path}").trials
    assert trials[4].state == optuna.trial.TrialState.PRUNED


def test_what_is_not_finite_has_failed(path: Path) -> None:
    nan = float("nan")
    measured = {"robust": Estimate(nan), "clean": Estimate(0.5, 0.4, float("inf"))}
    with study_of(path) as study:
        asked = study.ask()
        assert asked is not None
        study.tell(asked.number, Outcome.complete((nan,), (0.0,), measured, (), 1.0))
        (record,) = study.trials()
        assert study.best() is None
    assert record.state == "failed"
    assert record.why == "what the sweep wants of it is nan"
    assert str(record.measured["robust"].value) == "nan"
    assert record.measured["clean"] == Estimate(0.5, 0.4, None)


# --- a driver that is killed ---------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_driver_killed_at_any_point_is_followed_by_the_same_settings(
    tmp_path: Path, path: Path, sampler: str
) -> None:
    whole: list[Asked] = []
    about: dict[str, Any] = {"trials": 4, "seed": 5}

    def work() -> None:
        with study_of(path, sampler=sampler, **about) as study:
            whole.extend(drive(study))

    copies = states_of(path, tmp_path, work)
    assert len(copies) > 30
    # Of those whose draws know no other trial some are enough.
    for copy in copies if sampler == "tpe" else copies[::4]:
        with study_of(copy, sampler=sampler, **about) as study:
            ended = sum(r.state != "running" for r in study.trials())
            assert [handed(study)] == (whole[ended : ended + 1] or [None])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sweep_that_was_killed_ends_as_the_one_that_was_not(
    tmp_path: Path, path: Path, sampler: str
) -> None:
    about: dict[str, Any] = {"sampler": sampler, "trials": 6}
    about["maximize"] = TWO if sampler == "nsga2" else (True,)

    def work() -> None:
        with study_of(path, **about) as study:
            list(drive(study))

    copies = states_of(path, tmp_path, work)
    with study_of(path, **about) as study:
        whole = same(study.trials())
        order = study.looks()
    for copy in copies[7::31]:
        with study_of(copy, **about) as study:
            list(drive(study))
            assert same(study.trials()) == whole
            assert study.looks() == order


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_many_points_at_which_a_sweep_can_be_killed(
    tmp_path: Path, path: Path, sampler: str
) -> None:
    about: dict[str, Any] = {"sampler": sampler, "trials": 6}
    about["maximize"] = TWO if sampler == "nsga2" else (True,)

    def work() -> None:
        with study_of(path, **about) as study:
            list(drive(study))

    copies = states_of(path, tmp_path, work)
    with study_of(path, **about) as study:
        whole = same(study.trials())
    for copy in copies[::3]:
        with study_of(copy, **about) as study:
            list(drive(study))
            assert same(study.trials()) == whole


def test_trials_in_flight_are_handed_out_again_with_what_they_had(path: Path) -> None:
    with study_of(path, trials=5) as study:
        done, *flying = [study.ask() for _ in range(4)]
        assert done is not None
        study.tell(done.number, outcome_of(done))
    for _ in range(2):  # also when that driver dies at once
        with study_of(path, trials=5) as study:
            assert study.left() == flying
    with study_of(path, trials=5) as study:
        assert [a.number for a in drive(study)] == [1, 2, 3, 4]
        assert study.left() == []


def test_nothing_counts_twice(path: Path) -> None:
    with study_of(path) as study:
        asked = study.ask()
        assert asked is not None
        look = look_of(asked, 10)
        assert study.look(asked.number, look)
        assert not study.look(asked.number, look)
        assert not study.look(asked.number, Look(10, 0.0, 0.0, 1.0, 100))
        assert study.tell(asked.number, outcome_of(asked))
        assert not study.tell(asked.number, Outcome.failed("told again", 1.0))
        assert not study.look(asked.number, look_of(asked, 20))
        (record,) = study.trials()
    assert record.looks == (look,)
    assert record.state == "complete"


def test_looks_are_in_the_order_of_record(path: Path) -> None:
    with study_of(path) as study:
        first, second = study.ask(), study.ask()
        assert first is not None
        assert second is not None
        study.look(1, look_of(second, 10))
        study.look(0, look_of(first, 10))
    with study_of(path) as study:
        study.look(0, look_of(first, 20))
        study.look(1, look_of(second, 20))
        assert [(n, look.step) for n, look in study.looks()] == [
            (1, 10),
            (0, 10),
            (0, 20),
            (1, 20),
        ]


@pytest.mark.slow
def test_a_process_that_is_killed_is_followed_by_the_same_sweep(
    tmp_path: Path, path: Path
) -> None:
    with study_of(tmp_path / "whole.db") as study:
        list(drive(study))
        whole = same(study.trials())
    for after in (2, 4):
        killed(path, after=after)
    with study_of(path) as study:
        list(drive(study))
        assert same(study.trials()) == whole


@pytest.mark.slow
def test_two_processes_in_one_file(path: Path) -> None:
    with driver(path, "one") as one, driver(path, "two") as two:
        assert one.communicate()[0].split() == [str(n) for n in range(8)]
        assert two.communicate()[0].split() == [str(n) for n in range(8)]
    assert (one.returncode, two.returncode) == (0, 0)


# --- what is refused -----------------------------------------------------------------


def test_another_configuration_under_the_name_is_refused(path: Path) -> None:
    frozen = {"objective": {"weight": 1.0, "eps": 0.1}, "aims": ["robust"], "seed": 3}
    with study_of(path, frozen=frozen):
        pass
    with study_of(path, frozen=json.loads(json.dumps(frozen))):
        pass
    changed = {"objective": {"weight": 2.0}, "aims": ["clean"], "seed": 3, "new": None}
    assert refusal(path, frozen=changed) == (
        f"sqlite:///{path} holds a sweep sweep with another objective.weight, "
        "objective.eps, aims, new; choose another name=, or give name=sweep alone to "
        "go on as it was begun"
    )
    with study_of(path, name="other", frozen=changed):
        pass
    many = {**frozen, **{f"key{n}": n for n in range(9)}}
    assert "key0, key1, key2, key3, key4 and 4 more" in refusal(path, frozen=many)


def test_a_study_of_someone_else_is_refused(path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="sweep")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert "a study sweep that is no sweep; choose" in refusal(path)


@pytest.mark.parametrize(
    ("sampler", "found"),
    [
        ({"name": "tpes"}, "sampler.name=tpes is not known; choose one of tpe, nsga2"),
        ({}, "sampler.name=None is not known"),
        ({"name": "tpe", "startup": 3}, "it takes candidates, multivariate, startup"),
        ({"name": "random", "seed": 1}, "has the options seed; it takes none"),
        ({**SAMPLERS["tpe"], "startup": -1}, "startup=-1; make it an integer of at"),
        ({**SAMPLERS["tpe"], "candidates": True}, "candidates=True; make it"),
        ({**SAMPLERS["tpe"], "multivariate": 1}, "make it true or false"),
        ({**SAMPLERS["nsga2"], "population": 1}, "an integer of at least 2"),
        ({**SAMPLERS["nsga2"], "crossover_prob": 2}, "make it a number from 0 to 1"),
        ({**SAMPLERS["cmaes"], "population": 3}, "an integer of at least 4"),
        ({"name": "grid", "points": 0}, "an integer of at least 1"),
    ],
)
def test_a_wrong_sampler_is_refused(
    path: Path, sampler: dict[str, Any], found: str
) -> None:
    assert found in refusal(path, sampler=sampler)
    assert not path.exists()


def test_cmaes_is_refused_two_aims(path: Path) -> None:
    told = "sampler cmaes takes one aim, not 2; use tpe or nsga2"
    assert refusal(path, sampler="cmaes", maximize=TWO) == told


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("sqlite:///no/such/folder/study.db", "unable to open database file); check"),
        ("sqlite://", "names no file; write sqlite:///FILE or postgresql://"),
        (
            "mysql://me:s3cret@host/db",
            "=mysql://me:***@host/db is not sqlite",
        ),
        ("postgresql://me:s3cret@host:port/db", "cannot be read as an address; write"),
        ("postgresql://me:s3cret@127.0.0.1:1/db", "refused"),
        ("postgresql://127.0.0.1:1/db?user=me&password=s3cret", "refused"),
        ("postgresql://me:s3cret@no.such.host.invalid/db", "check sweep.study="),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_one_line(
    address: str, found: str
) -> None:
    message = refusal(address)
    assert found in message
    assert "s3cret" not in message


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    assert refusal("postgresql://me:s3cret@host/db") == (
        "postgresql://me:***@host/db needs the package psycopg, which is not "
        "installed; pip install 'rrl_dist[postgres]'"
    )


def test_a_file_that_is_no_database_is_told(path: Path) -> None:
    path.write_text("not a database, but long enough to be taken for one " * 20)
    assert "(file is not a database); choose another file" in refusal(path)


def test_a_file_that_must_not_be_written_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right is taken by the address: root may write to any file."""
    monkeypatch.setattr("time.sleep", lambda _: None)  # Optuna tries five times
    with study_of(path, trials=4) as study:
        list(drive(study))
    address = f"sqlite:///file:{path}?mode=ro&uri=true"
    told = "(attempt to write a readonly database); give the right to write there"
    assert told in refusal(address, name="new")
    with (
        study_of(address, trials=5) as study,
        pytest.raises(UserError, match="readonly database"),
    ):
        study.ask()
    assert len(read_study(address, "sweep")[1]) == 4


def test_a_full_disk_is_told(path: Path) -> None:
    with study_of(path):
        pass
    pages = sqlite3.connect(path)
    (count,) = pages.execute("PRAGMA page_count").fetchone()
    pages.close()

    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count={count}")

    large = {"frozen": {"text": "x" * 100_000}}
    event.listen(Engine, "connect", limit)
    try:
        told = "is full); see to that disk; the same command goes on"
        assert told in refusal(path, name="new", **large)
    finally:
        event.remove(Engine, "connect", limit)
    with study_of(path, name="new", **large) as study:
        assert study.ask() is not None


def test_a_file_that_another_process_holds_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(database, "_LOCKED", 0.05)
    with study_of(path) as study:
        holder = sqlite3.connect(path)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match=r"is locked\); another process writes"):
            study.ask()
        holder.close()
        assert study.ask() is not None


def test_optuna_prints_nothing(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = opened(path, sampler="cmaes", trials=9)
    list(drive(study))
    study.close()
    assert capfd.readouterr() == ("", "")


def test_a_path_may_have_braces(tmp_path: Path) -> None:
    with study_of(tmp_path / "{a}.db", trials=1) as study:
        assert study.ask() is not None
    assert (tmp_path / "{a}.db").exists()


def test_a_second_driver_of_a_sweep_is_refused(path: Path) -> None:
    with study_of(path) as study:
        assert study.ask() is not None
        assert "another driver runs the sweep" in refusal(path)
        with study_of(path, name="other"):
            pass
        assert read_study(path, study.name)[1][0].state == "running"
    with study_of(path) as study:
        assert len(study.left()) == 1
