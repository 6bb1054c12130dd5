"""A copy of a model that gives the same logits sooner.

Batch norms are folded into convolutions, convolutions keep their channels last, and
what follows one is written over its output. The copy is held against the model on
images of noise; where it differs by more than rounding, or cannot be made, the model
itself is used. What attacks give back are images: whether these are wrong is asked of
the model itself.

A rough copy calculates in bfloat16, and is that of the copy.
"""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Size, Tensor, nn

from rrl_dist.attacks.ascent import value_and_gradient
from rrl_dist.attacks.folding import fold
from rrl_dist.core.randomness import uniform

# Shares that rounding may change, of logits and of gradients. What is further off would
# lead astray. Of gradients it is the median image's: in some a rectifier near 0 turns.
CLOSE, CLOSE_SLOPE = 1e-4, 1e-3
ROUGH, ROUGH_SLOPE = 0.05, 0.5  # of bfloat16
Make = Callable[[nn.Module, Tensor], nn.Module]


class Twin(NamedTuple):
    """What is called in a model's place.

    Attributes:
        module: a copy, or the model itself.
        off: how far off it is on noise: the largest difference of logits, less their
            mean, over the largest of these; 0 of the model itself.
        scale: the largest logit on noise, less their mean.
    """

    module: nn.Module
    off: float
    scale: float


class InBfloat16(nn.Module):
    """A model whose convolutions and products of matrices are in bfloat16.

    Args:
        model: without parameter gradients; a copy, since its weights are rounded.
        kind: of the device, such as "cpu".
    """

    def __init__(self, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind
        for module in model.modules():
            if type(module) in (nn.Conv2d, nn.Linear):
                # Else each call would round them anew.
                module.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, ...] -> logits [N, K] in float32."""
        # Without the cache, which is for weights that are trained.
        with torch.autocast(self.kind, torch.bfloat16, cache_enabled=False):
            logits: Tensor = self.model(x)
        return logits.float()


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
    for make in (_folded_over, _folded):
        twin, (off, slope), scale = _held(make, model, _noise(shape, device))
        if off <= CLOSE and slope <= CLOSE_SLOPE:
            return Twin(twin, off, scale)
    return Twin(model, 0.0, 0.0)


def rougher(model: nn.Module, shape: Size, device: torch.device) -> Twin | None:
    """The copy in bfloat16; None where there is none that is close enough.

    Args:
        model: as for `faster`, or the copy that it gave.
        shape, device: as for `faster`, on any device.
    """
    noise = _noise(shape, device)
    # Of a model that draws at random or refuses its copy there is none either.
    off, slope = _held(_same, model, noise)[1]
    if off > CLOSE or slope > CLOSE_SLOPE:
        return None
    rough, (off, slope), scale = _held(partial(_rough, kind=device.type), model, noise)
    return Twin(rough, off, scale) if off <= ROUGH and slope <= ROUGH_SLOPE else None


def _noise(shape: Size, device: torch.device) -> Tensor:
    """The same images for any caller: all take the copy or none does."""
    places = torch.arange(shape[0], device=device)
    pixels = math.prod(shape[1:])
    return uniform(0, "twin", index=places, n=pixels).reshape(shape)


def _held(
    make: Make, model: nn.Module, x: Tensor
) -> tuple[nn.Module, tuple[float, float], float]:
    """What is made of a model, how far its logits and gradients are off, endlessly if
    it fails, and the largest logit."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            twin = make(model, x)
            expected, found = _answers(model, x), _answers(twin, x)
        except Exception:
            # A stranger's module may refuse to be copied, or read its layout. What is
            # wrong with the model itself is told when it is called.
            return model, (math.inf, math.inf), 0.0
    off, slope = _off(expected[0], found[0]), _turned(expected[1], found[1])
    return twin, (off, slope), float(expected[0].abs().max())


def _same(model: nn.Module, x: Tensor) -> nn.Module:
    return copy.deepcopy(model)


def _folded(model: nn.Module, x: Tensor) -> nn.Module:
    twin = copy.deepcopy(model)
    fold(twin, x)
    return twin.to(memory_format=torch.channels_last)


def _folded_over(model: nn.Module, x: Tensor) -> nn.Module:
    """With rectifiers that write over what they are given."""
    twin = _folded(model, x)
    for module in twin.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return twin


def _rough(model: nn.Module, x: Tensor, kind: str) -> nn.Module:
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)
    return InBfloat16(twin, kind)


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


def _turned(expected: Tensor, found: Tensor) -> float:
    """The length of the difference as a share of the gradient's, of the median image;
    inf for NaN. 0 where both are 0."""
    apart = (found - expected).flatten(1).norm(dim=1)
    tiny = torch.finfo(expected.dtype).tiny
    share = float((apart / expected.flatten(1).norm(dim=1).clamp_min(tiny)).median())
    return share if math.isfinite(share) else math.inf


def _off(expected: Tensor, found: Tensor) -> float:
    """The largest difference, as a share of the largest magnitude; inf for NaN, which
    is no small difference, and which max may pass over."""
    largest = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    off = float((found - expected).abs().max() / largest)
    return off if math.isfinite(off) else math.inf
