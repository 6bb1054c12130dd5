"""Offloading computes what the GPU's own memory would, and compiles nothing.

Without a GPU both are the same memory; what differs is DeepSpeed's path through it.
"""

from functools import cache
from typing import Any

import pytest
import torch
import torch.utils.cpp_extension
from torch import Tensor, nn

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import rank
from rrl_dist.core.errors import UserError
from rrl_dist.objectives.objective import Objective
from rrl_dist.training.optim import set_learning_rate, sgd
from rrl_dist.training.zero_settings import check_settings
from tests.gloo import run_workers
from tests.training.strategies import (
    CPU,
    DISTRIBUTED,
    OFFLOADED,
    Run,
    doubled_weights_after_a_step,
    made,
    overflow_on_one_worker,
    state_after,
)
from tests.training.test_zero import same

slow = pytest.mark.slow
every = pytest.mark.parametrize("kind", OFFLOADED)
# With a slow copy, which is cut up too, and an attack on the raw module.
NAME = "tarrl"
ADAM = {"optimizer": "adamw", "lr": 1e-3, "clip_grad": 0.3}
Steps = tuple[list[float], dict[str, Tensor]]


class Alternating(Objective):
    """Two heads, each of which every other step leaves out."""

    views = 1

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(3, 4)
        self.heads = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        head = self.heads[batch.step % 2]
        return {"loss": head(self.encoder(batch.images)).square().mean()}


def alternating(kind: str) -> list[dict[str, Tensor]]:
    """Weights after each of three steps."""
    objective, strategy = Alternating().train(), made(kind)
    groups = [{"params": list(objective.parameters()), "weight_decay": 0.0}]
    optimizer = sgd(groups, momentum=0.0, nesterov=False)
    strategy.wrap(objective, optimizer, CPU)
    set_learning_rate(optimizer, 0.1)
    found = []
    for step in range(3):
        generator = torch.Generator().manual_seed(10 * step + rank())
        x = torch.rand(5, 3, generator=generator)
        batch = Batch(x, (x,), torch.zeros(5).long(), torch.arange(5), step)
        strategy.update(strategy.forward(batch)["loss"])
        with strategy.gathered():
            state = objective.state_dict()
            found.append({k: v.detach().clone() for k, v in state.items()})
    return found


def refuse(*args: Any, **named: Any) -> None:
    raise AssertionError("something is compiled")


def run_of(kind: str) -> Run:
    return Run(NAME, kind, **ADAM)


def three_steps(kind: str) -> Steps:
    run = run_of(kind)
    return [run.step() for _ in range(3)], run.weights()


def offloaded(kind: str) -> dict[str, Any]:
    """All that two workers are asked, in one go: groups of processes take long."""
    torch.utils.cpp_extension.load = refuse
    plain = kind.partition("-")[0]
    zero: Any = run_of(kind).strategy.zero  # type: ignore[attr-defined]
    return {
        "steps": three_steps(kind),
        "plainly": three_steps(plain),
        "optimizer": getattr(zero, "cpu_offload", False)
        or getattr(zero, "offload_optimizer", False),
        "weights": getattr(zero, "offload_param", False),
        "doubled": doubled_weights_after_a_step(kind),
        "overflow": overflow_on_one_worker(kind),
    }


@cache
def found(kind: str) -> list[dict[str, Any]]:
    return run_workers(2, offloaded, kind)


@slow
@every
def test_what_is_asked_for_is_offloaded(kind: str) -> None:
    for worker in found(kind):
        assert worker["optimizer"]
        assert worker["weights"] == kind.endswith("all")


@slow
@every
def test_losses_and_weights_are_those_without_it(kind: str) -> None:
    for worker in found(kind):
        (losses, weights), (expected, plain) = worker["steps"], worker["plainly"]
        assert abs(losses[-1] - losses[0]) > 1e-2, "nothing is learned"
        assert losses == pytest.approx(expected, rel=1e-6)
        for name, value in plain.items():
            torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-6)


@slow
@every
def test_weights_changed_while_gathered_stay_changed(kind: str) -> None:
    for worker in found(kind):
        before, doubled, after = worker["doubled"]
        trained = [k for k in before if k.startswith("head")]
        assert trained
        for name in trained:
            assert torch.equal(doubled[name], 2 * before[name]), name
            assert torch.equal(after[name], doubled[name]), name


@slow
@every
def test_an_overflow_on_one_worker_is_left_out_on_all(kind: str) -> None:
    for worker in found(kind):
        assert worker["overflow"] == (True, 2.0**15, False, 2.0**15)


@slow
@every
def test_a_checkpoint_goes_on_to_the_last_bit(kind: str) -> None:
    whole = run_workers(2, state_after, NAME, kind, 4, None, ADAM)[0]
    half = run_workers(2, state_after, NAME, kind, 2, None, ADAM)[0]
    rest = run_workers(2, state_after, NAME, kind, 2, half[1], ADAM)[0]
    assert half[0] + rest[0] == whole[0]
    same(rest[1], whole[1], tolerance=0)


@slow
@pytest.mark.parametrize(
    ("before", "workers", "after", "then"),
    [
        ("zero1-optimizer", 2, "ddp", 1),
        ("zero3-all", 2, "zero2-optimizer", 1),
        ("ddp", 1, "zero3-all", 2),
    ],
)
def test_a_checkpoint_knows_nothing_of_it(
    before: str, workers: int, after: str, then: int
) -> None:
    options = {"optimizer": "adamw", "lr": 1e-4}
    half = run_workers(workers, state_after, "supervised", before, 2, None, options)[0]
    rest = run_workers(then, state_after, "supervised", after, 2, half[1], options)[0]
    (plain,) = run_workers(1, state_after, "supervised", "single", 4, None, options)
    assert half[0] + rest[0] == pytest.approx(plain[0], abs=1e-5)
    same(rest[1], plain[1], tolerance=1e-5)


@slow
@pytest.mark.parametrize("kind", [*DISTRIBUTED[1:], *OFFLOADED])
def test_a_weight_that_a_step_leaves_out_stays_where_it_is(kind: str) -> None:
    """DeepSpeed's stage 3, and offloading, keep the gradient of the step before."""
    (plain, _), (other, _) = (run_workers(2, alternating, k) for k in ("ddp", kind))
    for one, two in zip(plain, other, strict=True):
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-7)
    assert torch.equal(plain[0]["heads.1.weight"], Alternating().heads[1].weight)


@pytest.mark.parametrize(
    ("stage", "offload", "said"),
    [
        (0, "optimizer", "offload=optimizer: ZeRO 0 cuts up nothing"),
        (1, "all", "offload=all: ZeRO 1 keeps weights whole"),
        (2, "all", "or strategy.offload=optimizer"),
        (3, "disk", "offload=disk; choose none, optimizer, all"),
    ],
)
def test_what_a_stage_does_not_cut_up_is_refused(
    stage: int, offload: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check_settings(stage, offload, {})
