import pytest
import torch

from rrl_dist.core.collectives import all_gather, all_mean, all_sum, any_worker
from tests.core.workers import LOSSES, raw_values, value_and_gradient
from tests.gloo import run_workers


def test_alone_they_are_the_identity() -> None:
    x = torch.randn(3, requires_grad=True)
    for collective in (all_sum, all_mean, all_gather):
        assert collective(x) is x
    assert any_worker(True, "cpu")
    assert not any_worker(False, "cpu")
    found = raw_values()
    assert (found["rank"], found["world_size"]) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_values(workers: int) -> None:
    total = workers * (workers + 1) / 2
    places = [float(r) for r in range(1, workers + 1) for _ in range(2)]
    for rank, found in enumerate(run_workers(workers, raw_values)):
        assert found == {
            "sum": [total] * 2,
            "mean": [total / workers] * 2,
            "gather": places,
            "input": [rank + 1.0] * 2,
            "rank": rank,
            "world_size": workers,
            "one": True,
            "none": False,
        }


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_a_global_loss_has_one_gradient_on_any_number_of_workers(
    name: str, workers: int
) -> None:
    loss, gradient = value_and_gradient(name)
    assert float(gradient.abs().max()) > 1e-3
    for found, found_gradient in run_workers(workers, value_and_gradient, name):
        torch.testing.assert_close(found, loss, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found_gradient, gradient, rtol=1e-9, atol=1e-12)
