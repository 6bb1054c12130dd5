"""The comparison of searches: what it asks for, and what it makes of the answers."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.storage import read_json
from rrl_dist.tune import bench as module
from rrl_dist.tune.bench import Bench, Searched, compare_searches, rows, steps_of
from rrl_dist.tune.record import Record
from rrl_dist.tune.rules import Look
from tests.cli.harness import rrl
from tests.tune.small import ARM, SMALL, composed

OWN = {"trials": 4, "points": 3, "seeds": 2, "again": 2}
# Accuracy by weight, of any seed: the grid's best is 2.
ACCURACY = {2.0: 0.80, 3.0: 0.79, 9.0: 0.70}
FOUND = {
    ("grid", 0): Searched({"objective.weight": 2.0}, 300, 3),
    ("sweep", 0): Searched({"objective.weight": 3.0}, 110, 4),
    ("sweep", 1): Searched({"objective.weight": 2.0}, 100, 4),
    ("random", 0): Searched({"objective.weight": 9.0}, 200, 2),
    ("random", 1): Searched({"objective.weight": 9.0}, 100, 1),
}


def bench_in(folder: Path) -> Bench:
    return Bench({**composed(), "bench": OWN}, ARM, folder)


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[Any]]:
    asked: list[Any] = []

    def run_search(bench: Bench, kind: str, seed: int, trials: int) -> Searched:
        asked.append((kind, seed, trials))
        return FOUND[kind, seed]

    def run_again(bench: Bench, settings: Any, seed: int, teacher: Any) -> float:
        asked.append(("again", settings["objective.weight"], seed))
        return ACCURACY[settings["objective.weight"]] + seed / 1e6

    monkeypatch.setattr(module, "run_search", run_search)
    monkeypatch.setattr(module, "run_again", run_again)
    monkeypatch.setattr(module, "run_teachers", lambda bench, seed: None)
    with ThreadPoolExecutor(1) as pool:
        return compare_searches(bench_in(tmp_path), pool, print), asked


def test_random_search_gets_the_sweeps_steps_rounded_up(
    compared: tuple[Any, list[Any]],
) -> None:
    _, asked = compared
    assert ("grid", 0, 3) in asked
    assert ("random", 0, 2) in asked  # 110 steps of trials of 100
    assert ("random", 1, 1) in asked


def test_each_setting_is_trained_again_once_with_each_new_seed(
    compared: tuple[Any, list[Any]],
) -> None:
    found, asked = compared
    again = [one for one in asked if one[0] == "again"]
    assert len(again) == len(set(again)) == 3 * OWN["again"]
    assert not {seed for _, _, seed in again} & {0, 1}
    assert found["grid"]["accuracy"] == pytest.approx([0.801, 0.801001])


def test_regret_is_what_is_missing_in_pairs_of_seeds(
    compared: tuple[Any, list[Any]],
) -> None:
    found, _ = compared
    assert [run["regret"] for run in found["sweep"]["seeds"]] == pytest.approx([1, 0])
    assert found["sweep"]["regret"]["mean"] == pytest.approx(0.5)
    assert found["random"]["regret"]["mean"] == pytest.approx(10)
    (_, kind, share, lost), (_, other, _, _) = rows(found)
    assert (kind, other, share) == ("sweep", "random", "35 %")
    assert lost.startswith("+0.50 [")


def test_searches_differ_in_what_they_are_named_after_alone(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    grid, random = bench.sweep("grid", 0, 3), bench.sweep("random", 1, 2)
    assert grid.settings["sampler"] == {"name": "grid", "points": 3}
    assert random.settings["sampler"] == {"name": "random"}
    assert grid.settings["stop"] == random.settings["stop"] == "none"
    assert random.config["seed"] == 1
    assert random.space.starts == grid.space.starts  # of which a grid tries none
    sweep = bench.sweep("sweep", 1, 4)
    assert sweep.settings["sampler"]["name"] == "tpe"
    assert len(sweep.space.starts) == 1
    apart = ("name", "seed", "sweep")
    kept = [
        {k: v for k, v in s.config.items() if k not in apart} for s in (grid, sweep)
    ]
    assert kept[0] == kept[1]


def test_steps_are_those_up_to_the_last_probe() -> None:
    looks = tuple(Look(step, 0.5, 0.4, 0.6, 10) for step in (5, 10))
    record = Record(0, "pruned", {}, (), (), {}, (), looks, "", 0.0, None, None)
    assert steps_of(record) == 10


@pytest.mark.slow
def test_the_command_compares_and_goes_on(tmp_path: Path) -> None:
    given = [s for s in SMALL if not s.startswith(("arm=", "experiment=", "cluster="))]
    few = (f"bench.arms=[{ARM}]", "bench.trials=2", "bench.points=2", "bench.seeds=1")
    command = ("bench", "tune", *given, *few, "bench.again=2", "name=b")
    printed = rrl(tmp_path, *command)
    found = read_json(tmp_path / "runs/b/bench.json")
    (arm,) = found["arms"]
    assert len(arm["grid"]["accuracy"]) == 2
    assert "regret" in printed
    before = (tmp_path / "runs/b/bench.md").read_bytes()
    rrl(tmp_path, *command)
    assert (tmp_path / "runs/b/bench.md").read_bytes() == before
