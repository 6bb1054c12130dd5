"""Written as a JPEG file and read again, by Pillow: its library's version may round
otherwise."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rrl_dist.data.corruptions.kind import Given, Kind, levels


def _apply(x: Tensor, quality: int, given: Given) -> Tensor:
    pixels = levels(x).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    read = np.stack([_again(image, quality) for image in pixels])
    return torch.from_numpy(read).to(x.device).permute(0, 3, 1, 2).double() / 255


def _again(image: np.ndarray, quality: int) -> np.ndarray:
    """[H, W, 3] uint8 -> the same."""
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


KIND = Kind(  # quality, of 100
    _apply,
    small=(80, 65, 58, 50, 40),
    large=(25, 18, 15, 10, 7),
    group="digital",
    role="test",
    place=15,
)
