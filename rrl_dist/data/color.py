"""Operations of views that change colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from rrl_dist.core.randomness import Key, uniform
from rrl_dist.data.geometry import per_sample

_GREY = (0.2989, 0.587, 0.114)  # torchvision's weights, ITU-R BT.601
# RGB to YIQ (NTSC, 1953); hue is the angle in the plane of I and Q.
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def grey(x: Tensor) -> Tensor:
    """[N, 3, H, W] -> [N, 1, H, W], the weighted mean of the channels."""
    red, green, blue = x.unbind(1)
    weighted = red * _GREY[0] + green * _GREY[1] + blue * _GREY[2]
    return weighted[:, None]


@dataclass(frozen=True, kw_only=True)
class Grayscale:
    """Replace the channels by their weighted mean with probability `p`."""

    p: float

    def __call__(
        self, x: Tensor, *, seed: int, key: tuple[Key, ...], index: Tensor
    ) -> Tensor:
        """See `views.Operation`."""
        chosen = uniform(seed, *key, index=index, n=1)[:, 0] < self.p
        return torch.where(per_sample(chosen), grey(x), x)


@dataclass(frozen=True, kw_only=True)
class Solarize:
    """Invert what is at `threshold` (in [0, 1]) or brighter, with probability `p`."""

    p: float
    threshold: float

    def __call__(
        self, x: Tensor, *, seed: int, key: tuple[Key, ...], index: Tensor
    ) -> Tensor:
        """See `views.Operation`."""
        chosen = uniform(seed, *key, index=index, n=1)[:, 0] < self.p
        return torch.where(per_sample(chosen) & (x >= self.threshold), 1 - x, x)


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue, in an order of each sample's own.

    Each of the four is affine in the colours, so their composition is one 3 x 4
    matrix for each sample. Two differences from torchvision: values are cut to
    [0, 1] once at the end and not after each of the four, and hue turns the plane of
    I and Q (linear, brightness kept) and not the hue of HSV.

    Attributes:
        brightness, contrast, saturation: b draws a factor from
            [max(0, 1 - b), 1 + b].
        hue: h draws a turn from [-h, h] of a full circle.
        p: probability.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    p: float

    def __call__(
        self, x: Tensor, *, seed: int, key: tuple[Key, ...], index: Tensor
    ) -> Tensor:
        """See `views.Operation`."""
        draws = uniform(seed, *key, index=index, n=9).double()
        strengths = (self.brightness, self.contrast, self.saturation)
        factors = [_factor(draws[:, i], b) for i, b in enumerate(strengths)]
        turn = self.hue * (2 * draws[:, 3] - 1)
        order = draws[:, 4:8].argsort(dim=1, stable=True)
        matrix = jitter_matrix(channel_means(x), factors, turn, order)
        chosen = (draws[:, 8] < self.p)[:, None, None]
        unchanged = torch.eye(3, 4, device=x.device, dtype=matrix.dtype)
        return affine(x, torch.where(chosen, matrix, unchanged)).clamp_(0, 1)


def _factor(draw: Tensor, strength: float) -> Tensor:
    low = max(0.0, 1 - strength)
    return low + (1 + strength - low) * draw


def channel_means(x: Tensor) -> Tensor:
    """[N, 3, H, W] in [0, 1] -> [N, 3] double.

    Sums of integers are exact, so no order of summing changes them.
    """
    whole = x.mul(2**24).round_().to(torch.int32).sum(dim=(2, 3), dtype=torch.int64)
    return whole.double() / (2**24 * x.shape[2] * x.shape[3])


def affine(x: Tensor, matrix: Tensor) -> Tensor:
    """x: [N, 3, H, W]; matrix: [N, 3, 4], the last column is added -> [N, 3, H, W]."""
    m = matrix.to(x.dtype)[..., None, None]  # [N, 3, 4, 1, 1]
    y = m[:, :, 0] * x[:, 0:1]
    for channel in (1, 2):
        y += m[:, :, channel] * x[:, channel : channel + 1]
    return y.add_(m[:, :, 3])


def jitter_matrix(
    means: Tensor, factors: Sequence[Tensor], turn: Tensor, order: Tensor
) -> Tensor:
    """Compose the four operations.

    All but contrast are linear. Contrast adds (1 - f) times the grey mean of the image
    as it is then, so the mean colour goes through a linear map of its own; what is
    added in all is the mean's end less what the linear part makes of its start.

    Args:
        means: [N, 3] double, means of the channels.
        factors: [N] double each, of brightness, contrast and saturation.
        turn: [N] double, hue, as a share of a full circle.
        order: [N, 4] the operations' places, in the order in which they are done.

    Returns:
        [N, 3, 4] double; the last column is added.
    """
    rows = torch.arange(len(means), device=means.device)
    steps = _linear_parts(factors, turn)[rows[:, None], order]  # [N, 4, 2, 3, 3]
    total = steps[:, 0]
    for place in (1, 2, 3):
        total = _times(steps[:, place], total)
    pixel, mean = total.unbind(1)
    return torch.cat([pixel, _times(mean - pixel, means[..., None])], dim=2)


def _linear_parts(factors: Sequence[Tensor], turn: Tensor) -> Tensor:
    """[N, 4, 2, 3, 3]: for brightness, contrast, saturation and hue, what each does to
    a pixel (nothing added) and to the mean colour.
    """
    brightness, contrast, saturation = (f[:, None, None] for f in factors)
    eye = torch.eye(3, device=turn.device, dtype=turn.dtype)
    to_grey = turn.new_tensor([_GREY] * 3)
    lighter = brightness * eye
    flatter = contrast * eye
    to_mean = flatter + (1 - contrast) * to_grey
    paler = saturation * eye + (1 - saturation) * to_grey
    turned = _hue_matrix(turn)
    pairs = [lighter, lighter, flatter, to_mean, paler, paler, turned, turned]
    return torch.stack(pairs, dim=1).view(len(turn), 4, 2, 3, 3)


def _hue_matrix(turn: Tensor) -> Tensor:
    """[N, 3, 3]; red goes to green and green to blue, as in HSV."""
    angle = (-2 * math.pi * turn)[:, None, None]
    luma, cos, sin = turn.new_tensor(_hue_parts()).unbind(0)
    return luma + torch.cos(angle) * cos + torch.sin(angle) * sin


@cache
def _hue_parts() -> list[list[list[float]]]:
    """Three 3 x 3 matrices: of what stays, of the cosine and of the sine."""
    to_yiq = torch.tensor(_YIQ, dtype=torch.float64)
    turns = torch.zeros(3, 3, 3, dtype=torch.float64)
    turns[0, 0, 0] = turns[1, 1, 1] = turns[1, 2, 2] = 1
    turns[2, 1, 2], turns[2, 2, 1] = -1, 1
    parts: list[list[list[float]]] = (to_yiq.inverse() @ turns @ to_yiq).tolist()
    return parts


def _times(a: Tensor, b: Tensor) -> Tensor:
    """[..., 3, 3] x [..., 3, K]; written out: a batched product may round by N."""
    parts = [a[..., :, k, None] * b[..., None, k, :] for k in range(3)]
    return parts[0] + parts[1] + parts[2]
