"""DeepSpeed computes what plain torch does, in what it holds and what it keeps."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.training.optim import lars, parameter_groups
from rrl_dist.training.zero import DeepSpeedStrategy
from rrl_dist.training.zero_state import share
from tests.gloo import run_workers
from tests.longer import covering
from tests.objectives.harness import OBJECTIVES, small_objective
from tests.training.strategies import (
    DISTRIBUTED,
    EVERY,
    ZERO,
    doubled_weights_after_a_step,
    losses,
    made,
    overflow_on_one_worker,
    part_and_two_steps,
    state_after,
    weights_after_a_scaled_step,
)

pytestmark = pytest.mark.slow


def gap(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@cache
def twenty_losses(name: str, kind: str) -> list[float]:
    (found,) = run_workers(1, losses, name, kind, 20, {"optimizer": "sgd", "lr": 0.05})
    return list(found)


@pytest.mark.parametrize(("name", "kind"), covering(OBJECTIVES, DISTRIBUTED))
def test_one_worker_has_the_losses_of_plain_torch(name: str, kind: str) -> None:
    found, plain = twenty_losses(name, kind), twenty_losses(name, "single")
    assert abs(plain[-1] - plain[0]) > 0.05, "nothing is learned"
    assert gap(found, plain) <= (0 if kind == "ddp" else 1e-5)


@pytest.mark.parametrize("kind", DISTRIBUTED)
def test_gradients_are_clipped_alike(kind: str) -> None:
    options = {"optimizer": "sgd", "lr": 0.05, "clip_grad": 0.2}
    (plain,) = run_workers(1, losses, "supervised", "single", 10, options)
    (free,) = run_workers(1, losses, "supervised", "single", 10, {"lr": 0.05})
    assert gap(plain, free) > 1e-3, "nothing is clipped"
    for workers in (1, 2):
        found = run_workers(workers, losses, "supervised", kind, 10, options)[0]
        assert gap(found, plain) <= 1e-5


@pytest.mark.parametrize("kind", ZERO)
def test_adam_counts_its_steps_as_in_plain_torch(kind: str) -> None:
    options = {"optimizer": "adamw", "lr": 1e-3}
    (found,) = run_workers(1, losses, "supervised", kind, 5, options)
    (plain,) = run_workers(1, losses, "supervised", "single", 5, options)
    assert gap(found, plain) <= 1e-5


@pytest.mark.parametrize(("optimizer", "kind"), covering(["sgd", "adamw"], DISTRIBUTED))
def test_a_checkpoint_goes_on_to_the_last_bit(kind: str, optimizer: str) -> None:
    options = {"optimizer": optimizer, "lr": 1e-2}
    whole = run_workers(2, state_after, "deacl", kind, 4, None, options)[0]
    half = run_workers(2, state_after, "deacl", kind, 2, None, options)[0]
    rest = run_workers(2, state_after, "deacl", kind, 2, half[1], options)[0]
    assert half[0] + rest[0] == whole[0]
    same(rest[1], whole[1], tolerance=0)


@pytest.mark.parametrize("workers", range(1, 17))
@pytest.mark.parametrize("elements", [1, 5, 10, 33])
def test_shares_of_a_weight_are_all_of_it(elements: int, workers: int) -> None:
    size = -(-elements // workers)  # as ZeRO-3 cuts it, with padding at the end
    covered = []
    for rank in range(workers):
        offset, count = share(elements, size, rank)
        assert 0 <= offset <= elements
        covered += range(offset, offset + count)
    assert covered == list(range(elements))


@pytest.mark.parametrize(
    ("before", "workers", "after", "then"),
    [
        ("zero1", 2, "zero1", 1),
        ("zero2", 2, "zero2", 3),
        ("zero3", 2, "zero3", 1),
        ("zero3", 3, "zero1", 2),
        ("zero2", 1, "ddp", 2),
        ("ddp", 2, "zero3", 2),
        ("zero0", 2, "zero2", 1),
        ("zero3", 4, "ddp", 1),
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_checkpoint_is_of_no_stage_and_no_number_of_workers(
    before: str, workers: int, after: str, then: int, optimizer: str
) -> None:
    options = {"optimizer": optimizer, "lr": 1e-2 if optimizer == "sgd" else 1e-4}
    half = run_workers(workers, state_after, "supervised", before, 2, None, options)[0]
    rest = run_workers(then, state_after, "supervised", after, 2, half[1], options)[0]
    (plain,) = run_workers(1, state_after, "supervised", "single", 4, None, options)
    assert gap(half[0] + rest[0], plain[0]) < 1e-5
    same(rest[1], plain[1], tolerance=1e-5)


@pytest.mark.parametrize("kind", EVERY)
def test_a_part_is_a_copy_of_a_workers_share(kind: str) -> None:
    workers = 1 if kind == "single" else 2
    found = run_workers(workers, part_and_two_steps, kind)
    assert all(unchanged and moved for unchanged, _, moved in found)
    sizes = [size for _, size, _ in found]
    whole = sum(p.numel() for p in small_objective("supervised").parameters())
    assert sum(size["moments"] for size in sizes) == 2 * whole
    assert sum(size["weights"] for size in sizes) == whole
    # What ZeRO has cut up stays so; the first worker has what is whole.
    cut = {"zero1": ["moments"], "zero2": ["moments"], "zero3": ["moments", "weights"]}
    for key in ("moments", "weights"):
        shares = [size[key] / sum(s[key] for s in sizes) for size in sizes]
        expected = [0.5, 0.5] if key in cut.get(kind, []) else [1.0, 0.0]
        assert shares == pytest.approx(expected[:workers], abs=0.05)


def same(one: dict[str, Any], other: dict[str, Any], *, tolerance: float) -> None:
    """Equal weights, buffers and states of the optimizer."""
    for key, value in other["objective"].items():
        close(one["objective"][key], value, tolerance, key)
    for number, state in other["optimizer"]["state"].items():
        assert one["optimizer"]["state"][number].keys() == state.keys()
        for key, value in state.items():
            close(one["optimizer"]["state"][number][key], value, tolerance, key)
    assert one["optimizer"]["param_groups"] == other["optimizer"]["param_groups"]


def close(one: Tensor, other: Tensor, tolerance: float, name: str) -> None:
    difference = (torch.as_tensor(one).double() - torch.as_tensor(other)).abs()
    assert float(difference.max()) <= tolerance, name


@pytest.mark.parametrize("kind", DISTRIBUTED)
def test_weights_changed_while_gathered_stay_changed(kind: str) -> None:
    for before, doubled, after in run_workers(2, doubled_weights_after_a_step, kind):
        for name, value in before.items():
            if "running" in name or "num_batches" in name or "normalize" in name:
                continue
            assert torch.equal(doubled[name], 2 * value), name
            assert torch.equal(after[name], doubled[name]), name


@pytest.mark.parametrize("kind", DISTRIBUTED)
def test_an_overflow_on_one_worker_is_left_out_on_all(kind: str) -> None:
    for found in run_workers(2, overflow_on_one_worker, kind):
        assert found == (True, 2.0**15, False, 2.0**15)


@pytest.mark.parametrize("kind", EVERY)
def test_the_loss_scale_is_divided_out(kind: str) -> None:
    (scaled,) = run_workers(1, weights_after_a_scaled_step, kind, True)
    (plain,) = run_workers(1, weights_after_a_scaled_step, kind, False)
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], value, rtol=1e-5, atol=1e-7)


def test_bf16_learns_under_every_stage() -> None:
    options = {"optimizer": "sgd", "lr": 0.05, "precision": "bf16"}
    for kind in ZERO:
        found = run_workers(2, losses, "supervised", kind, 10, options)[0]
        exact = run_workers(2, losses, "supervised", "ddp", 10, options)[0]
        assert found[-1] < found[0] - 0.05
        assert gap(found, exact) < 0.02


@pytest.mark.parametrize("kind", ["zero1", "zero2", "zero3"])
def test_an_optimizer_that_needs_whole_layers_is_refused(kind: str) -> None:
    objective = small_objective("supervised")
    groups = parameter_groups(objective, weight_decay=0.1, decay_norm_and_bias=True)
    optimizer = lars(groups, momentum=0.9, trust=0.02, clip_trust=True)
    with pytest.raises(UserError, match="Lars takes norms of whole layers"):
        made(kind).check(optimizer, 2)
    made("zero0").check(optimizer, 2)


def test_options_that_move_the_state_are_refused() -> None:
    strategy = DeepSpeedStrategy(
        stage=3,
        precision="fp32",
        offload="none",
        options={"offload_optimizer": {"device": "cpu"}},
        clip_grad=None,
    )
    optimizer = torch.optim.SGD(small_objective("supervised").parameters(), lr=0.1)
    with pytest.raises(UserError, match=r"set strategy\.offload=optimizer or all"):
        strategy.check(optimizer, 2)


def test_fp16_without_a_gpu_is_refused() -> None:
    objective = small_objective("supervised")
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    for kind in ("single", "zero2"):
        strategy = made(kind, precision="fp16")
        with pytest.raises(UserError, match="fp16 needs a GPU"):
            strategy.wrap(objective, optimizer, torch.device("cpu"))
