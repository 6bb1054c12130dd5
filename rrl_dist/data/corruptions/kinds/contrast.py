"""Each channel's distance from its mean over the image, made less."""

from torch import Tensor

from rrl_dist.data.corruptions.kind import Given, Kind, levels


def _apply(x: Tensor, share: float, given: Given) -> Tensor:
    # Sums of integers are exact, so no order of summing changes them.
    total = levels(x).sum(dim=(2, 3), keepdim=True)
    mean = total.double() / (255 * x.shape[2] * x.shape[3])
    return (x - mean) * share + mean


KIND = Kind(  # share that is left
    _apply,
    small=(0.75, 0.5, 0.4, 0.3, 0.15),
    large=(0.4, 0.3, 0.2, 0.1, 0.05),
    group="digital",
    role="test",
    place=12,
)
