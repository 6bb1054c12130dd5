"""Runs that are killed, on one worker and on several."""

import multiprocessing
import time
from pathlib import Path

import pytest

from tests.composing import compose
from tests.gloo import run_workers
from tests.training.stages import (
    Stage,
    differences,
    identified,
    last_checkpoint,
    measured,
    pretraining,
    stop_and_go_on,
    stop_workers,
    train,
    train_workers,
)

LONG = "arms.deacl.train.epochs=20"
# Weights that rise through all of the run, bases with and without state of their own,
# and a penalty that the step after the checkpoint (of 4 steps) leaves out.
AROUND = {
    "tarrl": (
        "objective/base=moco",
        "objective.base.projector.hidden=16",
        "objective.base.projector.out=8",
        "objective.base.queue_size=500",
        "objective.ramp.end=1.0",
        "objective.steps=2",
    ),
    "adversarial": (
        "objective.base.projector.hidden=16",
        "objective.base.projector.out=8",
        "objective.steps=2",
    ),
    "spectral": (
        "objective.base.projector.hidden=16",
        "objective.base.projector.out=8",
        "objective.weight=0.01",
        "objective.ramp.end=1.0",
        "objective.every=3",
        "objective.warm_up=2",
    ),
    "urrl": (
        "objective.base.projector.hidden=16",
        "objective.base.projector.out=8",
        "objective.ramp.end=1.0",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("steps", [10, 45])
def test_a_killed_process_costs_the_steps_since_its_checkpoint(
    tmp_path: Path, teacher: Path, steps: int
) -> None:
    stage = pretraining("deacl", LONG, teacher=teacher)
    killed = tmp_path / "killed"
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=train, args=(stage, killed))
    process.start()
    limit = time.monotonic() + 60
    while not measured(killed) or measured(killed)[-1]["step"] < steps:
        assert process.is_alive()
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.kill()
    process.join()
    assert 0 < last_checkpoint(killed)["step"] < 120
    train(stage, tmp_path / "whole")
    train(stage, killed)
    assert differences(tmp_path / "whole", killed) == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("sync_bn", ["false", "true"])
def test_several_workers_end_as_if_they_had_not_been_stopped(
    tmp_path: Path, teacher: Path, workers: int, sync_bn: str
) -> None:
    stage = pretraining("deacl", f"model.sync_bn={sync_bn}", teacher=teacher)
    run_workers(workers, train_workers, stage, tmp_path / "whole", False)
    found = run_workers(workers, train_workers, stage, tmp_path / "stopped", True)
    assert found == [4] * workers
    assert last_checkpoint(tmp_path / "whole")["workers"] == workers
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


@pytest.mark.slow
def test_another_strategy_and_number_of_workers_goes_on(tmp_path: Path) -> None:
    alone = pretraining("simclr")
    cut_up = {**pretraining("simclr", "strategy=deepspeed_zero3")}
    cut_up["identity"] = alone["identity"]
    folder = tmp_path / "stopped"
    run_workers(3, stop_workers, cut_up, folder)
    parts = sorted(path.name[-20:] for path in (folder / "checkpoints").glob("*.pt"))
    assert parts == [f"part-000{n}-of-0003.pt" for n in (1, 2, 3)]
    news: list[str] = []
    train(alone, folder, notify=news.append)
    assert len(news) == 1
    assert news[0].startswith("going on with 1 workers after 3: ")
    assert last_checkpoint(folder)["step"] == 12
    train(alone, tmp_path / "whole")
    pairs = zip(measured(tmp_path / "whole"), measured(folder), strict=True)
    for whole, found in pairs:
        # As in `test_two_workers_train_as_one_does`.
        assert found == pytest.approx(whole, rel=2e-3, abs=2e-3)


def stage_around(name: str) -> Stage:
    """Two epochs of digits with the objective's own YAML, but for `AROUND`."""
    config = compose("pretrain", f"objective={name}", *AROUND[name])
    return identified({**pretraining("simclr"), "objective": config["objective"]})


@pytest.mark.parametrize("name", AROUND)
def test_a_method_around_another_ends_as_if_it_had_not_been_stopped(
    tmp_path: Path, name: str
) -> None:
    stage = stage_around(name)
    train(stage, tmp_path / "whole")
    assert stop_and_go_on(stage, tmp_path / "stopped") == 4
    assert last_checkpoint(tmp_path / "whole")["step"] == 12
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["simclr", "deacl"])
def test_two_workers_train_as_one_does(tmp_path: Path, teacher: Path, arm: str) -> None:
    known = teacher if arm == "deacl" else None
    stage = pretraining(arm, teacher=known)
    train(stage, tmp_path / "one")
    run_workers(2, train_workers, stage, tmp_path / "two", False)
    pairs = zip(measured(tmp_path / "one"), measured(tmp_path / "two"), strict=True)
    for alone, shared in pairs:
        # Sums in another order; what they differ by grows from step to step.
        assert shared == pytest.approx(alone, rel=2e-3, abs=2e-3)
    assert measured(tmp_path / "one")[0] == pytest.approx(
        measured(tmp_path / "two")[0], rel=1e-4
    )
