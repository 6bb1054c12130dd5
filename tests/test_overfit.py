"""`cluster.overfit`: the same few batches again and again, and one line about it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rrl_dist.cli.main import main
from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json
from rrl_dist.objectives.simclr import SimCLR
from rrl_dist.overfit import overfitting, told
from rrl_dist.stages import identifying, pretrain_stage
from rrl_dist.training.length import run_length
from tests.training.stages import (
    SMALL,
    Stage,
    composed,
    differences,
    identified,
    stop_and_go_on,
    train,
)


def stage_of(batches: int | None, *overrides: str) -> Stage:
    settings = (f"cluster.overfit={batches or 'null'}", *overrides)
    config = overfitting(composed(*settings))
    return identified(pretrain_stage(config, "simclr", None))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """What the method is given, step by step."""
    found: list[Batch] = []

    def inner(self: SimCLR, batch: Batch) -> Batch:
        found.append(batch)
        return batch

    monkeypatch.setattr(SimCLR, "inner", inner)
    return found


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(one.views, other.views, strict=True)
    return torch.equal(one.index, other.index) and all(torch.equal(*p) for p in pairs)


def test_each_pass_is_the_first_two_batches_to_the_last_random_number(
    seen: list[Batch], tmp_path: Path
) -> None:
    train(stage_of(2, "arms.simclr.train.epochs=3"), tmp_path / "overfit")
    train(stage_of(None, "arms.simclr.train.epochs=1"), tmp_path / "plain")
    overfit, plain = seen[:6], seen[6:]
    assert [batch.step for batch in overfit] == [0, 1, 0, 1, 0, 1]
    assert [round(6 * batch.progress) for batch in overfit] == list(range(6))
    for place, batch in enumerate(overfit):
        assert same(batch, plain[place % 2])
    assert not same(plain[0], plain[1])


def test_its_model_says_so(tmp_path: Path) -> None:
    train(stage_of(2, "arms.simclr.train.epochs=2"), tmp_path)
    assert read_json(tmp_path / "model.json")["training"]["train"]["overfit"] == 2


def test_a_check_that_was_stopped_within_a_pass_goes_on(tmp_path: Path) -> None:
    stage = stage_of(6, "arms.simclr.train.epochs=2")
    train(stage, tmp_path / "whole")
    assert stop_and_go_on(stage, tmp_path / "stopped") == 4
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


def test_it_is_another_stage_and_without_it_nothing_changes() -> None:
    plain, two, three = (identifying(stage_of(n)) for n in (None, 2, 3))
    assert plain != two != three
    assert "overfit" not in plain["train"]
    assert overfitting(composed()) == composed()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"overfit": 20}, r"cluster\.overfit=20, but .* has 12 batches; set .*=12 or"),
        ({"epochs": 1}, "needs 4 steps to go over its batches twice"),
        ({"max_steps": 3}, r"set train\.epochs=2 and train\.max_steps=null, or more"),
    ],
)
def test_batches_that_are_not_there_or_come_once_are_refused(
    changed: dict[str, Any], said: str
) -> None:
    length = {"epochs": 9, "max_steps": None, "batch_size": 8, "log_every": 5}
    train = {**length, "checkpoint_every": 4, "overfit": 2}
    assert run_length(train, None, 100, 1).steps == 18
    with pytest.raises(UserError, match=said):
        run_length({**train, **changed}, None, 100, 1)


def lines(*pairs: tuple[int, float]) -> list[dict[str, Any]]:
    return [{"step": step, "loss": loss} for step, loss in pairs]


def test_the_first_and_the_last_whole_pass_are_compared() -> None:
    # A checkpoint ends a line too; the seventh step is of no whole pass.
    found = told(lines((1, 4.0), (2, 2.0), (4, 9.0), (6, 1.5), (7, 0.0)), 2)
    assert found == (
        "overfit on 2 batches: loss 3.0000 in the first pass, 1.5000 in the last of 3: "
        "it fell"
    )
    assert told(lines((1, 1.0), (2, 1.0)), 1).endswith("of 2: it did not fall")


TINY = [
    "run",
    *SMALL,
    "arms.deacl.optim.lr=0.05",
    *(
        f"{where}.train.{key}={value}"
        for where in ("arms.simclr", "arms.deacl", "protocol")
        for key, value in (("epochs", 20), ("batch_size", 32))
    ),
    "cluster.overfit=1",
]


@pytest.mark.slow
def test_every_stage_is_checked_nothing_is_measured_and_nothing_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for _ in range(2):  # the second time all is done
        monkeypatch.setattr("sys.argv", ["rrl", *TINY, f"storage={tmp_path}"])
        main()
        shown = capsys.readouterr().out.splitlines()
        printed.append([line for line in shown if "overfit on" in line])
    assert printed[0] == printed[1]
    assert len(printed[0]) == 4
    assert all(line.endswith(": it fell") for line in printed[0])
    assert [path.name for path in tmp_path.iterdir()] == ["demo-overfit1"]
    folder = tmp_path / "demo-overfit1"
    assert not (folder / "results.json").exists()
    names = {path.name.rpartition("-")[0] for path in (folder / "stages").iterdir()}
    arms = ("simclr", "deacl")
    assert names == {f"{part}-{arm}" for part in ("pretrain", "probe") for arm in arms}
