import pytest
import torch
from torch import nn

from rrl_dist.core.modes import evaluating, frozen


def network() -> nn.Module:
    """Some parts are in eval mode, some parameters frozen."""
    model = nn.Sequential(
        nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)),
        nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2)),
    ).train()
    model[0][1].eval()
    model[1].training = False  # its children go on training
    model[0][0].bias.requires_grad_(False)
    return model


def modes(*models: nn.Module) -> list[bool]:
    return [module.training for model in models for module in model.modules()]


def gradients(*models: nn.Module) -> list[bool]:
    return [p.requires_grad for model in models for p in model.parameters()]


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize(
    ("borrow", "state"), [(evaluating, modes), (frozen, gradients)]
)
def test_every_part_has_its_state_back(borrow, state, fail: bool) -> None:
    one, other = network(), nn.Linear(2, 2)
    before = state(one, other)
    assert len(set(before)) == 2
    try:
        with borrow(one, other):
            assert not any(state(one, other))
            if fail:
                raise RuntimeError("inside")
    except RuntimeError as error:
        assert str(error) == "inside"  # noqa: PT017
    assert state(one, other) == before


@pytest.mark.parametrize(
    ("borrow", "state"), [(evaluating, modes), (frozen, gradients)]
)
def test_may_be_nested_and_given_one_model_twice(borrow, state) -> None:
    model = network()
    before = state(model)
    with borrow(model, model), borrow(model[0]):
        assert not any(state(model))
    assert state(model) == before


def test_a_frozen_model_still_passes_the_gradient_of_its_input() -> None:
    model = network()
    x = torch.rand(4, 2, requires_grad=True)
    with evaluating(model), frozen(model):
        model(x).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().max()) > 0
    assert all(p.grad is None for p in model.parameters())
