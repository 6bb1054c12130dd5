"""A sweep in this process, on real images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json
from rrl_dist.tune import search as module
from rrl_dist.tune.answer import chosen
from rrl_dist.tune.record import Record
from rrl_dist.tune.search import search
from rrl_dist.tune.study import read_study
from tests.tune.small import Lines, came_of, small_sweep


def debug() -> Mapping[str, Any]:
    return {"kind": "debug", "workers": 1, "threads": 1, "gpu": False}


def searched(folder: Path, *overrides: str, **changed: Any) -> list[Record]:
    return search(small_sweep(folder, *overrides, **changed), debug, Lines())


def rates(*values: float) -> dict[str, Any]:
    """A space of learning rates, of which some are too high."""
    return {"optim.lr": {"choices": list(values)}}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    folder = tmp_path_factory.mktemp("sweep")
    return folder, searched(folder)


def test_every_trial_ends_and_is_in_the_study(done: tuple[Path, list[Record]]) -> None:
    folder, records = done
    assert [r.number for r in records] == [0, 1, 2, 3]
    assert {r.state for r in records} <= {"complete", "pruned"}
    frozen, again = read_study(folder / "study.db", "small")
    assert came_of(again) == came_of(records)
    assert frozen["sweep"]["space"]


def test_the_first_trial_has_the_weight_that_is_set(
    done: tuple[Path, list[Record]],
) -> None:
    folder, records = done
    weight = small_sweep(folder).base["objective"]["weight"]
    assert records[0].settings == {"objective.weight": pytest.approx(weight)}
    assert records[0].state == "complete"
    assert len({r.settings["objective.weight"] for r in records}) == 4


def test_trials_are_measured_on_validation_images(
    done: tuple[Path, list[Record]],
) -> None:
    folder, records = done
    for record in records:
        if record.state == "complete":
            results = read_json(folder / "trials" / f"{record.number:04d}/results.json")
            assert results["split"] == "val"
            (arm,) = results["arms"].values()
            assert arm["worst"]["count"] == 362  # validation images
            assert record.values == (arm["worst"]["value"],)


def test_probes_on_the_way_are_kept(done: tuple[Path, list[Record]]) -> None:
    _, records = done
    for record in records:
        steps = [look.step for look in record.looks]
        assert steps == sorted(set(steps))
        assert steps[0] == 5  # an epoch
        if record.state == "complete":
            assert steps == [5, 10, 15]


def test_a_sweep_that_is_done_is_not_run_again(
    done: tuple[Path, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, records = done
    monkeypatch.setattr(module, "Trial", None)
    assert came_of(searched(folder)) == came_of(records)


def test_more_trials_go_on_with_the_same_sweep(
    done: tuple[Path, list[Record]],
) -> None:
    folder, records = done
    more = searched(folder, "sweep.trials=5")
    assert came_of(more[:4]) == came_of(records)
    assert len(more) == 5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("arms.spectral.train.epochs=4", "arms.spectral.train.epochs"),
        ("seed=1", "seed"),
        ("sweep.eta=3", "sweep.eta"),
        ("ball.eps=0.06", "ball.eps"),
    ],
)
def test_another_configuration_is_refused(
    done: tuple[Path, list[Record]], change: str, named: str
) -> None:
    folder, _ = done
    with pytest.raises(UserError) as caught:
        searched(folder, change)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_driver_that_ends_between_trials_changes_nothing(
    done: tuple[Path, list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends as it begins each trial, and once more after it has trained."""
    _, records = done

    class Gone(BaseException):
        pass

    begin = module.Trial
    stops = iter([True, True, False, True, False, False, True, False])

    def begun(*given: Any) -> Any:
        trial = begin(*given)
        if next(stops, False):
            trial.step()  # a probe that the study never hears of
            trial.stop(60)
            raise Gone
        return trial

    monkeypatch.setattr(module, "Trial", begun)
    for _ in range(10):
        try:
            found = searched(tmp_path)
        except Gone:
            continue
        break
    assert came_of(found[:4]) == came_of(records)


def test_trials_that_fail_are_kept_and_the_sweep_goes_on(tmp_path: Path) -> None:
    records = searched(
        tmp_path, "sampler=grid", "sweep.trials=2", space=rates(1e30, 0.05)
    )
    assert [r.state for r in records] == ["failed", "complete"]
    assert "step" in records[0].why
    assert records[0].measured == {}


def test_a_sweep_of_failures_alone_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 trials failed one after another"):
        searched(tmp_path, "sampler=grid", space=rates(1e30, 1e31, 1e32, 1e33))
    _, records = read_study(tmp_path / "study.db", "small")
    assert [r.state for r in records] == ["failed"] * 3


def test_two_aims_have_a_front_and_end_no_trial_early(tmp_path: Path) -> None:
    two = ("sweep.aims=[robust,clean]", "sampler=nsga2", "sweep.sampler.population=2")
    sweep = small_sweep(tmp_path, *two, "sweep.trials=3", "sweep.answer.most=2")
    records = search(sweep, debug, Lines())
    assert [r.state for r in records] == ["complete"] * 3
    assert all(len(r.values) == 2 for r in records)
    members = chosen(sweep, records)
    assert 0 < len(members) <= 2
    values = [member.values[0] for member in members]
    assert values == sorted(values, reverse=True)
    for one in members:
        better = [
            r for r in records if r.feasible and sweep.aims.better(r.values, one.values)
        ]
        assert better == []


def test_a_floor_that_no_trial_reaches_leaves_no_answer(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, "sweep.floors={clean:0.99}", "sweep.trials=2")
    records = search(sweep, debug, Lines())
    assert [r.state for r in records] == ["complete"] * 2
    assert not any(r.feasible for r in records)
    assert chosen(sweep, records) == []


def test_a_mistake_that_is_told_later_leaves_no_frozen_sweep(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sweep\.stop=later; choose both"):
        searched(tmp_path, "sweep.stop=later")
    assert searched(tmp_path, "sweep.trials=1")
