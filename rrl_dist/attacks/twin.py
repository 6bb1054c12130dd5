"""A copy of a model that gives the same logits sooner.

Batch norms are folded into convolutions, and convolutions keep their channels last. The
copy is held against the model on images of noise; where it differs by more than
rounding, or cannot be made, the model itself is used. What attacks give back are
images: whether these are wrong is asked of the model itself.
"""

import copy
import math
from typing import NamedTuple

import torch
from torch import Size, Tensor, nn

from rrl_dist.attacks.ascent import value_and_gradient
from rrl_dist.attacks.folding import fold
from rrl_dist.core.randomness import uniform

CLOSE = 1e-4  # share that rounding may change


class Twin(NamedTuple):
    """What is called in a model's place.

    Attributes:
        module: a copy, or the model itself.
        off: how far off it is on noise: the largest difference of logits, less their
            mean, or of gradients, over the largest of these; 0 of the model itself.
        scale: the largest logit on noise, less their mean.
    """

    module: nn.Module
    off: float
    scale: float


def faster(model: nn.Module, shape: Size, device: torch.device) -> Twin:
    """The copy, or the model itself.

    Args:
        model: in eval mode, without parameter gradients.
        shape: (N, C, H, W) of its calls.
        device: of the images; only on a CPU is a copy made.
    """
    has_any = any(type(module) is nn.Conv2d for module in model.modules())
    if not has_any or device.type != "cpu" or len(shape) != 4:
        return Twin(model, 0.0, 0.0)
    # The same images for any caller: all take the copy or none does.
    places = torch.arange(shape[0])
    noise = uniform(0, "twin", index=places, n=math.prod(shape[1:])).reshape(shape)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            twin = _twin(model, noise)
        except Exception:
            # A stranger's module may refuse to be copied, or read its layout. What is
            # wrong with the model itself is told when it is called.
            return Twin(model, 0.0, 0.0)
    return twin if twin.off <= CLOSE else Twin(model, 0.0, 0.0)


def _twin(model: nn.Module, x: Tensor) -> Twin:
    twin = copy.deepcopy(model)
    fold(twin, x)
    twin = twin.to(memory_format=torch.channels_last)
    expected, found = _answers(model, x), _answers(twin, x)
    offs = [_off(*pair) for pair in zip(expected, found, strict=True)]
    # A NaN is no small difference, and max passes over it.
    off = max(offs) if all(map(math.isfinite, offs)) else math.inf
    return Twin(twin, off, float(expected[0].abs().max()))


def _answers(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits less what all of a row have in common, which nobody asks for, and the
    gradient of the largest."""
    logits: Tensor | None = None

    def largest(x: Tensor) -> Tensor:
        nonlocal logits
        logits = model(x).float()
        logits = logits - logits.mean(1, keepdim=True)
        return logits.amax(1)

    _, grad = value_and_gradient(largest, x)
    assert logits is not None
    return logits.detach(), grad


def _off(expected: Tensor, found: Tensor) -> float:
    """The largest difference, as a share of the largest magnitude."""
    largest = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float((found - expected).abs().max() / largest)
