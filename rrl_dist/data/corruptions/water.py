"""What drops of water look like, in whole numbers, as OpenCV's operations make them.

Edges of drops (Canny 1986), how far each pixel is from one (a chamfer distance,
Borgefors 1986), equalized, and shaded from one side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_LOW, _HIGH = 50, 150  # the authors' thresholds of Canny
_FAR = 20  # pixels, beyond which distances are all the same
_UNIT = 1 << 16  # OpenCV counts distances in these shares of a pixel
# Steps of a chamfer distance with their lengths: straight, slanting, a knight's.
_LENGTHS = {1: 65536, 2: 91750, 5: 143976}
_TANGENT = 13573  # of 22.5 degrees, times 2**15
_SHADE = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))


def shaded(layer: Tensor) -> Tensor:
    """[N, H, W] int64, 0 to 255: drops on black -> their light, [N, H, W] likewise."""
    distance = _distances(_edges(layer)).clamp_max(_FAR * _UNIT)
    even = _box(distance) // (9 * _UNIT)
    light = _corr(_equalized(even), _SHADE).clamp(0, 255)
    return (2 * _box(light) + 9) // 18


def _edges(x: Tensor) -> Tensor:
    """[N, H, W] bool: Canny's, with the sum of both slopes for a gradient."""
    padded = F.pad(x[:, None].double(), [1] * 4, mode="replicate")[:, 0].long()
    across = _slope(padded)
    down = _slope(padded.transpose(1, 2)).transpose(1, 2)
    size = across.abs() + down.abs()
    near = F.pad(size, [1] * 4)
    height, width = size.shape[1:]

    def beside(i: int, j: int) -> Tensor:
        return near[:, 1 + i : 1 + i + height, 1 + j : 1 + j + width]

    steep, flat = down.abs() << 15, across.abs() * _TANGENT
    falling = (across < 0) != (down < 0)
    lies = (size > beside(0, -1)) & (size >= beside(0, 1))
    stands = (size > beside(-1, 0)) & (size >= beside(1, 0))
    rises = (size > beside(-1, -1)) & (size > beside(1, 1))
    falls = (size > beside(-1, 1)) & (size > beside(1, -1))
    slants = torch.where(falling, falls, rises)
    upright = torch.where(steep > flat + (across.abs() << 16), stands, slants)
    kept = torch.where(steep < flat, lies, upright) & (size > _LOW)
    edge, before = kept & (size > _HIGH), torch.zeros_like(kept)
    while not torch.equal(edge, before):
        before = edge
        edge = F.max_pool2d(edge[:, None].double(), 3, 1, 1)[:, 0].bool() & kept
    return edge


def _slope(x: Tensor) -> Tensor:
    """Sobel's, across: [N, H + 2, W + 2] -> [N, H, W]."""
    rows = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]
    return rows[:, :, 2:] - rows[:, :, :-2]


def _distances(edge: Tensor) -> Tensor:
    """[N, H, W] int64, to the nearest edge, by steps within the image."""
    far = (_FAR + 3) * _UNIT
    found = torch.where(edge, 0, far)
    reach = range(-2, 3)
    steps = [(i, j, _LENGTHS.get(i * i + j * j)) for i in reach for j in reach]
    height, width = edge.shape[1:]
    before = torch.full_like(found, -1)
    while not torch.equal(found, before):
        before, padded = found, F.pad(found, [2] * 4, value=far)
        for i, j, length in steps:
            if length is not None:
                other = padded[:, 2 + i : 2 + i + height, 2 + j : 2 + j + width]
                found = torch.minimum(found, other + length)
    return found


def _equalized(x: Tensor) -> Tensor:
    """Whole numbers from 0 to `_FAR`, each as bright as its share of the pixels."""
    counts = torch.stack([(x == v).sum((1, 2)) for v in range(_FAR + 1)], 1)  # [N, V]
    below = counts.cumsum(1)
    least = below.gather(1, (below > 0).long().argmax(1, keepdim=True))
    total = x[0].numel()
    scale = 255 / (total - least).clamp_min(1).double()
    bright = ((below - least).clamp_min(0) * scale).round().long()
    spread = bright.gather(1, x.flatten(1)).view_as(x)
    return torch.where((least < total)[:, :, None], spread, x)


def _corr(x: Tensor, kernel: tuple[tuple[int, ...], ...]) -> Tensor:
    """[N, H, W] whole numbers, 3 x 3, mirrored at the border."""
    padded = F.pad(x[:, None].double(), [1] * 4, mode="reflect")[:, 0].long()
    height, width = x.shape[1:]
    y = torch.zeros_like(x)
    for i, row in enumerate(kernel):
        for j, weight in enumerate(row):
            y += weight * padded[:, i : i + height, j : j + width]
    return y


def _box(x: Tensor) -> Tensor:
    """Sums over 3 x 3."""
    return _corr(x, ((1, 1, 1),) * 3)
