"""What every attack does with the model that it borrows."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks import Linf
from tests.attacks.kinds import Data, Kind, apgd, every_kind, fab, fab_t, square


@every_kind
def test_model_is_given_back_as_it_was(
    kind: Kind, model: nn.Sequential, unseen: Data
) -> None:
    x, y = (column[:70] for column in unseen)
    expected = kind(Linf(0.1))(model, x, y)
    model.train()
    model[4].eval()
    model[0].bias.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    needs = [parameter.requires_grad for parameter in model.parameters()]
    state = copy.deepcopy(model.state_dict())
    x.requires_grad_()
    x_adv = kind(Linf(0.1))(model, x, y)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert x.grad is None
    # The attack saw the model in eval mode although it was training.
    assert torch.equal(x_adv, expected)


@every_kind
def test_backward_passes_skip_the_parameters(
    kind: Kind, model: nn.Sequential, unseen: Data
) -> None:
    x, y = (column[:10] for column in unseen)
    needed: list[bool] = []
    model[0].register_forward_hook(
        lambda *_: needed.extend(p.requires_grad for p in model.parameters())
    )
    kind(Linf(0.1))(model, x, y)
    assert needed
    assert not any(needed)


@every_kind
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_callers_grad_mode_does_not_matter(
    kind: Kind, mode: Callable[[], torch.no_grad], model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:10] for column in unseen)
    expected = kind(Linf(0.1))(model, x, y)
    with mode():
        assert torch.equal(kind(Linf(0.1))(model, x.clone(), y.clone()), expected)


class Counted(nn.Module):
    """Counts the encoder's calls and their rows."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.encoder, self.head = model[:-1], model[-1]
        self.shapes: list[int] = []
        self.encoder.register_forward_pre_hook(
            lambda _, args: self.shapes.append(len(args[0]))
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(x))
        return logits


@every_kind
def test_queries_are_the_forward_passes(
    kind: Kind, model: nn.Sequential, unseen: Data
) -> None:
    x, y = (column[:40] for column in unseen)
    wrong_at_start = model(x).argmax(1) != y
    y[0] = (y[0] + 1) % 10
    wrong_at_start[0] = True
    for row in range(0, 40, 4):
        counted = Counted(model)
        one = torch.tensor([row])
        attack = kind(Linf(0.1), micro_batch=1)
        queries = attack.run(counted, x[one], y[one], one).queries
        calls = len(counted.shapes)
        if kind in (apgd, square, fab, fab_t) and not wrong_at_start[row]:
            calls -= 3  # on noise, to find that a copy answers the same sooner
        # A copy asks again where rounding could turn its answer, as at FAB's images.
        again = calls - queries.item()
        assert again == 0 or (kind in (fab, fab_t) and again <= 2)
        if kind is apgd and wrong_at_start[row]:
            assert queries.item() == 1


@every_kind
def test_model_sees_one_shape_only(
    kind: Kind, model: nn.Sequential, unseen: Data
) -> None:
    x, y = (column[:21] for column in unseen)
    counted = Counted(model)
    kind(Linf(0.05), micro_batch=16)(counted, x, y)
    assert set(counted.shapes) == {16}
