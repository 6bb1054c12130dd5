from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.core.errors import UserError
from rrl_dist.models.heads import (
    NormedProjector,
    PlainProjector,
    Predictor,
    Projector,
)
from rrl_dist.models.sync_bn import SyncBatchNorm

IN, HIDDEN, OUT = 5, 7, 3
SIZES = {"hidden": HIDDEN, "out": OUT, "layers": 3}
WITH_NORM: dict[str, Callable[..., nn.Module]] = {
    "projector": partial(Projector, IN, **SIZES),
    "normed": partial(NormedProjector, IN, **SIZES),
    "predictor": partial(Predictor, IN, hidden=HIDDEN),
}


def features(n: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(n, IN, generator=generator) + 1


def linears(head: nn.Module) -> list[nn.Linear]:
    return [m for m in head.modules() if isinstance(m, nn.Linear)]


def widths(head: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in linears(head)]


def standardized(z: Tensor) -> Tensor:
    variance = (z - z.mean(0)).square().mean(0)
    return (z - z.mean(0)) / (variance + 1e-5).sqrt()


def literal(head: nn.Module, h: Tensor) -> Tensor:
    """Linear layers as they are, with batch norm as it begins and ReLU between."""
    *first, last = linears(head)
    for layer in first:
        h = standardized(h @ layer.weight.T).clamp_min(0)
    h = h @ last.weight.T
    return h if last.bias is None else h + last.bias


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_projector_is_an_mlp_with_batch_norm_and_relu(layers: int) -> None:
    made = partial(Projector, IN, hidden=HIDDEN, out=OUT, layers=layers)
    head = made(sync_bn=False)
    between = [(HIDDEN, HIDDEN)] * (layers - 2)
    ends = [(IN, HIDDEN), *between, (HIDDEN, OUT)] if layers > 1 else [(IN, OUT)]
    assert widths(head) == ends
    assert head.out == OUT
    assert linears(head)[-1].bias is not None
    torch.testing.assert_close(head(features()), literal(head, features()))


@pytest.mark.parametrize("made", [Projector, NormedProjector])
@pytest.mark.parametrize("layers", [0, -1])
def test_a_head_without_layers_is_refused(
    made: Callable[..., nn.Module], layers: int
) -> None:
    with pytest.raises(
        UserError, match=rf"^projector\.layers={layers}; set at least 1"
    ):
        made(IN, hidden=HIDDEN, out=OUT, layers=layers, sync_bn=False)


def test_a_normed_projector_ends_in_batch_norm_that_learns_nothing() -> None:
    head = NormedProjector(IN, **SIZES, sync_bn=False)
    assert widths(head) == [(IN, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, OUT)]
    assert head.out == OUT
    wanted = standardized(literal(head, features()))
    torch.testing.assert_close(head(features()), wanted, rtol=1e-4, atol=1e-5)
    # The norm before it would take a bias out again.
    assert linears(head)[-1].bias is None
    norms = [m for m in head.modules() if isinstance(m, nn.BatchNorm1d)]
    assert [norm.affine for norm in norms] == [True, True, False]


def test_a_predictor_leads_from_a_projection_to_a_projection() -> None:
    head = Predictor(IN, hidden=HIDDEN, sync_bn=False)
    assert widths(head) == [(IN, HIDDEN), (HIDDEN, IN)]
    torch.testing.assert_close(head(features()), literal(head, features()))


def test_a_plain_projector_treats_each_row_alone() -> None:
    head = PlainProjector(IN, hidden=HIDDEN, out=OUT)
    assert widths(head) == [(IN, HIDDEN), (HIDDEN, OUT)]
    assert head.out == OUT
    first, last = linears(head)
    hidden = (features() @ first.weight.T + first.bias).clamp_min(0)
    wanted = hidden @ last.weight.T + last.bias
    torch.testing.assert_close(head(features()), wanted)
    torch.testing.assert_close(head(features())[:1], head(features()[:1]))


@pytest.mark.parametrize("sync_bn", [True, False])
@pytest.mark.parametrize("name", WITH_NORM)
def test_batch_norm_is_over_all_workers_where_asked(name: str, sync_bn: bool) -> None:
    head = WITH_NORM[name](sync_bn=sync_bn)
    norms = [
        m for m in head.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    assert norms
    assert {isinstance(norm, SyncBatchNorm) for norm in norms} == {sync_bn}
    other = WITH_NORM[name](sync_bn=not sync_bn)
    other.load_state_dict(head.state_dict())
    torch.testing.assert_close(head(features()), other(features()))
