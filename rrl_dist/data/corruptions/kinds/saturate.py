"""The saturation of HSV changed; hue and value stay."""

from torch import Tensor

from rrl_dist.data.corruptions.kind import Given, Kind


def _apply(x: Tensor, line: tuple[float, float], given: Given) -> Tensor:
    """Grey has no hue, which counts as red: where saturation is added, it reddens."""
    times, more = line
    value = x.amax(1, keepdim=True)
    range_ = value - x.amin(1, keepdim=True)
    coloured = range_ > 0
    # Of black, whose saturation is 0 too, nothing can be seen.
    old = (range_ / value).where(coloured, 0)
    new = (old * times + more).clamp(0, 1)
    below = ((value - x) / range_).where(
        coloured, x.new_tensor([0.0, 1, 1])[:, None, None]
    )
    return value - value * new * below


KIND = Kind(  # what saturation is multiplied by, and what is added
    _apply,
    small=((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    large=((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    group="digital",
    role="validation",
    place=19,
)
