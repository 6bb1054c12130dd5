"""Operations of views that move pixels: crops, flips, blur and turns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import Key, uniform

_TRIES = 10  # torchvision's number of tries for a crop that fits


def per_sample(values: Tensor) -> Tensor:
    """[N] -> [N, 1, 1, 1], to go with images."""
    return values[:, None, None, None]


@dataclass(frozen=True, kw_only=True)
class HorizontalFlip:
    """Mirror left and right with probability `p`."""

    p: float

    def __call__(
        self, x: Tensor, *, seed: int, key: tuple[Key, ...], index: Tensor
    ) -> Tensor:
        """See `views.Operation`."""
        chosen = uniform(seed, *key, index=index, n=1)[:, 0] < self.p
        return torch.where(per_sample(chosen), x.flip(3), x)


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """Pad with black and cut a window of the input's size anywhere in it.

    Attributes:
        padding: pixels on each side.
    """

    padding: int

    def __call__(
        self, x: Tensor, *, seed: int, key: tuple[Key, ...], index: Tensor
    ) -> Tensor:
        """See `views.Operation`."""
        draws = uniform(seed, *key, index=index, n=2)
        offset = (draws * (2 * self.padding + 1)).long()  # exact: draws are below 1
        return cut(x, top=offset[:, 0], left=offset[:, 1], padding=self.padding)


def cut(x: Tensor, *, top: Tensor, left: Tensor, padding: int) -> Tensor:
    """Windows of x's size at (top, left) [N] of x padded with black."""
    height, width = x.shape[2:]
    padded = F.pad(x, [padding] * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    rows = torch.arange(len(x), device=x.device)
    return windows[rows, :, top, left]


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """Cut a random part and resize it (bilinear).

    Draws area, ratio and place as torchvision does, ten tries and its fallback
    included. An output smaller than the crop is not antialiased; crops of images
    stored at the output's size are never larger than it.

    Attributes:
        size: side of the output; None for the input's height and width.
        scale: range of the area, as a share of the image.
        ratio: range of width / height, drawn log-uniformly.
    """

    size: int | None
    scale: Sequence[float]
    ratio: Sequence[float]

    def __call__(
        self, x: Tensor, *, seed: int, key: tuple[Key, ...], index: Tensor
    ) -> Tensor:
        """See `views.Operation`."""
        height, width = x.shape[2:]
        draws = uniform(seed, *key, index=index, n=2 * _TRIES + 2).double()
        box = self.boxes(draws, height=height, width=width)
        out = (height, width) if self.size is None else (self.size, self.size)
        return resized(x, box, out)

    def boxes(self, draws: Tensor, *, height: int, width: int) -> Tensor:
        """[N, 22] uniform draws -> [N, 4]: top, left, height, width in pixels."""
        smallest, largest = self.scale
        share = smallest + (largest - smallest) * draws[:, :_TRIES]
        narrow, broad = (math.log(bound) for bound in self.ratio)
        ratio = torch.exp(narrow + (broad - narrow) * draws[:, _TRIES : 2 * _TRIES])
        wide = torch.round(torch.sqrt(height * width * share * ratio))
        high = torch.round(torch.sqrt(height * width * share / ratio))
        fits = (wide > 0) & (wide <= width) & (high > 0) & (high <= height)
        # Tries before the first that fits; all ten if none does.
        failed = (fits.cumsum(1) == 0).sum(1)
        first = failed.clamp(max=_TRIES - 1)[:, None]
        h, w = high.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]
        top = torch.floor(draws[:, -2] * (height - h + 1))
        left = torch.floor(draws[:, -1] * (width - w + 1))
        found = torch.stack([top, left, h, w], dim=1)
        fallback = found.new_tensor(self._fallback(height, width))
        return torch.where((failed < _TRIES)[:, None], found, fallback)

    def _fallback(self, height: int, width: int) -> list[int]:
        """The largest centred box of an allowed ratio."""
        h, w = height, width
        if width / height < self.ratio[0]:
            h = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            w = round(height * self.ratio[1])
        return [(height - h) // 2, (width - w) // 2, h, w]


def resized(x: Tensor, box: Tensor, out: tuple[int, int]) -> Tensor:
    """Bilinear resampling of a box of each image.

    Args:
        x: [N, 3, H, W].
        box: [N, 4] top, left, height, width in pixels.
        out: height and width of the output.
    """
    rows = _places(box[:, 0], box[:, 2], inside=x.shape[2], out=out[0])
    columns = _places(box[:, 1], box[:, 3], inside=x.shape[3], out=out[1])
    grid = x.new_empty((len(x), *out, 2))
    grid[..., 0] = columns[:, None, :]
    grid[..., 1] = rows[:, :, None]
    y = F.grid_sample(
        x, grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return y.clamp_(0, 1)  # the four weights may sum to 1 and a rounding error


def _places(start: Tensor, length: Tensor, *, inside: int, out: int) -> Tensor:
    """[N, out] where to sample, in grid_sample's units of -1 to 1.

    Places are held inside the box, so that nothing beyond its edge is mixed in.
    """
    centre = torch.arange(out, device=start.device, dtype=start.dtype) + 0.5
    place = centre * length[:, None] / out - 0.5
    place = place.clamp(min=0).minimum(length[:, None] - 1) + start[:, None]
    return 2 * place / max(1, inside - 1) - 1


@dataclass(frozen=True, kw_only=True)
class GaussianBlur:
    """Blur with probability `p`, edges mirrored.

    Attributes:
        p: probability.
        sigma: range of the standard deviation, in pixels.
        kernel: taps in each direction, odd.

    Raises:
        UserError: if `kernel` is even.
    """

    p: float
    sigma: Sequence[float]
    kernel: int

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise UserError(f"blur kernel={self.kernel} is even; set an odd number")

    def __call__(
        self, x: Tensor, *, seed: int, key: tuple[Key, ...], index: Tensor
    ) -> Tensor:
        """See `views.Operation`."""
        draws = uniform(seed, *key, index=index, n=2)
        chosen = (draws[:, 0] < self.p).nonzero()[:, 0]
        low, high = self.sigma
        sigma = low + (high - low) * draws[chosen, 1].double()
        return x.index_copy(0, chosen, blurred(x[chosen], sigma, self.kernel))


def blurred(x: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """x: [N, 3, H, W]; sigma: [N] double, in pixels -> [N, 3, H, W]."""
    half = kernel // 2
    if half >= min(x.shape[2:]):
        raise UserError(
            f"blur kernel={kernel} is too wide for images of {min(x.shape[2:])} px; "
            f"set it to {2 * min(x.shape[2:]) - 1} or less"
        )
    distance = torch.arange(half + 1, device=x.device, dtype=sigma.dtype)
    weight = torch.exp(-0.5 * (distance / sigma[:, None]).square())
    total = weight[:, 0] + 2 * weight[:, 1:].sum(1)
    weight = (weight / total[:, None]).to(x.dtype)
    padded = F.pad(x, [half] * 4, mode="reflect")
    for dim in (3, 2):
        padded = _blurred_along(padded, weight, dim)
    return padded.clamp_(0, 1)


def _blurred_along(x: Tensor, weight: Tensor, dim: int) -> Tensor:
    """One direction; x is longer than the output by the kernel's half on each side.

    weight: [N, half + 1], from the middle outwards.
    """
    half = weight.shape[1] - 1
    length = x.shape[dim] - 2 * half
    y = per_sample(weight[:, 0]) * x.narrow(dim, half, length)
    for away in range(1, half + 1):
        pair = x.narrow(dim, half - away, length) + x.narrow(dim, half + away, length)
        y += pair.mul_(per_sample(weight[:, away]))
    return y


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """Turn around the centre by a uniform angle; corners become black.

    Pixels are taken and not mixed, as by torchvision's RandomRotation as it comes.

    Attributes:
        degrees: largest angle, to either side.

    Raises:
        UserError: if `degrees` is negative.
    """

    degrees: float

    def __post_init__(self) -> None:
        if not self.degrees >= 0:
            raise UserError(f"rotation by degrees={self.degrees}; set at least 0")

    def __call__(
        self, x: Tensor, *, seed: int, key: tuple[Key, ...], index: Tensor
    ) -> Tensor:
        """See `views.Operation`."""
        draws = uniform(seed, *key, index=index, n=1)[:, 0].double()
        return turned(x, math.radians(self.degrees) * (2 * draws - 1))


def turned(x: Tensor, angle: Tensor) -> Tensor:
    """Nearest pixels of images turned counter-clockwise, black where there are none.

    Args:
        x: [N, 3, H, W].
        angle: [N] double, in radians.
    """
    height, width = x.shape[2:]
    down, right = ((height - 1) / 2, (width - 1) / 2)
    y = torch.arange(height, device=x.device, dtype=angle.dtype)[:, None] - down
    across = torch.arange(width, device=x.device, dtype=angle.dtype) - right
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    row = torch.round(cos * y + sin * across + down).long()  # [N, H, W]
    column = torch.round(cos * across - sin * y + right).long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).flatten(1)
    pixels = x.flatten(2).gather(2, place[:, None].expand(-1, x.shape[1], -1))
    return pixels.view_as(x) * inside[:, None]
