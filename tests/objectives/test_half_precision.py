"""Losses under autocast: the projections are rounded there, their products are not."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.core.batch import Batch
from rrl_dist.objectives.barlow import Barlow
from rrl_dist.objectives.moco import MoCo
from rrl_dist.objectives.objective import Objective
from rrl_dist.objectives.simclr import SimCLR
from rrl_dist.objectives.vicreg import VICReg
from tests.objectives.views import two_views

SAMPLES, DIMS = 32, 24
PLACES = torch.arange(2 * SAMPLES)


class Table(nn.Embedding):
    """An encoder whose features are its weights, a row for each image."""

    num_features = DIMS

    def __init__(self, rows: Tensor) -> None:
        super().__init__(2 * SAMPLES, DIMS, _weight=rows.clone())


class Same(nn.Identity):
    """A head that leaves what it gets."""

    out = DIMS


# Of those without a predictor: its products are a network's, which are in bf16.
METHODS: dict[str, Callable[..., Objective]] = {
    "simclr": partial(SimCLR, temperature=0.1),
    "moco": partial(
        MoCo, temperature=0.1, queue_size=40, momentum_start=0.9, momentum_end=1.0
    ),
    "barlow": partial(Barlow, off_diagonal_weight=5e-3, scale=0.1, eps=1e-5),
    "vicreg": partial(
        VICReg,
        invariance_weight=25.0,
        variance_weight=25.0,
        covariance_weight=1.0,
        eps=1e-4,
    ),
}


def loss_and_gradient(name: str, rows: Tensor, *, autocast: bool) -> tuple[Tensor, ...]:
    """Of one step on `rows`, as a strategy takes it: the backward is outside."""
    torch.manual_seed(0)  # of the queue
    encoder = Table(rows)
    objective = METHODS[name](encoder=encoder, projector=Same).train()
    views = tuple(PLACES.chunk(2))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert (product.dtype == torch.bfloat16) == autocast
        loss = objective(Batch(views[0], views, views[0], views[0]))["loss"]
    return loss.detach(), *torch.autograd.grad(loss, encoder.weight)


@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradient_are_those_in_float32_of_the_same_projections(
    name: str,
) -> None:
    rows = torch.cat(two_views(SAMPLES, DIMS, seed=1)).bfloat16()
    loss, slope = loss_and_gradient(name, rows.float(), autocast=False)
    found, gradient = loss_and_gradient(name, rows, autocast=True)
    assert loss.dtype == found.dtype == torch.float32
    torch.testing.assert_close(found, loss, rtol=1e-5, atol=0.0)
    assert float(slope.norm()) > 1e-3
    torch.testing.assert_close(gradient, slope.bfloat16(), rtol=1e-5, atol=0.0)
