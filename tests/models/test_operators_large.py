"""Layers and their spectral norms in ResNet-50 and wide ResNets, at full width."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import nn

from rrl_dist.models.encoder import Encoder
from rrl_dist.models.operators import (
    Operator,
    operators,
    sigmas,
    top_singular_value,
)
from rrl_dist.training.build import build_encoder
from tests.composing import compose

BOTTLENECKS = (
    "backbone.layer2.0.downsample.0",  # strided shortcut
    "backbone.layer1.0.conv1",
    "backbone.layer2.0.conv2",  # 3x3 with stride 2
    "backbone.conv1",
)


class Case(NamedTuple):
    """One of configs/model.

    Attributes:
        size: of the images, in pixels.
        convolutions: by the papers' tables, shortcuts counted.
        layers: whose norms are compared; the first is a strided shortcut.
    """

    size: int
    convolutions: int
    layers: tuple[str, ...]


CASES = {
    "resnet50": Case(16, 1 + 16 * 3 + 4, BOTTLENECKS),
    "wide_resnet50": Case(16, 1 + 16 * 3 + 4, BOTTLENECKS),
    "resnet50_imagenet": Case(32, 1 + 16 * 3 + 4, BOTTLENECKS),
    "wrn28_10": Case(
        16,
        1 + 12 * 2 + 3,
        ("backbone.layers.5.shortcut", "backbone.layers.5.conv1", "backbone.layers.0"),
    ),
}
Network = tuple[Encoder, Case]


@pytest.fixture(scope="module", params=CASES)
def network(request: pytest.FixtureRequest) -> Network:
    model = compose("pretrain", f"model={request.param}")["model"]
    return build_encoder(model, seed=0), CASES[request.param]


def test_every_convolution_up_to_the_features_is_found_once(network: Network) -> None:
    encoder, case = network
    found = operators(encoder, image_size=case.size)
    layers = {name: operator.layer for name, operator in found.items()}
    convolutions = {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    assert layers == convolutions
    assert len({id(layer.weight) for layer in layers.values()}) == case.convolutions
    assert all(layer.weight.requires_grad for layer in layers.values())


def test_every_convolution_has_a_norm(network: Network) -> None:
    encoder, case = network
    # Two steps are a lower bound.
    found = sigmas(encoder, image_size=case.size, tolerance=1e-3, most=2, seed=0)
    assert len(found) == case.convolutions
    assert all(0 < value < math.inf for value in found.values())
    chosen = operators(encoder, image_size=case.size)
    for name in case.layers:
        assert found[name] <= sigma(chosen[name]) * (1 + 1e-6), name


def sigma(operator: Operator) -> float:
    return top_singular_value(operator, tolerance=1e-3, most=50, seed=0, key="layer")


def after_one_iteration(operator: Operator) -> float:
    """|A v| for v = A^T A u / |A^T A u| with a random u."""
    u = torch.randn(operator.shape, generator=torch.Generator().manual_seed(1))
    v = operator.normal(operator.layer.weight, u)
    return float(operator(v / v.norm()).detach().norm())


def test_a_power_iteration_comes_near_to_the_norm_from_below(network: Network) -> None:
    encoder, case = network
    found = operators(encoder, image_size=case.size)
    assert found[case.layers[0]].layer.stride == (2, 2)
    for name in case.layers:
        largest, reached = sigma(found[name]), after_one_iteration(found[name])
        assert largest / 2 < reached <= largest * (1 + 1e-4), name


def test_the_norm_of_a_1x1_convolution_is_its_kernels(network: Network) -> None:
    """At any stride: it is the same matrix at each pixel that it reads."""
    encoder, case = network
    found = operators(encoder, image_size=case.size)
    pointwise = [k for k in case.layers if found[k].layer.weight.shape[2:] == (1, 1)]
    assert pointwise
    for name in pointwise:
        kernel = found[name].layer.weight.detach().double().flatten(1)
        expected = float(torch.linalg.svdvals(kernel)[0])
        assert sigma(found[name]) == pytest.approx(expected, rel=1e-3), name
