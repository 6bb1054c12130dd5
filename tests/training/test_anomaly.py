"""`cluster.anomaly`: a gradient that is NaN is traced to its line in the forward."""

import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.objectives.objective import report
from rrl_dist.objectives.simclr import SimCLR
from rrl_dist.training.anomaly import anomalies_told, anomaly_mode
from rrl_dist.training.cluster import session
from rrl_dist.training.journal import TrainingDivergedError
from rrl_dist.training.launch import launch
from rrl_dist.training.rehearsal import rehearse
from tests.training.stages import Stage, pretraining

ON = {"kind": "debug", "workers": 1, "threads": 1, "gpu": False, "anomaly": True}
OFF = {**ON, "anomaly": False}


def length_of(v: Tensor) -> Tensor:
    """Finite, and its gradient at 0 is 0 times infinity."""
    return v.square().sum().sqrt()


LINE = inspect.getsourcelines(length_of)[1] + 2
PLACE = rf"its forward is \S*test_anomaly.py:{LINE}, in length_of: return v.square"


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From a step on, SimCLR's loss has a gradient that is NaN."""
    own = SimCLR.forward

    def spoiled(first: int) -> None:
        def forward(self: SimCLR, batch: Batch) -> dict[str, Tensor]:
            terms = own(self, batch)
            nothing = 0 * self.encoder(batch.views[0])
            added = length_of(nothing) if batch.step >= first else 0
            return report(terms["loss"] + added, {})

        monkeypatch.setattr(SimCLR, "forward", forward)

    return spoiled


def run(stage: Stage, folder: Path, settings: dict[str, Any]) -> str:
    """How a stage of this process ends that diverges."""
    with session(settings) as cluster, pytest.raises(TrainingDivergedError) as error:
        launch(stage, folder, cluster, print)
    assert not torch.is_anomaly_enabled()
    assert "\n" not in str(error.value)
    return str(error.value)


def small(*overrides: str) -> Stage:
    return pretraining("simclr", "arms.simclr.train.checkpoint_every=6", *overrides)


def test_step_operation_and_line_are_named(
    spoil: Callable[[int], None], tmp_path: Path
) -> None:
    spoil(2)
    told = run(small(), tmp_path, ON)
    assert told.startswith("step 3: PowBackward0 gave NaN; ")
    assert re.search(PLACE, told), told


def test_without_it_the_loss_is_told_of_a_step_later(
    spoil: Callable[[int], None], tmp_path: Path
) -> None:
    spoil(2)
    told = run(small("arms.simclr.train.log_every=1"), tmp_path, OFF)
    assert told.startswith("step 4: loss is nan")


def test_a_nan_of_the_inner_maximization_is_named_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def inner(self: SimCLR, batch: Batch) -> Batch:
        x = torch.zeros_like(batch.views[0], requires_grad=True)
        torch.autograd.grad(length_of(x), x)
        return batch

    monkeypatch.setattr(SimCLR, "inner", inner)
    told = run(small(), tmp_path, ON)
    assert told.startswith("step 1: PowBackward0 gave NaN; ")
    assert re.search(PLACE, told), told


def test_the_step_before_training_names_it_too(spoil: Callable[[int], None]) -> None:
    spoil(0)
    stage = small()
    settings: dict[str, Any] = {"size": 8, "num_classes": 10, "workers": 1}
    with anomaly_mode(ON), pytest.raises(TrainingDivergedError) as error:
        rehearse("pretrain-simclr", stage, **settings)
    told = str(error.value)
    assert told.startswith("pretrain-simclr: in one step on random images: PowBack")
    assert re.search(PLACE, told), told


def change_in_place() -> None:
    x = torch.ones(2, requires_grad=True)
    with anomaly_mode(ON), anomalies_told("step 1"):
        y = x.exp()
        y += 1
        y.sum().backward()


def test_what_is_not_nan_gets_its_place_as_a_note() -> None:
    with pytest.raises(RuntimeError, match="inplace operation") as error:
        change_in_place()
    (note,) = error.value.__notes__
    assert re.search(r"test_anomaly\.py:\d+, in \w+: y = x\.exp", note), note


def test_other_warnings_are_shown() -> None:
    with (
        anomaly_mode(ON),
        pytest.warns(UserWarning, match="of something else"),
        anomalies_told("step 1"),
    ):
        warnings.warn("of something else", stacklevel=1)


def test_alone_debug_has_it() -> None:
    with (
        pytest.raises(UserError, match=r"cluster\.anomaly is for cluster=debug alone"),
        session({**ON, "kind": "local"}),
    ):
        pass
