"""The value of HSV raised; hue and saturation stay."""

from torch import Tensor

from rrl_dist.data.corruptions.kind import Given, Kind


def _apply(x: Tensor, more: float, given: Given) -> Tensor:
    """The three channels stay in proportion; black becomes grey."""
    value = x.amax(1, keepdim=True)
    raised = (value + more).clamp_max(1)
    return (x / value * raised).where(value > 0, raised)


KIND = Kind(  # what is added
    _apply,
    small=(0.05, 0.1, 0.15, 0.2, 0.3),
    large=(0.1, 0.2, 0.3, 0.4, 0.5),
    group="digital",
    role="test",
    place=11,
)
