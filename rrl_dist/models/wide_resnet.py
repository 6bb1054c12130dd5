"""Wide ResNet for 32-pixel images: WRN-28-10, WRN-34-10 of the robustness tables.

Zagoruyko & Komodakis 2016, arXiv:1605.07146, section 2. timm's "wide" ResNets are the
50-layer bottleneck ones for ImageNet, another architecture.
"""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.core.errors import UserError


class _Block(nn.Module):
    """Pre-activation basic block: BN, ReLU, 3x3, BN, ReLU, 3x3, plus a shortcut."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.shortcut = (
            None if channels == out else nn.Conv2d(channels, out, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.bn1(x))
        # Where the shape changes, the shortcut too reads the activated input.
        skip = x if self.shortcut is None else self.shortcut(a)
        h = self.conv2(F.relu(self.bn2(self.conv1(a))))
        return cast(Tensor, h + skip)


class WideResNet(nn.Module):
    """WRN-depth-width without a classifier; features have 64 * width dimensions.

    Args:
        depth: 6n + 4, such as 28 or 34.
        width: widening factor, such as 10.
    """

    def __init__(self, *, depth: int, width: int) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise UserError(f"a wide ResNet has depth 6n + 4 from 10 on, not {depth}")
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
        channels = 16
        for out, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for i in range((depth - 4) // 6):
                layers.append(_Block(channels, out, stride if i == 0 else 1))
                channels = out
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.num_features = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))
