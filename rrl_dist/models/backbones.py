"""Backbones: [N, 3, H, W] normalized images -> [N, D] features, D = `num_features`."""

from typing import Any, cast

from torch import Tensor, nn

from rrl_dist.core.errors import UserError

_HALVED = 8  # by three strides of 2


def timm_backbone(
    *, name: str, stem: str, image_size: int | None, patch_size: int | None
) -> nn.Module:
    """A timm model without its classifier, not pretrained.

    Args:
        name: timm's name, such as "resnet18" or "vit_tiny_patch16_224".
        stem: "imagenet" leaves the model as timm has it; "cifar", for ResNets, makes
            the first convolution 3x3 with stride 1 and padding 1 and takes out the
            max pooling, so that 32-pixel images are not reduced fourfold at the door.
        image_size, patch_size: in pixels, for vision transformers; null otherwise.

    Raises:
        UserError: unknown name or stem, or a CIFAR stem for a model that has none.
    """
    import timm

    if stem not in ("cifar", "imagenet"):
        raise UserError(f"model stem={stem!r}; choose cifar or imagenet")
    if not timm.is_model(name):
        near = timm.list_models(f"*{name[:6]}*")[:3]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UserError(f"timm has no model {name!r}{hint}")
    sizes = {"img_size": image_size, "patch_size": patch_size}
    options: dict[str, Any] = {
        key: value for key, value in sizes.items() if value is not None
    }
    model = timm.create_model(name, pretrained=False, num_classes=0, **options)
    return _with_cifar_stem(model, name) if stem == "cifar" else model


def _with_cifar_stem(model: Any, name: str) -> nn.Module:
    if not isinstance(getattr(model, "conv1", None), nn.Conv2d):
        raise UserError(
            f"{name!r} has no ResNet stem to adapt; set model.backbone.stem=imagenet"
        )
    # Padding 1 keeps 32x32; some public robust-SSL codes pad by 2 and get 34x34,
    # and their checkpoints differ from everyone else's by that.
    model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return cast(nn.Module, model)


def _keeping_size(conv: nn.Conv2d) -> nn.Identity:
    """Activations keep their size at the start, as batch norm would see to; names of
    layers stay those with batch norm."""
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(cast(nn.Parameter, conv.bias))
    return nn.Identity()


class SmallCNN(nn.Module):
    """Five 3x3 convolutions: robust training in minutes on a CPU.

    Args:
        width: channels of the first convolution; features have 4 * width.
        batch_norm: behind each convolution; without it, convolutions have biases.
    """

    def __init__(self, *, width: int, batch_norm: bool = True) -> None:
        super().__init__()
        plan = [(width, 1), (2 * width, 2), (2 * width, 1), (4 * width, 2)]
        plan.append((4 * width, 1))
        layers: list[nn.Module] = []
        channels = 3
        for out, stride in plan:
            conv = nn.Conv2d(channels, out, 3, stride, padding=1, bias=not batch_norm)
            norm = nn.BatchNorm2d(out) if batch_norm else _keeping_size(conv)
            layers += [conv, norm, nn.ReLU(inplace=True)]
            channels = out
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.num_features = channels

    def forward(self, x: Any) -> Any:
        return self.layers(x)


class InfomaxCNN(nn.Module):
    """Three 4x4 convolutions and two linear layers, which see the whole image.

    The encoder of Zhu, Zhang, Evans 2020, arXiv:2002.11798, by their released code
    (cifar_models/encoder.py), after that of Hjelm et al. 2019, arXiv:1808.06670. Its
    first convolutions have 64, 128 and 256 channels, the linear layers 1024 and 64.

    Args:
        image_size: side of the images in pixels, a multiple of 8: the convolutions
            have stride 2.
        width: channels of the first convolution; the others have 2 and 4 times as many.
        hidden: width of the first linear layer.
        out: features.

    Raises:
        UserError: the size is none, or (when called) not that of the images.
    """

    def __init__(self, *, image_size: int, width: int, hidden: int, out: int) -> None:
        super().__init__()
        side, rest = divmod(image_size, _HALVED)
        if rest or side < 1:
            raise UserError(
                f"model.backbone.image_size={image_size}; this encoder halves images "
                f"three times: set data.size to a multiple of {_HALVED}, or another "
                "model="
            )
        layers: list[nn.Module] = []
        channels = 3
        for more in (width, 2 * width, 4 * width):
            layers.append(nn.Conv2d(channels, more, 4, 2, padding=1, bias=False))
            layers += [nn.BatchNorm2d(more), nn.ReLU(inplace=True)]
            channels = more
        layers += [nn.Flatten(), nn.Linear(channels * side**2, hidden)]
        layers += [nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, out))
        self.image_size, self.num_features = image_size, out

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.image_size, self.image_size):
            raise UserError(
                f"this encoder is for images of {self.image_size} px, and gets "
                f"{x.shape[2]}x{x.shape[3]} px; set model.backbone.image_size, or take "
                "views that keep the size"
            )
        return cast(Tensor, self.layers(x))
