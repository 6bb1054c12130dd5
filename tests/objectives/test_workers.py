"""1 = 2 = 4 workers, loss and gradient, for every objective."""

import math

import pytest
import torch

from tests.gloo import run_workers
from tests.longer import covering
from tests.objectives.harness import (
    BRANCHED,
    COUPLED,
    OBJECTIVES,
    logged,
    loss_and_gradient,
)
from tests.objectives.informed import INFORMED
from tests.objectives.labelling import ANCHORED

EVERY = [*dict.fromkeys((*OBJECTIVES, *COUPLED, *INFORMED, *ANCHORED)), BRANCHED]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "workers"), covering(EVERY, [2, 4]))
def test_loss_and_gradient_do_not_depend_on_worker_count(
    name: str, workers: int
) -> None:
    loss, gradient = loss_and_gradient(name)
    assert max(float(g.abs().max()) for g in gradient.values()) > 1e-3
    for found, grads in run_workers(workers, loss_and_gradient, name):
        assert math.isclose(found, loss, rel_tol=1e-5, abs_tol=1e-6)
        for key, expected in gradient.items():
            torch.testing.assert_close(grads[key], expected, rtol=1e-3, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_what_is_logged_is_of_the_global_batch(name: str) -> None:
    alone = logged(name)
    assert len(alone) > 1
    for found in run_workers(2, logged, name):
        assert found == pytest.approx(alone, rel=1e-4, abs=1e-5)
