"""Spectral norms of layers, against the layer's matrix written out."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from rrl_dist.core.errors import UserError
from rrl_dist.models.backbones import SmallCNN
from rrl_dist.models.encoder import Encoder
from rrl_dist.models.operators import (
    Operator,
    operators,
    sigmas,
    top_singular_value,
)

# Channels in and out, kernel, size of the image, and more settings of the layer.
CONVOLUTIONS: list[tuple[int, int, Any, int, dict[str, Any]]] = [
    (3, 5, 3, 6, {"padding": 1}),
    (3, 5, 3, 6, {"padding": 1, "bias": True}),
    (2, 3, 3, 7, {"padding": 1, "stride": 2}),
    (2, 3, 3, 8, {"padding": 1, "stride": 2}),  # the last row's padding is not read
    (2, 3, 2, 8, {"stride": 3}),  # nor are some pixels
    (4, 3, 1, 7, {"stride": 2, "bias": True}),
    (2, 3, 3, 7, {"padding": 2, "dilation": 2}),
    (4, 6, 3, 6, {"padding": 1, "groups": 2}),
    (4, 8, 5, 6, {"padding": 2, "groups": 4, "stride": 2}),
    (2, 3, (1, 5), 6, {"padding": "same"}),
    (2, 3, 3, 6, {"padding": 1, "padding_mode": "circular"}),
    (2, 3, 3, 6, {"padding": 1, "padding_mode": "reflect", "stride": 2}),
]


def convolution(case: tuple[int, int, Any, int, dict[str, Any]]) -> Operator:
    channels, out, kernel, size, settings = case
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, out, kernel, **{"bias": False, **settings})
    return Operator(layer, (channels, size, size))


def matrix(operator: Operator) -> Tensor:
    """[outputs, inputs] in float64: the layer called on every unit vector."""
    layer = operator.layer.double()
    count = math.prod(operator.shape)
    units = torch.eye(count, dtype=torch.float64).view(count, *operator.shape)
    images = layer(units) - layer(torch.zeros_like(units))
    return images.detach().flatten(1).T


every_convolution = pytest.mark.parametrize("case", CONVOLUTIONS)


def top(operator: Operator, *, tolerance: float = 1e-9, most: int = 300) -> float:
    return top_singular_value(
        operator, tolerance=tolerance, most=most, seed=0, key="layer"
    )


@every_convolution
def test_the_largest_singular_value_is_that_of_the_matrix(case: Any) -> None:
    operator = convolution(case)
    assert top(operator) == pytest.approx(
        float(torch.linalg.svdvals(matrix(operator))[0]), rel=1e-6
    )


@every_convolution
def test_products_are_those_of_the_matrix(case: Any) -> None:
    operator = convolution(case)
    a = matrix(operator)
    v = torch.randn(operator.shape, dtype=torch.float64)
    torch.testing.assert_close(operator(v).flatten(), a @ v.flatten())
    product = operator.normal(operator.layer.weight, v)
    assert product.shape == v.shape
    assert not product.requires_grad
    assert operator.layer.weight.grad is None
    torch.testing.assert_close(product.flatten(), a.T @ a @ v.flatten())


def test_circular_padding_is_a_product_of_fourier_transforms() -> None:
    channels, out, size = 3, 4, 8
    settings = {"padding": 1, "padding_mode": "circular"}
    operator = convolution((channels, out, 3, size, settings))
    kernel = torch.zeros(out, channels, size, size, dtype=torch.complex128)
    kernel[..., :3, :3] = operator.layer.weight.detach()
    # One matrix of channels a frequency; a shift of the kernel turns phases only.
    blocks = torch.fft.fft2(kernel).permute(2, 3, 0, 1)
    expected = float(torch.linalg.svdvals(blocks).max())
    assert top(operator) == pytest.approx(expected, rel=1e-6)
    zeros = convolution((channels, out, 3, size, {"padding": 1}))
    assert torch.equal(zeros.layer.weight.double(), operator.layer.weight.double())
    assert top(zeros) < expected * (1 - 1e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_its_weight(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 9, bias=bias)
    expected = float(torch.linalg.svdvals(layer.weight.detach())[0])
    assert top(Operator(layer, (6,))) == pytest.approx(expected, rel=1e-6)


def test_a_matrix_of_zeros_and_one_of_rank_one() -> None:
    layer = nn.Linear(5, 4)
    nn.init.zeros_(layer.weight)
    assert top(Operator(layer, (5,))) == 0.0
    with torch.no_grad():
        layer.weight[2] = torch.tensor([0.0, 3.0, 0.0, 4.0, 0.0])
    assert top(Operator(layer, (5,))) == pytest.approx(5.0)


def test_it_stops_at_its_tolerance_below_the_value() -> None:
    operator = convolution((3, 8, 3, 12, {"padding": 1}))
    exact = torch.linalg.svdvals(matrix(operator))
    largest = float(exact[0])
    tolerances = (0.3, 0.01, 1e-9)
    found = [top(operator, tolerance=tolerance) for tolerance in tolerances]
    assert found == sorted(found)
    for value, tolerance in zip(found, tolerances, strict=True):
        nearest = float((exact.square() - value**2).abs().min())
        assert nearest <= (tolerance + 1e-6) * value**2
        assert value <= largest * (1 + 1e-6)
    assert found[0] < largest * (1 - 1e-2), "the tolerance changes nothing"
    assert found[1] > largest * (1 - 1e-3)
    assert top(operator, tolerance=0.0, most=3) < largest * (1 - 1e-3)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_through_the_layers_own_call_it_is_the_same(kind: str, bias: bool) -> None:
    """As under ZeRO-3, whose weights `ds_id` marks."""
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias)
    operator = (
        Operator(conv, (3, 8, 8)) if kind == "conv" else Operator(nn.Linear(6, 4), (6,))
    )
    v = torch.randn(operator.shape)
    expected = operator(v)
    expected.square().sum().backward()
    weight = operator.layer.weight
    assert weight.grad is not None
    gradient = weight.grad.clone()
    operator.layer.zero_grad()
    calls: list[int] = []
    operator.layer.register_forward_hook(lambda *args: calls.append(1))
    operator(v)
    assert not calls
    weight.ds_id = 0
    found = operator(v)
    assert calls
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    torch.testing.assert_close(weight.grad, gradient)
    if operator.layer.bias is not None:
        assert operator.layer.bias.grad is not None
        assert float(operator.layer.bias.grad.abs().max()) < 1e-5


def encoder_of(backbone: nn.Module, *, sync_bn: bool = False) -> Encoder:
    backbone.num_features = 4  # type: ignore[assignment]
    return Encoder(backbone=backbone, mean=[0.5] * 3, std=[0.2] * 3, sync_bn=sync_bn)


def test_layers_are_found_with_the_shapes_of_their_inputs() -> None:
    encoder = Encoder(
        backbone=SmallCNN(width=4), mean=[0.5] * 3, std=[0.2] * 3, sync_bn=True
    )
    shapes = {k: o.shape for k, o in operators(encoder, image_size=12).items()}
    assert shapes == {
        "backbone.layers.0": (3, 12, 12),
        "backbone.layers.3": (4, 12, 12),
        "backbone.layers.6": (8, 6, 6),
        "backbone.layers.9": (8, 6, 6),
        "backbone.layers.12": (16, 3, 3),
    }


class Unused(nn.Module):
    """A linear layer of tokens, one that is used by none, and a table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 16, 3))
        self.tokens = nn.Linear(3, 4)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2) + self.pos_embed
        return self.tokens(tokens).mean(1)


def test_layers_that_are_not_used_are_not_found() -> None:
    encoder = encoder_of(Unused())
    found = operators(encoder, image_size=4)
    assert {k: o.shape for k, o in found.items()} == {"backbone.tokens": (3,)}


@pytest.mark.parametrize("sync_bn", [True, False])
def test_looking_leaves_modes_and_buffers_as_they_were(sync_bn: bool) -> None:
    encoder = encoder_of(SmallCNN(width=4), sync_bn=sync_bn).train()
    encoder.backbone.layers[1].eval()  # type: ignore[index,union-attr]
    modes = [m.training for m in encoder.modules()]
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    found = sigmas(encoder, image_size=8, tolerance=0.01, most=50, seed=0)
    assert [m.training for m in encoder.modules()] == modes
    assert True in modes
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in encoder.parameters())
    hooked = [m for m in encoder.modules() if m._forward_pre_hooks]
    assert not hooked
    assert list(found) == list(operators(encoder, image_size=8))
    assert all(value > 0 for value in found.values())


def test_a_vision_transformer_is_linear_layers_and_its_patches() -> None:
    from rrl_dist.models.backbones import timm_backbone

    sizes = {"image_size": 16, "patch_size": 4}
    model = timm_backbone(name="vit_tiny_patch16_224", stem="imagenet", **sizes)
    found = operators(encoder_of(model), image_size=16)
    kinds = {type(o.layer) for o in found.values()}
    assert kinds == {nn.Conv2d, nn.Linear}
    assert len(found) == 1 + 12 * 4
    assert found["backbone.blocks.0.attn.qkv"].shape == (192,)


class Standardized(nn.Conv2d):
    """Of a kernel that is not its weight."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.mean(1)
        return self.attention(rows, rows, rows)[0]


@pytest.mark.parametrize(
    ("layer", "name", "kind"),
    [
        (Standardized(3, 4, 3), "backbone", "Standardized"),
        (nn.ConvTranspose2d(3, 4, 3), "backbone", "ConvTranspose2d"),
        (Attention(), "backbone.attention", "MultiheadAttention"),
        (
            nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 4, 3))),
            "backbone.0",
            "ParametrizedConv2d",
        ),
    ],
)
def test_a_layer_that_is_not_known_is_refused(
    layer: nn.Module, name: str, kind: str
) -> None:
    expected = f"spectral norms are not known of {name}, a {kind}; choose a model of"
    with pytest.raises(UserError, match=expected):
        operators(encoder_of(layer), image_size=4)


def test_a_layer_for_inputs_of_two_sizes_is_refused() -> None:
    with pytest.raises(UserError, match=r"uses backbone\.conv for inputs of two sizes"):
        operators(encoder_of(Twice()), image_size=8)
