import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.core.errors import UserError
from rrl_dist.models.backbones import InfomaxCNN, SmallCNN, timm_backbone
from rrl_dist.models.wide_resnet import WideResNet


def on_meta(name: str, stem: str, **sizes: int | None) -> nn.Module:
    """No memory and no arithmetic: shapes alone."""
    with torch.device("meta"):
        return timm_backbone(
            name=name, stem=stem, **{"image_size": None, "patch_size": None, **sizes}
        )


def images(size: int, *, device: str = "meta") -> Tensor:
    return torch.rand(2, 3, size, size, device=device)


def sides(model: nn.Module, size: int) -> list[int]:
    """Height of the maps after each of a ResNet's four layers."""
    found = []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda *args: found.append(args[-1].shape[-1]))
    model(images(size))
    return found


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "wide_resnet50_2"]
)
def test_cifar_stem_keeps_32_pixels_until_the_second_layer(name: str) -> None:
    assert sides(on_meta(name, "cifar"), 32) == [32, 16, 8, 4]


def test_imagenet_stem_is_timms() -> None:
    assert sides(on_meta("resnet18", "imagenet"), 224) == [56, 28, 14, 7]


@pytest.mark.parametrize(
    ("name", "stem", "sizes", "dimensions"),
    [
        ("resnet18", "cifar", {}, 512),
        ("resnet50", "cifar", {}, 2048),
        ("resnet50", "imagenet", {}, 2048),
        ("vit_tiny_patch16_224", "imagenet", {"image_size": 32, "patch_size": 4}, 192),
        ("vit_small_patch16_224", "imagenet", {"image_size": 32, "patch_size": 4}, 384),
    ],
)
def test_features_have_the_dimensions_announced(
    name: str, stem: str, sizes: dict[str, int], dimensions: int
) -> None:
    model = on_meta(name, stem, **sizes)
    assert model.num_features == dimensions
    assert model(images(32)).shape == (2, dimensions)


def test_vit_sees_as_many_patches_as_the_sizes_say() -> None:
    model = on_meta("vit_tiny_patch16_224", "imagenet", image_size=32, patch_size=4)
    assert model.get_parameter("pos_embed").shape[1] == 1 + 8 * 8


def test_cifar_stem_of_a_resnet_is_trained_from_a_sensible_scale() -> None:
    torch.manual_seed(0)
    model = timm_backbone(
        name="resnet18", stem="cifar", image_size=None, patch_size=None
    )
    conv = model.get_submodule("conv1")
    assert (conv.stride, conv.padding, conv.kernel_size) == ((1, 1), (1, 1), (3, 3))
    assert conv.bias is None
    # He et al. 2015: variance 2 / fan-out.
    spread = float(conv.weight.detach().std())
    assert spread == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    features = model(images(32, device="cpu"))
    assert bool(features.isfinite().all())
    assert features.requires_grad


@pytest.mark.parametrize(
    ("name", "stem", "message"),
    [
        ("resnet81", "cifar", "no model 'resnet81'; did you mean .*resnet"),
        ("qwertyuiop", "imagenet", "no model 'qwertyuiop'$"),
        ("resnet18", "cifra", "stem='cifra'; choose cifar or imagenet"),
        ("vit_tiny_patch16_224", "cifar", "no ResNet stem.*stem=imagenet"),
    ],
)
def test_mistakes_are_told_in_one_line(name: str, stem: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        on_meta(name, stem)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("depth", "parameters"),
    # Published with a classifier for 10 classes: 36,479,194 and 46,160,474.
    [(28, 36_479_194 - 6_410), (34, 46_160_474 - 6_410)],
)
def test_wide_resnets_have_the_published_size(depth: int, parameters: int) -> None:
    with torch.device("meta"):
        model = WideResNet(depth=depth, width=10)
    assert model.num_features == 640
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(images(32)).shape == (2, 640)


def literal_wide_resnet(model: WideResNet, x: Tensor) -> Tensor:
    """Depth 10: three groups of one block, by figure 1d and table 1 of the paper."""
    w = iter(model.state_dict().items())

    def take(count: int) -> list[Tensor]:
        return [next(w)[1] for _ in range(count)]

    def activated(h: Tensor) -> Tensor:
        scale, shift, mean, var, _ = norm
        return F.relu(F.batch_norm(h, mean, var, scale, shift))

    h = F.conv2d(x, *take(1), padding=1)
    for stride in (1, 2, 2):
        norm = take(5)
        a = activated(h)
        h = F.conv2d(a, *take(1), padding=1, stride=stride)
        norm = take(5)
        h = F.conv2d(activated(h), *take(1), padding=1)
        h = h + F.conv2d(a, *take(1), stride=stride)
    norm = take(5)
    assert next(w, None) is None
    return activated(h).mean((2, 3))


def test_wide_resnet_equals_the_papers_figure() -> None:
    torch.manual_seed(0)
    model = WideResNet(depth=10, width=2).eval()
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    x = images(32, device="cpu")
    with torch.no_grad():
        expected = literal_wide_resnet(model, x)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape == (2, 128)


@pytest.mark.parametrize("depth", [4, 9, 27, 29])
def test_wide_resnet_depths_that_are_none_are_refused(depth: int) -> None:
    with pytest.raises(UserError, match=f"6n \\+ 4 from 10 on, not {depth}"):
        WideResNet(depth=depth, width=1)


@pytest.mark.parametrize("width", [1, 4])
def test_small_cnn_has_four_times_its_width_in_features(width: int) -> None:
    model = SmallCNN(width=width)
    assert model.num_features == 4 * width
    assert model(images(16, device="cpu")).shape == (2, 4 * width)
    strides = [m.stride[0] for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert strides == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("size", [8, 16, 32])
def test_infomax_cnn_is_the_released_codes(size: int) -> None:
    torch.manual_seed(0)
    model = InfomaxCNN(image_size=size, width=64, hidden=1024, out=64)
    state, x = model.state_dict(), images(size, device="cpu")
    h = x
    for number in (0, 3, 6):
        h = F.conv2d(h, state[f"layers.{number}.weight"], stride=2, padding=1)
        h = F.batch_norm(h, None, None, training=True).clamp_min(0)
    assert h.shape == (2, 256, size // 8, size // 8)
    h = h.flatten(1) @ state["layers.10.weight"].T + state["layers.10.bias"]
    h = F.batch_norm(h, None, None, training=True).clamp_min(0)
    h = h @ state["layers.13.weight"].T + state["layers.13.bias"]
    torch.testing.assert_close(model(x), h, rtol=1e-3, atol=1e-4)
    assert model.num_features == 64
    convolutions = 16 * (3 * 64 + 64 * 128 + 128 * 256) + 2 * (64 + 128 + 256)
    linear = (256 * (size // 8) ** 2 + 1) * 1024 + 2 * 1024 + 1025 * 64
    assert sum(p.numel() for p in model.parameters()) == convolutions + linear


@pytest.mark.parametrize("size", [0, 4, 12, 28])
def test_infomax_cnn_refuses_sizes_that_it_cannot_halve_three_times(size: int) -> None:
    told = f"image_size={size}; .*set data.size to a multiple of 8, or another model="
    with pytest.raises(UserError, match=told):
        InfomaxCNN(image_size=size, width=4, hidden=8, out=4)


def test_infomax_cnn_refuses_images_of_another_size() -> None:
    model = InfomaxCNN(image_size=16, width=4, hidden=8, out=4)
    with pytest.raises(UserError, match=r"images of 16 px, and gets 32x32 px; set "):
        model(images(32, device="cpu"))
