"""Random images, as unlike a clean one as may be, where decision-based attacks begin.

Noise of single pixels alone, as the attacks' papers have it, will not do: many networks
call all of it by one name, and images of that name would look as if nothing broke them.
So there are tiles as well, of any size up to the whole image, of random or of pure
colours.
"""

import torch
from torch import Tensor

from rrl_dist.attacks.balls import as_column
from rrl_dist.core.randomness import uniform


def start_images(x: Tensor, attempt: Tensor, *, seed: int, index: Tensor) -> Tensor:
    """One for each row, whatever the attack, so that several begin alike.

    Args:
        x: [M, ...] images, whose shape it has.
        attempt: [M] int64 >= 0. Tiles grow from one to the next, and begin again at
            single pixels; every other round has pure colours.
        seed: of the draws.
        index: [M] int64, the samples, in [0, 2**32).

    Returns:
        [M, ...] in [0, 1].
    """
    pixels = x[0].numel()
    draws = uniform(seed, "start", index=index + (attempt << 32), n=pixels)
    noise = draws.reshape(x.shape)
    sizes = _tile_sizes(x)
    turn, place = attempt // len(sizes), attempt % len(sizes)
    side = torch.tensor(sizes, device=x.device)[place]
    pure = as_column(turn % 2 == 1, x)
    noise = torch.where(pure, noise.round(), noise)
    return _tiled(noise, side) if x.ndim == 4 else noise


def _tile_sizes(x: Tensor) -> list[int]:
    """1, 2, 4, ... up to the longer side of an image; 1 where there are no sides."""
    longest = max(x.shape[2:]) if x.ndim == 4 else 1
    return [2**power for power in range((longest - 1).bit_length() + 1)]


def _tiled(noise: Tensor, side: Tensor) -> Tensor:
    """[M, C, H, W], [M] -> the same with the colour of each tile's first pixel."""
    for axis in (2, 3):
        place = torch.arange(noise.shape[axis], device=noise.device)
        first = place // side[:, None] * side[:, None]  # [M, H] or [M, W]
        shape = [len(side), 1, 1, 1]
        shape[axis] = -1
        noise = noise.gather(axis, first.reshape(shape).expand_as(noise))
    return noise
