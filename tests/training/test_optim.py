import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from rrl_dist.cli.app import CONFIGS
from rrl_dist.models.backbones import SmallCNN
from rrl_dist.training.build import build
from rrl_dist.training.optim import lars, parameter_groups, set_learning_rate, sgd

NAMES = ("sgd", "finetune", "lars", "adamw", "adam")


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(SmallCNN(width=2), nn.Linear(8, 3))
    model[0].layers[0].weight.requires_grad_(False)
    return model


def with_gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Random ones, which are returned by name."""
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.randn(p.shape, generator=generator)
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("decay_all", [False, True])
def test_each_trained_parameter_is_in_one_group(decay_all: bool) -> None:
    model = network()
    groups = parameter_groups(model, weight_decay=0.3, decay_norm_and_bias=decay_all)
    grouped = [id(p) for group in groups for p in group["params"]]
    trained = [id(p) for p in model.parameters() if p.requires_grad]
    assert len(trained) == len(list(model.parameters())) - 1
    assert sorted(grouped) == sorted(trained)
    for group in groups:
        for p in group["params"]:
            decayed = decay_all or p.ndim > 1
            assert group["weight_decay"] == (0.3 if decayed else 0.0)


def test_a_module_without_vectors_has_no_empty_group() -> None:
    groups = parameter_groups(
        nn.Linear(2, 2, bias=False), weight_decay=0.1, decay_norm_and_bias=False
    )
    assert [len(group["params"]) for group in groups] == [1]


def test_lars_adapts_and_decays_matrices_alone() -> None:
    model, lr, trust, decay = network(), 0.4, 0.02, 0.1
    groups = parameter_groups(model, weight_decay=decay, decay_norm_and_bias=False)
    optimizer = lars(groups, momentum=0.9, trust=trust, clip_trust=True)
    set_learning_rate(optimizer, lr)
    gradients = with_gradients(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.step()
    for name, p in model.named_parameters():
        step = (before[name] - p.detach()) / lr
        if not p.requires_grad:
            assert torch.equal(before[name], p)
        elif p.ndim <= 1:
            torch.testing.assert_close(step, gradients[name], rtol=1e-4, atol=1e-5)
        else:
            w, g = before[name], gradients[name]
            ratio = trust * w.norm() / (g.norm() + decay * w.norm())
            expected = min(float(ratio) / lr, 1.0) * (g + decay * w)
            torch.testing.assert_close(step, expected, rtol=1e-3, atol=1e-6)
            assert float(step.norm()) < 0.5 * float(g.norm())


def test_sgd_has_the_momentum_and_the_decay_it_was_given() -> None:
    layer = nn.Linear(3, 2)
    groups = parameter_groups(layer, weight_decay=0.1, decay_norm_and_bias=False)
    optimizer = sgd(groups, momentum=0.9, nesterov=False)
    set_learning_rate(optimizer, 0.5)
    w, b = layer.weight.detach().clone(), layer.bias.detach().clone()
    velocity_w, velocity_b = torch.zeros_like(w), torch.zeros_like(b)
    for _ in range(3):
        gradients = with_gradients(layer)
        optimizer.step()
        velocity_w = 0.9 * velocity_w + gradients["weight"] + 0.1 * w
        velocity_b = 0.9 * velocity_b + gradients["bias"]
        w, b = w - 0.5 * velocity_w, b - 0.5 * velocity_b
    torch.testing.assert_close(layer.weight.detach(), w)
    torch.testing.assert_close(layer.bias.detach(), b)


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_builds_and_steps_at_the_rate_set(name: str) -> None:
    config = OmegaConf.to_container(OmegaConf.load(CONFIGS / "optim" / f"{name}.yaml"))
    model = network()
    groups = parameter_groups(
        model,
        weight_decay=config["weight_decay"],
        decay_norm_and_bias=config["decay_norm_and_bias"],
    )
    optimizer = build(config["optimizer"], groups=groups)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with_gradients(model)
    optimizer.step()  # the rate is 0 until it is set
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    set_learning_rate(optimizer, 0.1)
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}
    with_gradients(model)
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(before[n], p)}
    assert moved == {n for n, p in model.named_parameters() if p.requires_grad}


def test_every_optimizer_of_the_configurations_is_tested() -> None:
    assert {path.stem for path in (CONFIGS / "optim").glob("*.yaml")} == set(NAMES)
