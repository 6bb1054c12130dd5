"""The parts of a step are measured alike under every strategy, and change nothing."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rrl_dist.core.batch import Batch
from rrl_dist.objectives.simclr import SimCLR
from rrl_dist.training.breakdown import Breakdown
from rrl_dist.training.journal import read_metrics
from tests.gloo import run_workers
from tests.training.stages import pretraining, train, train_workers

PARTS = ("data", "views", "inner", "forward", "update", "after_step")
CPU = torch.device("cpu")


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return read_metrics(folder / "metrics.jsonl")


def check(lines: list[dict[str, Any]], *, inner: float) -> None:
    assert len(lines) == 6
    for line in lines:
        seconds = [line[f"{part}_seconds"] for part in PARTS]
        assert all(value >= 0 for value in seconds)
        # Parts do not overlap, and a step is more than they are.
        assert sum(seconds) <= 1 / line["steps_per_second"]
        assert line["inner_seconds"] >= inner


def test_a_slow_inner_maximization_is_seen_and_nothing_else_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def inner(self: SimCLR, batch: Batch) -> Batch:
        time.sleep(0.02)
        return batch

    monkeypatch.setattr(SimCLR, "inner", inner)
    for name in ("true", "false"):
        stage = pretraining("simclr", f"arms.simclr.train.breakdown={name}")
        train(stage, tmp_path / name)
    measured, plain = lines_of(tmp_path / "true"), lines_of(tmp_path / "false")
    check(measured, inner=0.019)
    assert not [key for line in plain for key in line if key.endswith("_seconds")]
    assert [line["loss"] for line in measured] == [line["loss"] for line in plain]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "deepspeed_zero3"])
def test_workers_measure_it_too(strategy: str, tmp_path: Path) -> None:
    settings = (f"strategy={strategy}", "arms.simclr.train.breakdown=true")
    stage = pretraining("simclr", *settings)
    run_workers(2, train_workers, stage, tmp_path, False)
    check(lines_of(tmp_path), inner=0.0)


def test_parts_are_means_since_the_last_ones() -> None:
    breakdown = Breakdown(CPU, measures=True)
    for _ in range(2):
        with breakdown.part("inner"):
            time.sleep(0.01)
    assert list(breakdown.waiting(iter([1, 2]))) == [1, 2]
    found = breakdown.mean(2)
    assert found.keys() == {"inner_seconds", "data_seconds"}
    assert found["inner_seconds"] >= 0.01
    assert breakdown.mean(2) == {}


def test_unasked_it_takes_no_time() -> None:
    breakdown, items = Breakdown(CPU, measures=False), iter([1])
    assert breakdown.waiting(items) is items
    with breakdown.part("inner"):
        pass
    assert breakdown.mean(1) == {}
