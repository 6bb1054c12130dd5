"""The middle of an image, enlarged to the image's size."""

import math

import torch
from torch import Tensor


def enlarged(x: Tensor, factor: float) -> Tensor:
    """[N, C, H, W] -> [N, C, H, W]; factor >= 1.

    Linear between pixels, the first and last of which stay the first and last, as in
    scipy.ndimage.zoom; what is too much is cut off around it.
    """
    return _along(_along(x, factor, 2), factor, 3)


def _along(x: Tensor, factor: float, dim: int) -> Tensor:
    length = x.shape[dim]
    kept = math.ceil(length / factor)
    first = (length - kept) // 2
    count = max(round(kept * factor), length)
    places = torch.arange(count, dtype=torch.float64, device=x.device)
    places = places[(count - length) // 2 :][:length]
    at = places * ((kept - 1) / max(1, count - 1))
    low = at.long().clamp_max(kept - 1)
    high = (low + 1).clamp_max(kept - 1)
    shape = [1] * x.ndim
    shape[dim] = length
    share = (at - low).view(shape)
    below, above = (x.index_select(dim, first + i) for i in (low, high))
    return (1 - share) * below + share * above
