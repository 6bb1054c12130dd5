"""Moving averages of weights, under every strategy and in checkpoints."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from rrl_dist.core.errors import UserError
from rrl_dist.models.ema import Average, cosine_momentum, move_towards
from rrl_dist.models.encoder import Encoder
from rrl_dist.training.checkpoint import Checkpoints
from rrl_dist.training.loop import after_step
from rrl_dist.training.micro_batch import hold_in_parts
from rrl_dist.training.strategies import TorchStrategy
from tests.composing import compose
from tests.gloo import run_workers
from tests.longer import covering
from tests.objectives.harness import (
    AROUND,
    BRANCHED,
    OBJECTIVES,
    SLOW_COPIES,
    own_batch,
    small_objective,
)
from tests.objectives.moving import outside_gathered, slow_copy
from tests.training.saved import saved
from tests.training.stages import (
    Stage,
    differences,
    identified,
    last_checkpoint,
    pretraining,
    train_workers,
)
from tests.training.strategies import state_after

ZERO = ("zero1", "zero2", "zero3")


def test_the_momentum_rises_along_a_cosine() -> None:
    momentum = partial(cosine_momentum, start=0.9, end=1.0)
    assert momentum(0.0) == pytest.approx(0.9)
    assert momentum(1.0) == pytest.approx(1.0)
    assert momentum(0.5) == pytest.approx(0.95)
    assert momentum(0.25) == pytest.approx(1 - 0.1 * (2**-0.5 + 1) / 2)
    rising = [momentum(i / 20) for i in range(21)]
    assert rising == sorted(rising)


def test_each_weight_moves_its_share_and_buffers_stay() -> None:
    old, new = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    with torch.no_grad():
        new.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
    new.running_mean = torch.ones(3)
    move_towards(old, new, momentum=0.75)
    assert torch.equal(old.weight, torch.tensor([1.0, 1.25, 1.5]))
    assert torch.equal(new.weight, torch.tensor([1.0, 2.0, 3.0]))
    assert old.running_mean is not None
    assert torch.equal(old.running_mean, torch.zeros(3))
    assert old.weight.grad_fn is None


def test_an_average_begins_as_a_frozen_copy_without_graph() -> None:
    module = nn.Linear(3, 2)
    average = Average(module, start=0.5, end=1.0)
    x = torch.rand(4, 3)
    assert torch.equal(average(x), module(x))
    assert not average(x).requires_grad
    assert not any(p.requires_grad for p in average.parameters())
    assert all(p.requires_grad for p in module.parameters())
    with torch.no_grad():
        module.weight.zero_()
    before = average.module.weight.clone()  # type: ignore[operator,union-attr]
    assert float(before.abs().min()) > 0, "the copy shares its weights"
    for progress, left in ((1.0, 1.0), (0.0, 0.5), (0.5, 0.375)):
        average.follow(module, progress=progress)
        torch.testing.assert_close(average.module.weight, left * before)


def test_an_average_lets_a_gradient_through_to_its_input_alone() -> None:
    average = Average(nn.Linear(3, 2), start=0.5, end=1.0)
    x = torch.rand(4, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(average(x).sum(), x)
    weight = average.module.weight
    torch.testing.assert_close(gradient, weight.sum(0).expand(4, 3))  # type: ignore[operator,union-attr]
    with torch.no_grad():
        assert not average(x).requires_grad


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("name", SLOW_COPIES)
def test_a_step_moves_encoder_and_projector_by_the_momentum_of_the_moment(
    name: str, progress: float
) -> None:
    objective = small_objective(name)
    objective(own_batch(name))
    before = slow_weights(name)
    with torch.no_grad():
        for p in (*objective.encoder.parameters(), *objective.projector.parameters()):
            p.add_(1.0)
    objective.after_step(progress)
    # Harness: from 0.9 to 1.
    moved = 1 - cosine_momentum(progress, start=0.9, end=1.0)
    state = objective.state_dict()
    for key, value in before.items():
        torch.testing.assert_close(state[key], value + moved, msg=key)


@pytest.mark.parametrize("momentum", [(-0.1, 1.0), (0.9, 1.1), (1.0, 0.9)])
def test_a_momentum_that_is_none_is_refused(momentum: tuple[float, float]) -> None:
    start, end = momentum
    with pytest.raises(UserError, match=f"momentum from {start} to {end}; set 0 <= "):
        Average(nn.Linear(1, 1), start=start, end=end)


class Watched(TorchStrategy):
    """Says that it cuts weights up, and notes what it is asked for."""

    partitions_weights = True

    def __init__(self) -> None:
        super().__init__(distributed=False, precision="fp32", clip_grad=None)
        self.asked: list[bool] = []

    @contextmanager
    def gathered(self, *, write: bool = False) -> Iterator[None]:
        self.asked.append(write)
        yield


@pytest.mark.parametrize("name", OBJECTIVES)
def test_weights_are_gathered_for_those_that_need_them_alone(name: str) -> None:
    objective, strategy = small_objective(name), Watched()
    inside = AROUND.get(name, name)
    asked = [True] if inside in SLOW_COPIES else []
    if name == "spectral":
        asked = [False]  # to be read
    objective(objective.inner(own_batch(name)))
    after_step(objective, strategy, 0.5)
    assert strategy.asked == asked
    strategy.partitions_weights = False
    objective(objective.inner(own_batch(name)))
    after_step(objective, strategy, 0.5)
    assert strategy.asked == asked


@pytest.mark.parametrize("name", SLOW_COPIES)
def test_accumulation_is_for_the_slow_encoder_too(name: str) -> None:
    objective = small_objective(name).eval()
    seen: list[int] = []
    slow = next(m for m in slow_copy(objective).modules() if isinstance(m, Encoder))
    slow.backbone.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    whole = objective(own_batch(name))["loss"]
    assert max(seen) > 5
    hold_in_parts(objective, 5)
    seen.clear()
    parts = objective(own_batch(name))["loss"]
    assert max(seen) == 5
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    slow.train()
    with pytest.raises(UserError, match=r"train\.micro_batch=5: the encoder's batch"):
        hold_in_parts(objective, 5)


def slow_weights(name: str) -> dict[str, torch.Tensor]:
    """At the start, by their names in the objective's state."""
    prefix = "target.module" if name == "byol" else "slow.module"
    copy = slow_copy(small_objective(name))
    return {
        name.replace("module", prefix, 1): value
        for name, value in copy.named_parameters()
    }


@pytest.mark.parametrize("name", SLOW_COPIES)
def test_a_checkpoint_goes_on_to_the_last_bit(name: str, tmp_path: Path) -> None:
    losses, whole = state_after(name, "single", 6, None, {})
    first, half = state_after(name, "single", 3, None, {})
    saved(tmp_path, 3, {**half, "identity": "one", "workers": 1})
    state = Checkpoints(tmp_path, notify=pytest.fail).load()
    second, rest = state_after(name, "single", 3, state, {})
    assert first + second == losses
    for key, value in whole["objective"].items():
        assert torch.equal(rest["objective"][key], value), key
    for key, value in slow_weights(name).items():
        if value.ndim > 1:
            assert not torch.equal(whole["objective"][key], value), key


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), covering(SLOW_COPIES, ["zero1", "zero2"]))
def test_a_checkpoint_of_two_workers_goes_on_to_the_last_bit(
    name: str, kind: str
) -> None:
    whole = run_workers(2, state_after, name, kind, 4, None, {})[0]
    half = run_workers(2, state_after, name, kind, 2, None, {})[0]
    rest = run_workers(2, state_after, name, kind, 2, half[1], {})[0]
    assert half[0] + rest[0] == whole[0]
    for key, value in whole[1]["objective"].items():
        assert torch.equal(rest[1]["objective"][key], value), key


def stage_of(name: str, strategy: str) -> Stage:
    """Two epochs of digits with the objective's own YAML, but for its widths."""
    heads = ("projector", "predictor") if name == "byol" else ("projector",)
    small = [f"objective.{head}.hidden=16" for head in heads]
    if name == "moco":
        small.append("objective.queue_size=500")  # of batches of 192
    config = compose(
        "pretrain",
        "model=small_cnn",
        f"objective={name}",
        "objective.projector.out=8",
        "optim=sgd",
        "optim.lr=0.05",
        f"strategy={strategy}",
        "train.checkpoint_every=4",
        *small,
    )
    parts = {part: config[part] for part in ("objective", "optim", "strategy")}
    if strategy == "deepspeed_zero3":
        # By default it leaves weights as small as these whole.
        parts["strategy"]["options"]["stage3_param_persistence_threshold"] = 0
    return identified({**pretraining("simclr"), **parts})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "strategy"), covering(SLOW_COPIES, ["ddp", "deepspeed_zero3"])
)
def test_a_stage_that_is_stopped_ends_as_if_it_had_not_been(
    name: str, strategy: str, tmp_path: Path
) -> None:
    stage = stage_of(name, strategy)
    run_workers(2, train_workers, stage, tmp_path / "whole", False)
    assert run_workers(2, train_workers, stage, tmp_path / "stopped", True) == [4, 4]
    state = last_checkpoint(tmp_path / "whole")["objective"]
    if name == "moco":
        assert state["oldest"] == 12 * 192 % 500
    assert any(key.startswith(("target.", "slow.")) for key in state)
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), covering([*OBJECTIVES, BRANCHED], ZERO))
def test_five_steps_under_zero_are_those_of_ddp(name: str, kind: str) -> None:
    options = {"lr": 0.01}
    losses, plain = run_workers(2, state_after, name, "ddp", 5, None, options)[0]
    assert abs(losses[-1] - losses[0]) > 1e-3, "nothing is learned"
    found, state = run_workers(2, state_after, name, kind, 5, None, options)[0]
    assert found == pytest.approx(losses, rel=1e-5, abs=1e-6)
    for key, value in plain["objective"].items():
        torch.testing.assert_close(
            state["objective"][key], value, rtol=1e-4, atol=1e-5, msg=key
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_COPIES)
def test_the_slow_copy_moves_under_zero_3(name: str) -> None:
    # At a rate of 0 what it moves towards stays as it is: nothing may move either.
    still = run_workers(2, state_after, name, "zero3", 3, None, {"lr": 0.0})[0][1]
    state = run_workers(2, state_after, name, "zero3", 3, None, {"lr": 0.1})[0][1]
    for key, value in slow_weights(name).items():
        torch.testing.assert_close(still["objective"][key], value, msg=key)
        if value.ndim > 1:
            change = (state["objective"][key] - value).abs().max()
            assert float(change) > 1e-4, key


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_COPIES)
def test_a_move_of_cut_up_weights_fails_aloud(name: str) -> None:
    for kind, told in (("zero2", "nothing"), ("zero3", "weights are whole in")):
        for found in run_workers(2, outside_gathered, name, kind):
            assert found.startswith(told)
