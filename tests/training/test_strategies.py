import pytest
import torch
from torch import nn

from rrl_dist.core.errors import UserError
from rrl_dist.training.buffers import average_buffers
from rrl_dist.training.precision import check_precision
from rrl_dist.training.strategies import TorchStrategy
from tests.gloo import run_workers
from tests.longer import covering
from tests.objectives.harness import BRANCHED, OBJECTIVES, own_batch
from tests.training.workers import (
    averaged,
    buffers_after_training,
    norms_of_gradients,
    wrapped,
)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match=r"precision=fp8; choose fp32, bf16, fp16"):
        check_precision("fp8", gpu=True)


def step_of(strategy: TorchStrategy, name: str) -> list[torch.Tensor]:
    """What one update does to the weights, over its rate of 0.1."""
    before = [p.detach().clone() for p in strategy.objective.parameters()]
    batch = strategy.objective.inner(own_batch(name))
    strategy.update(strategy.forward(batch)["loss"])
    after = strategy.objective.parameters()
    return [(b - a.detach()) / 0.1 for b, a in zip(before, after, strict=True)]


def norm_of(tensors: list[torch.Tensor]) -> float:
    return float(torch.cat([t.flatten() for t in tensors]).norm())


def test_gradients_are_clipped_by_their_global_norm() -> None:
    free = step_of(wrapped("simclr"), "simclr")
    size = norm_of(free)
    clipped = step_of(wrapped("simclr", clip_grad=size / 3), "simclr")
    assert norm_of(clipped) == pytest.approx(size / 3, rel=1e-3)
    for one, other in zip(free, clipped, strict=True):
        torch.testing.assert_close(one / 3, other, rtol=1e-2, atol=1e-5)
    loose = step_of(wrapped("simclr", clip_grad=size * 3), "simclr")
    assert norm_of(loose) == pytest.approx(size, rel=1e-3)


def test_an_update_leaves_no_gradient() -> None:
    strategy = wrapped("deacl")
    step_of(strategy, "deacl")
    assert all(p.grad is None for p in strategy.objective.parameters())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32(name: str) -> None:
    strategy = wrapped(name, precision="bf16")
    seen: set[torch.dtype] = set()
    for module in strategy.objective.encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *args: seen.add(args[-1].dtype))
    with strategy.raw():
        batch = strategy.objective.inner(own_batch(name))
    terms = strategy.forward(batch)
    # The singular values are computed with the layers, in float32.
    assert seen - {torch.float32 if name == "spectral" else None} == {torch.bfloat16}
    assert terms["loss"].dtype == torch.float32
    strategy.update(terms["loss"])
    state = strategy.objective.state_dict()
    floating = [value for value in state.values() if value.is_floating_point()]
    assert {value.dtype for value in floating} == {torch.float32}
    assert all(bool(value.isfinite().all()) for value in floating)
    exact = wrapped(name)
    exact_batch = exact.objective.inner(own_batch(name))
    expected = float(exact.forward(exact_batch)["loss"].detach())
    assert float(terms["loss"].detach()) == pytest.approx(expected, rel=0.05, abs=0.05)


def test_fp32_computes_in_fp32() -> None:
    strategy = wrapped("supervised")
    with strategy.raw():
        product = torch.rand(2, 2) @ torch.rand(2, 2)
    assert product.dtype == torch.float32


@pytest.mark.parametrize("sync_bn", [True, False])
@pytest.mark.parametrize("name", [*OBJECTIVES, BRANCHED])
def test_the_inner_maximization_leaves_no_trace(name: str, sync_bn: bool) -> None:
    without = norms_of_gradients(name, False, sync_bn)
    assert norms_of_gradients(name, True, sync_bn) == without
    assert min(max(norms) for norms in without) > 1e-3
    assert without[0] != without[1]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sync_bn"), covering(OBJECTIVES, [True, False]))
def test_the_inner_maximization_leaves_no_trace_on_two_workers(
    name: str, sync_bn: bool
) -> None:
    without = run_workers(2, norms_of_gradients, name, False, sync_bn)
    assert run_workers(2, norms_of_gradients, name, True, sync_bn) == without
    assert without[0] == without[1]
    if sync_bn:
        alone = norms_of_gradients(name, False, sync_bn)
        for one, other in zip(without[0], alone, strict=True):
            assert one == pytest.approx(other, rel=2e-3, abs=1e-5)


def test_alone_buffers_stay_as_they_are() -> None:
    norm = nn.BatchNorm1d(2)
    norm(torch.rand(8, 2))
    before = {name: value.clone() for name, value in norm.named_buffers()}
    average_buffers(norm)
    for name, value in norm.named_buffers():
        assert torch.equal(value, before[name]), name


@pytest.mark.slow
def test_moving_statistics_become_their_mean_and_nothing_else_does() -> None:
    for rank, found in enumerate(run_workers(2, averaged)):
        own = {"running_mean": [1.0, 10.0 * (rank + 1)], "running_var": [rank] * 2}
        common = {"running_mean": [1.0, 15.0], "running_var": [0.5] * 2}
        for name in ("moving", "frozen", "synchronized"):
            expected = common if name == "moving" else own
            for key, value in expected.items():
                assert found[f"{name}.{key}"] == value, name
            assert found[f"{name}.num_batches_tracked"] == [rank + 5]
        for name in ("moving", "frozen", "untracked", "synchronized"):
            assert found[f"{name}.weight"] == [rank] * 2
        assert found["constant"] == [rank]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simclr", "deacl"])
def test_workers_with_local_batch_norm_have_one_network(name: str) -> None:
    one, other = run_workers(2, buffers_after_training, name)
    alone = buffers_after_training(name)
    for key, value in one.items():
        assert torch.equal(value, other[key]), key
        if key.endswith("running_mean"):
            assert not torch.equal(value, torch.zeros_like(value)), key
    assert one.keys() == alone.keys()
