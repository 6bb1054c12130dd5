"""Ice on the lens: a part of a texture over a darkened image."""

import torch
from torch import Tensor

from rrl_dist.data.corruptions.kind import Given, Kind, whole
from rrl_dist.data.corruptions.plasma import plasma, side_of

_COLOUR = (0.82, 0.92, 1.0)  # of made-up ice: bluish white
_STRIDE = 5  # the authors shrink textures for small images to a fifth


def _apply(x: Tensor, shares: tuple[float, float], given: Given) -> Tensor:
    own, ice = shares
    frost = _cut_out(x, given) if given.textures else _made_up(x, given)
    return own * x + ice * frost


def _cut_out(x: Tensor, given: Given) -> Tensor:
    """[N, 3, H, W]: a window anywhere in one of the textures, all as likely.

    OpenCV's linear shrinking to a fifth takes the middle pixel of each five.
    """
    height, width = x.shape[2:]
    draws = given.draw(3)
    chosen = whole(draws[:, 0], len(given.textures)).tolist()
    parts = []
    for texture, u in zip(chosen, draws[:, 1:], strict=True):
        ice = given.textures[texture].to(x.device)
        if given.small:
            ice = ice[:, _STRIDE // 2 :: _STRIDE, _STRIDE // 2 :: _STRIDE]
        top = int(whole(u[0], max(1, ice.shape[1] - height)))
        left = int(whole(u[1], max(1, ice.shape[2] - width)))
        parts.append(ice[:, top : top + height, left : left + width])
    return torch.stack(parts)


def _made_up(x: Tensor, given: Given) -> Tensor:
    """[N, 3, H, W]: bright veins, the contour lines of a rough landscape, on patches
    of ice, another landscape."""
    height, width = x.shape[2:]
    size = max(height, width)
    draws = given.draw(2 * (side_of(size) ** 2 - 1))
    rough, smooth = (
        plasma(part, size, decay=decay)[:, None, :height, :width]
        for part, decay in zip(draws.chunk(2, dim=1), (1.4, 1.8), strict=True)
    )
    veins = (1 - (2 * rough - 1).abs()).pow(3)
    ice = 0.2 + 0.4 * smooth + 0.4 * veins
    return ice * x.new_tensor(_COLOUR)[:, None, None]


KIND = Kind(  # shares of image and ice
    _apply,
    small=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    large=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    group="weather",
    role="test",
    place=9,
)
