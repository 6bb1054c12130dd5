"""A camera that draws near: the mean of the image and of enlarged ones."""

import numpy as np
from torch import Tensor

from rrl_dist.data.corruptions.enlarge import enlarged
from rrl_dist.data.corruptions.kind import Given, Kind


def _apply(x: Tensor, zoom: tuple[float, float], given: Given) -> Tensor:
    end, step = zoom
    # The authors' range: rounding lets it hold its end, or not.
    factors = np.arange(1, end, step).tolist()
    total = x.clone()
    for factor in factors:
        total += enlarged(x, factor)
    return total / (len(factors) + 1)


KIND = Kind(  # end and step of the factors, which begin with 1
    _apply,
    small=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    large=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    group="blur",
    role="test",
    place=7,
)
